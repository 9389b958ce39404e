"""Files that are replaced as a unit, and locks that end with the processes that hold them."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def locked(file: Path, waiting: Callable[[str], object], *, writing: bool = True) -> Iterator[None]:
    """Hold the lock `file` (flock(2)), and wait for the process that holds it; `waiting` is called with its name first.

    Child processes inherit the lock: it lasts until the last of them has ended, even if this process is killed. A run
    that is not `writing` leaves no trace: without the file it holds nothing. Raises OSError for a file that cannot be
    written.
    """
    if not writing and not os.access(file, os.R_OK):
        yield
        return
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW if writing else os.O_RDONLY
    descriptor = os.open(file, flags, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting(os.pread(descriptor, 200, 0).decode(errors="replace") or "another run")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if writing:
            holder = f"process {os.getpid()} ({' '.join(['invoke', *sys.argv[1:]])[:80]})"
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, holder.encode(errors="replace"), 0)
            os.set_inheritable(descriptor, True)
        yield
    finally:
        os.close(descriptor)
