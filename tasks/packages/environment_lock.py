"""One installation at a time in an environment, from whichever directory of checkouts it is started."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..models import Reporter

NAME = ".sources-install.lock"


@contextmanager
def exclusive(prefix: Path, reporter: Reporter) -> Iterator[None]:
    """Hold the lock of the environment at `prefix` (flock(2)); wait for the process that holds it, and say for which.

    The installer inherits the lock: where only this program is killed, the next run waits until the installer that it
    left has ended. The system releases the lock of a process that died. Raises OSError where the lock file cannot be
    written.
    """
    lock = os.open(prefix / NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 200, 0).decode(errors="replace") or "another installation"
            reporter.event("install", f"waiting for {holder}, which installs into {prefix}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        os.ftruncate(lock, 0)
        command = " ".join(["invoke", *sys.argv[1:]])[:80]
        os.pwrite(lock, f"process {os.getpid()} ({command})".encode(errors="replace"), 0)
        os.set_inheritable(lock, True)
        yield
    finally:
        os.close(lock)
