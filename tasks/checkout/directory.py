"""The sources directory: its lock, by which two runs work one after the other, and the room on its disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.filesize import decimal

from ..errors import DiskError
from ..files import locked
from ..git import command
from ..models import Reporter, Settings

LOCK = ".lock"
CHECKOUTS = 1_200_000_000  # bytes of both checkouts: an estimate of November 2026
CLEAN = ("Free some space (`uv cache clean` empties uv's cache; checkouts without work can be deleted) or set another "
         "sources.directory, then run the same command again.")  # fmt: skip


@contextmanager
def alone(settings: Settings, reporter: Reporter, *, reading: bool) -> Iterator[None]:
    """Hold the lock, and wait for the process that holds it. The system releases it when that process and the git
    commands that inherit it have ended (flock(2)). A run that is only `reading` leaves no trace.

    Where the last run was killed, the locks that its git commands left are removed: none of them is alive any more.
    Raises DiskError for a directory that cannot be written.
    """
    directory = settings.directory
    if not reading:
        _check_writable(directory)

    def waiting(holder: str) -> None:
        reporter.event(directory.name, f"waiting for {holder}")

    with locked(directory / LOCK, waiting, writing=not reading) as lock:
        command.inherit(lock.descriptors)
        if lock.was_killed:
            _remove_locks(directory)
        try:
            yield
        finally:
            lock.is_clean = not command.left_locks()
            command.inherit(())


def check_space(directory: Path, who: str) -> None:
    """Raise DiskError where the disk of the sources directory has too little space for the checkouts."""
    free = shutil.disk_usage(next(parent for parent in (directory, *directory.parents) if parent.exists())).free
    if free < CHECKOUTS:
        what = f"{who}: the checkouts need about {decimal(CHECKOUTS)} in {directory}; {decimal(free)} are free."
        raise DiskError(what, CLEAN)


def _check_writable(directory: Path) -> None:
    """Create `directory` if need be."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        is_file = isinstance(error, FileExistsError | NotADirectoryError)
        why = "is a file, not a directory" if is_file else f"cannot be written: {error.strerror}"
        raise DiskError(f"{directory} {why}.", "Set another: INVOKE_SOURCES_DIRECTORY=/path invoke …") from None


def _remove_locks(directory: Path) -> None:
    """Remove the locks of git in the repositories."""
    for git_dir in directory.glob("*/.git"):
        for file in git_dir.rglob("*.lock"):
            if file.is_file():
                file.unlink(missing_ok=True)
