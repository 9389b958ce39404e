"""What git reports of a transfer or a checkout (git-fetch(1), --progress), read by GitPython."""

from __future__ import annotations

import os
import re

from ..models import Reporter

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # a missing git is told by `check_version`, not by an ImportError

from git import RemoteProgress

_MOVED = re.compile(r"([\d.]+) (bytes|KiB|MiB|GiB)(?: \| ([\d.]+) (bytes|KiB|MiB|GiB)/s)?")
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class Progress(RemoteProgress):
    """Hands the progress on to `reporter`: `who` is `doing` something."""

    def __init__(self, reporter: Reporter, who: str, doing: str) -> None:
        super().__init__()
        self._reporter, self._who, self._doing = reporter, who, doing

    def read(self, line: str) -> None:
        """Take one of git's lines. `error_lines` and `other_lines` hold those that are no progress."""
        self.new_message_handler()(line.replace("Updating files", "Checking out files"))  # as git says it since 2.25

    def update(
        self, op_code: int, cur_count: str | float, max_count: str | float | None = None, message: str = ""
    ) -> None:
        """Called by GitPython for each report; sizes are in bytes."""
        sizes = _MOVED.search(message)
        moved, unit, rate, rate_unit = sizes.groups("") if sizes else ("0", "bytes", "", "")
        done = float(cur_count) / float(max_count) if max_count else None
        self._reporter.progress(
            self._who,
            self._doing,
            done,
            int(float(moved) * _UNITS[unit]),
            float(rate) * _UNITS[rate_unit] if rate else 0.0,
        )
