"""The one place that starts git, interpreters and other tools. The installer runs through Invoke's `Context.run`.

Every process gets a process group of its own, so that it ends together with its children, and a deadline, so that no
command waits for ever.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

KEPT = 1_000_000  # bytes of standard error that are kept, the last ones
MOST = 200_000_000  # bytes of output; no command here has that much to say
PATIENCE = 5  # seconds for a process to end by itself
BLOCK = 65536

_groups: set[int] = set()
_lock = threading.RLock()  # a signal handler takes it again in the same thread


class _State:
    stopping = False


@dataclass(frozen=True)
class Completed:
    """How a process ended. `status` is the exit status (negative: the signal), `errors` the end of its standard error.
    `ended` says why it was ended from outside, empty where it was not."""

    status: int
    output: bytes
    errors: bytes
    ended: str = ""


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    silence: float | None = None,
    timeout: float | None = None,
    on_errors: Callable[[bytes], object] | None = None,
    keep_open: Sequence[int] = (),
) -> Completed:
    """Run a command to its end and return what it printed.

    It is ended with all its children after `silence` seconds without a byte of output, or after `timeout` seconds.
    `on_errors` gets standard error as it comes. `env` is the complete environment. The descriptors `keep_open` are
    inherited. Raises OSError where the command cannot be started, KeyboardInterrupt after `stop_all`.
    """
    check_stopped()
    with tempfile.TemporaryFile() as given:
        given.write(stdin)
        given.seek(0)
        process = subprocess.Popen(
            argv, cwd=cwd, env=env, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, pass_fds=keep_open, bufsize=0,
        )  # fmt: skip
    with _lock:
        _groups.add(process.pid)
    try:
        if _State.stopping:
            end_group(process.pid)
        output, errors, ended = _read(process, silence, timeout, on_errors)
        if ended:
            _end(process)
        process.wait()
    except BaseException:
        _end(process)
        raise
    finally:
        with _lock:
            _groups.discard(process.pid)
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()
    check_stopped()
    return Completed(process.returncode, output, errors, ended)


def end_group(pid: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal to the process and its children."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and its children: by SIGTERM, on which git removes its locks and drafts, then by SIGKILL."""
    end_group(process.pid)
    with suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
    end_group(process.pid, signal.SIGKILL)
    process.wait()


def start() -> None:
    """Let processes start again after `stop_all`."""
    _State.stopping = False


def stop_all() -> None:
    """End all running processes and all waits, and let no other start (Ctrl-C)."""
    _State.stopping = True
    with _lock:
        for pid in _groups:
            end_group(pid)


def check_stopped() -> None:
    """Raise KeyboardInterrupt after `stop_all`."""
    if _State.stopping:
        raise KeyboardInterrupt


def wait(seconds: float) -> None:
    """Sleep, but raise KeyboardInterrupt soon after `stop_all` is called."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        check_stopped()
        time.sleep(min(left, 0.1))
    check_stopped()


def _read(
    process: subprocess.Popen[bytes],
    silence: float | None,
    timeout: float | None,
    on_errors: Callable[[bytes], object] | None,
) -> tuple[bytes, bytes, str]:
    """Read both outputs until they are closed, the process has ended, or a deadline has passed."""
    output, errors, count = bytearray(), bytearray(), 0
    began = heard = time.monotonic()
    reason = ""
    assert process.stdout and process.stderr
    with selectors.DefaultSelector() as selector:
        for stream in (process.stdout, process.stderr):
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map() and not reason:
            has_ended, ready = process.poll() is not None, selector.select(0.1)
            if has_ended and not ready:
                break  # a child that lives on has inherited the pipe
            for key, _ in ready:
                if not (block := os.read(key.fd, BLOCK)):
                    selector.unregister(key.fileobj)
                    continue
                heard, count = time.monotonic(), count + len(block)
                if key.fileobj is process.stdout:
                    output += block
                else:
                    errors = (errors + block)[-KEPT:]
                    if on_errors:
                        on_errors(block)
            check_stopped()
            now = time.monotonic()
            reason = _overdue(silence and now - heard, silence, timeout and now - began, timeout, count)
    return bytes(output), bytes(errors), reason


def _overdue(silent: float | None, silence: float | None, ran: float | None, timeout: float | None, count: int) -> str:
    """Why the process is to be ended now; empty where it is not."""
    if silence and silent and silent > silence:
        return f"no data for {silence:g} s"
    if timeout and ran and ran > timeout:
        return f"not finished after {timeout:g} s"
    return f"more than {MOST:,} bytes of output" if count > MOST else ""
