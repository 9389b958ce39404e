"""The lock of the sources directory: two runs in one directory work one after the other."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..git import keep_open
from ..models import Reporter, Settings
from .recovery import remove_stale_files
from .space import check_writable

BEAT = 0.5  # seconds


@contextmanager
def exclusive(settings: Settings, reporter: Reporter, *, reading: bool) -> Iterator[None]:
    """Hold the lock, and wait for the process that holds it. The system releases it when that process and the local git
    commands that inherit it have ended (flock(2)). A run that is only `reading` leaves no trace.

    Where the last run was killed, the files that it left are removed. Raises DiskError for a directory that cannot be
    written.
    """
    directory, holder = settings.directory, settings.directory / ".lock-holder"
    if not reading:
        check_writable(directory)
    elif not os.access(directory / ".lock", os.R_OK):
        yield
        return
    flags = os.O_RDONLY if reading else os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    descriptor = os.open(directory / ".lock", flags, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            known = _read(holder)
            who = f"process {known['pid']} ({known['command']})" if known else "another run"
            reporter.event(directory.name, f"waiting for {who}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if reading:
            yield
            return
        if died := _read(holder):
            ended = holder.stat().st_mtime  # the last beat of the run that was killed
            for record in directory.glob("*/.git/sources.json"):
                remove_stale_files(record.parent, died["began"] - BEAT, ended + 2 * BEAT, reporter)
        _write(holder)
        keep_open(descriptor)
        over = threading.Event()
        beat = threading.Thread(target=_beat, args=(holder, over), daemon=True)
        beat.start()
        try:
            yield
        finally:
            over.set()
            beat.join()
            keep_open(None)
            holder.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _beat(holder: Path, over: threading.Event) -> None:
    """Touch the file again and again: its time shows how long this run was alive."""
    while not over.wait(BEAT):
        with suppress(OSError):
            os.utime(holder)


def _read(file: Path) -> dict[str, Any]:
    """Who holds the lock, or held it when it was killed."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(file.read_text())
        return {"pid": int(known["pid"]), "command": str(known["command"]), "began": float(known["began"])}
    return {}


def _write(file: Path) -> None:
    command = " ".join(["invoke", *sys.argv[1:]])[:80]
    with suppress(OSError):  # a full disk is reported by the work itself
        draft = file.with_name(f"{file.name}.{os.getpid()}")
        draft.write_text(json.dumps({"pid": os.getpid(), "command": command, "began": time.time()}))
        draft.replace(file)
