"""What git reports of its work, as the stages that people see."""

from __future__ import annotations

from typing import Any

from tasks.git.progress import Progress

FETCH = b"""remote: Enumerating objects: 65, done.        \r
remote: Counting objects:  65% (42/65)\rremote: Counting objects: 100% (65/65), done.
remote: Compressing objects:  64% (40/62)\rReceiving objects:   2% (2/65)
Receiving objects:  18% (12/65), 1.25 MiB | 1.00 MiB/s
Resolving deltas:  50% (1/2)\r
"""


class Seen:
    """A reporter that keeps the progress."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, float | None, int]] = []

    def progress(self, who: str, doing: str, done: float | None, moved: int, rate: float) -> None:
        self.stages.append((doing, done and round(done, 2), moved))


def test_only_what_is_received_counts_as_fetching() -> None:
    seen: Any = Seen()
    Progress(seen, "flashinfer", "fetching files").read(FETCH)
    assert [stage for stage in seen.stages if stage[1]] == [
        ("counting objects", 0.65, 0),
        ("counting objects", 1.0, 0),
        ("compressing objects", 0.65, 0),
        ("fetching files", 0.03, 0),
        ("fetching files", 0.18, 1_310_720),
        ("resolving deltas", 0.5, 0),
    ]
