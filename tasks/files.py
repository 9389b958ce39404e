"""Files that are replaced as a unit, and locks that end with the processes that hold them."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


def write_atomic(file: Path, text: str) -> None:
    """Replace the content of `file`, so that it is the old or the new one whenever the machine stops."""
    draft = file.with_name(f"{file.name}.{os.getpid()}.new")
    try:
        with draft.open("w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        if file.exists():
            shutil.copymode(file, draft)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


@dataclass
class Lock:
    """A lock that is held. Child processes that inherit its `descriptors` hold it, too. `was_killed` says whether the
    process that held it last was killed. A holder that is not `is_clean` at the end counts as killed."""

    descriptors: tuple[int, ...] = ()
    was_killed: bool = False
    is_clean: bool = True


@contextmanager
def locked(file: Path, waiting: Callable[[str], object], *, writing: bool = True) -> Iterator[Lock]:
    """Hold the lock `file` (flock(2)), and wait for the process that holds it; `waiting` is called with its name first.

    The file has the name of its holder, and is emptied at the end. A run that is not `writing` leaves no trace: without
    the file it holds nothing. Raises OSError for a file that cannot be written.
    """
    if not writing and not os.access(file, os.R_OK):
        yield Lock()
        return
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW if writing else os.O_RDONLY
    descriptor = os.open(file, flags, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting(_holder(descriptor) or "another run")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not writing:
            yield Lock()
            return
        lock = Lock((descriptor,), bool(_holder(descriptor)))
        _write(descriptor, f"process {os.getpid()} ({' '.join(['invoke', *sys.argv[1:]])[:80]})")
        try:
            yield lock
        finally:
            if lock.is_clean:
                _write(descriptor, "")
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 200, 0).decode(errors="replace")


def _write(descriptor: int, holder: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, holder.encode(errors="replace"), 0)
