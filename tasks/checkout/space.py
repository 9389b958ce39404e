"""Whether there is room on the disk for what is about to come."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from rich.filesize import decimal

from ..errors import DiskError
from ..git.messages import DiskFullError
from ..models import Settings

CHECKOUTS = 1_200_000_000  # bytes of both checkouts: an estimate of November 2026
HINT = ("Free some space (`uv cache clean` empties uv's cache; checkouts without work can be deleted) or set another "
        "sources.directory, then run the same command again.")  # fmt: skip


def check(settings: Settings, who: str) -> None:
    """Raise DiskFullError where the disk of the sources directory has too little space for the checkouts."""
    directory = settings.directory
    free = shutil.disk_usage(_existing(directory)).free
    if free < CHECKOUTS:
        what = f"{who}: the checkouts need about {decimal(CHECKOUTS)} in {directory}; {decimal(free)} are free."
        raise DiskFullError(what, HINT)


def check_writable(directory: Path) -> None:
    """Create `directory` if need be. Raises DiskError where that, or writing into it, is not possible."""
    hint = "Set another directory: INVOKE_SOURCES_DIRECTORY=/path invoke …"
    if _existing(directory).is_file():
        raise DiskError(f"{_existing(directory)} is a file, not a directory.", hint)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise DiskError(f"{directory} cannot be written: {error.strerror}.", hint) from None


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())
