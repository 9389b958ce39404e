"""Turns: two runs in one folder work one after the other. The system frees the lock of a process that died."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..models import Reporter
from .space import check_writable


@contextmanager
def turn(directory: Path, reporter: Reporter, *, looking: bool = False) -> Iterator[None]:
    """Hold the lock of `directory`, made if need be; wait for the process that holds it, telling for which.

    Who is only `looking` waits for one that works, and leaves no trace. Raises DiskError where the folder cannot be
    written.
    """
    from filelock import FileLock, Timeout

    if looking and not os.access(directory / ".lock", os.W_OK):
        yield
        return
    if not looking:
        check_writable(directory)
    lock, holder = FileLock(directory / ".lock"), directory / ".lock-holder"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = "another process"
        with suppress(OSError):  # it may be done by now
            who = holder.read_text() or who
        reporter.event(directory.name, f"waiting for {who}")
        lock.acquire()
    try:
        if not looking:
            with suppress(OSError):  # a full disk is told by the work itself
                holder.write_text(f"process {os.getpid()} ({' '.join(['invoke', *sys.argv[1:]])[:80]})")
        yield
    finally:
        if not looking:
            holder.unlink(missing_ok=True)
        lock.release()
