"""What git reports of a transfer or a checkout (git-fetch(1), --progress), read by GitPython."""

from __future__ import annotations

import math
import os
import re

from ..models import Reporter

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # `check_version` reports a missing git

from git import RemoteProgress

_SIZE = r"(\d{1,6}(?:\.\d{1,6})?) (bytes|KiB|MiB|GiB)"
_MOVED = re.compile(rf"{_SIZE}(?: \| {_SIZE}/s)?", re.ASCII)
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_LONGEST = 10_000  # characters of one line


class Progress(RemoteProgress):
    """Passes progress on to `reporter`: `who` is `doing` something."""

    def __init__(self, reporter: Reporter, who: str, doing: str) -> None:
        super().__init__()
        self._reporter, self._who, self._doing = reporter, who, doing
        self._rest = ""

    def read(self, block: bytes) -> None:
        """Take a part of git's messages as it comes."""
        *lines, self._rest = re.split(r"[\r\n]", self._rest[-_LONGEST:] + block.decode(errors="replace"))
        for line in lines:
            self._parse_progress_line(line)
        self.error_lines.clear()
        self.other_lines.clear()

    def update(
        self, op_code: int, cur_count: str | float, max_count: str | float | None = None, message: str = ""
    ) -> None:
        """Called by GitPython for each report; sizes are in bytes. A remote may write anything."""
        sizes = _MOVED.search(message)
        moved, unit, rate, rate_unit = sizes.groups("") if sizes else ("0", "bytes", "", "")
        count, total = float(cur_count), float(max_count or 0)
        done = count / total if 0 <= count <= total < math.inf and total else None
        speed = float(rate) * _UNITS[rate_unit] if rate else 0.0
        stage = op_code & self.OP_MASK
        doing = "resolving deltas" if stage == self.RESOLVING else self._doing
        if stage in (self.COUNTING, self.COMPRESSING):  # whose percentages say nothing about the transfer
            doing, done = "waiting for the server", None
        self._reporter.progress(self._who, doing, done, int(float(moved) * _UNITS[unit]), speed)
