"""The lock of the sources directory: two runs in one directory work one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..files import locked
from ..git import command
from ..models import Reporter, Settings
from .space import check_writable

FILE = ".lock"


@contextmanager
def alone(settings: Settings, reporter: Reporter, *, reading: bool) -> Iterator[None]:
    """Hold the lock, and wait for the process that holds it. The system releases it when that process and the git
    commands that inherit it have ended (flock(2)). A run that is only `reading` leaves no trace.

    Where the last run was killed, the locks that its git commands left are removed: none of them is alive any more.
    Raises DiskError for a directory that cannot be written.
    """
    file = settings.directory / FILE
    if not reading:
        check_writable(settings.directory)

    def waiting(holder: str) -> None:
        reporter.event(settings.directory.name, f"waiting for {holder}")

    with locked(file, waiting, writing=not reading) as lock:
        command.inherit(lock.descriptors)
        if lock.was_killed:
            _remove_locks(settings.directory, lock.began)
        try:
            yield
        finally:
            lock.is_clean = not command.left_locks()
            command.inherit(())


def _remove_locks(directory: Path, began: float) -> None:
    """Remove the locks of git that are in the repositories since then."""
    for git_dir in directory.glob("*/.git"):
        for file in git_dir.rglob("*.lock"):
            with suppress(FileNotFoundError):
                if file.is_file() and file.stat().st_mtime >= began:
                    file.unlink()
