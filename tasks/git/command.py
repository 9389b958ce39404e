"""Running git, by GitPython: it never prompts, runs no hook, and contacts no remote unless it transfers."""

from __future__ import annotations

import os
import random
import selectors
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any

from ..errors import SourcesError
from ..models import Network
from ..names import redact
from . import messages
from .progress import Progress

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # `check_version` reports a missing git
from git import Git, GitCommandNotFound

MINIMUM = (2, 34)
LONGEST_PAUSE = 30.0  # seconds between two attempts
PATIENCE = 5.0  # seconds for a process to end by itself
KEPT = 1_000_000  # bytes of a transfer's messages, the last ones
OPTIONS = {
    "advice.detachedHead": "false",
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.logAllRefUpdates": "true",
    "fetch.recurseSubmodules": "false",
    "fetch.unpackLimit": "1",  # always a pack, so that bytes can be counted
    "gc.auto": "0",
    "maintenance.auto": "false",
    "protocol.version": "2",
    "safe.bareRepository": "all",  # a submodule's repository, before it has files
    "submodule.recurse": "false",
}
ENVIRONMENT = {
    "GCM_INTERACTIVE": "never",
    "GIT_ASKPASS": "false",
    "GIT_LFS_SKIP_SMUDGE": "1",  # a checkout gets pointers; the clean filter stays, so that files count as unchanged
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_TRACE2": "0",
    "GIT_TRACE2_EVENT": "0",
    "GIT_TRACE2_PERF": "0",
    "SSH_ASKPASS_REQUIRE": "never",
}
OFFLINE = {"GIT_ALLOW_PROTOCOL": ""}  # objects that are missing are not fetched on the way
ONLINE = {"GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh"}
# Variables of another repository, beside those that `git rev-parse --local-env-vars` names
FOREIGN = ("GIT_QUARANTINE_PATH", "GIT_DEFAULT_HASH", "GIT_INTERNAL_SUPER_PREFIX")


class _State:
    """What all commands of this process share."""

    stopping = threading.Event()
    was_killed = False  # whether a git process was killed, so that it may have left locks
    inherited: tuple[int, ...] = ()  # descriptors of a lock, which then lasts as long as the last local command


def start() -> None:
    """Let git run (again)."""
    _State.stopping.clear()
    _State.was_killed = False


def inherit(descriptors: Sequence[int]) -> None:
    """Let local commands inherit these descriptors of a lock."""
    _State.inherited = tuple(descriptors)


def stop() -> None:
    """End all transfers and let no other command start; local commands, which take seconds at most, finish."""
    _State.stopping.set()


def wait_for(futures: Collection[Future[Any]]) -> None:
    """Wait for the futures. The main thread wakes up between, so that it handles a signal that another one received."""
    while wait(futures, timeout=0.1).not_done:
        pass


def left_locks() -> bool:
    """Whether a git process of this run was killed and may have left locks."""
    return _State.was_killed


def check_version() -> None:
    """Raise SourcesError where git is missing or older than MINIMUM. Variables that name another repository, or no ssh,
    are removed from this process."""
    for name in FOREIGN:
        os.environ.pop(name, None)
    hint = f"Install git {'.'.join(map(str, MINIMUM))} or newer, such as with `apt-get install git`."
    try:
        local = git(Path("/"), "rev-parse", "--local-env-vars").split()
        version = Git().version_info
    except GitCommandNotFound:
        raise SourcesError("git was not found on the PATH.", hint) from None
    if version[:2] < MINIMUM:
        raise SourcesError(f"git {'.'.join(map(str, version)) or 'of unknown version'} is too old.", hint)
    for name in local:
        os.environ.pop(name, None)
    if not os.environ.get("GIT_SSH_COMMAND", "").strip():
        os.environ.pop("GIT_SSH_COMMAND", None)


def git(
    path: Path, *words: str, who: str = "", stdin: str = "", check: bool = True, env: Mapping[str, str] | None = None
) -> str:
    """Run a local git command in `path` and return its standard output without the last newline.

    `env` are variables in addition. Raises what `messages.explain` makes of git's messages; with `check` off a failure
    returns ''.
    """
    variables = {**OFFLINE, **(env or {})}
    status, output, errors = _execute(
        path, words, variables, stdin, with_extended_output=True, with_exceptions=False, stdout_as_string=False,
        pass_fds=_State.inherited,
    )  # fmt: skip
    text = _with_signal(status, errors)
    if status and check:
        raise messages.explain(text, who or path.name, str(path), path)
    return "" if status else os.fsdecode(output)


def transfer(path: Path, *words: str, url: str, who: str, doing: str, network: Network, stdin: str = "") -> str:
    """Run a git command that contacts the remote at `url` and return its standard output. Progress is reported.

    After a transient error it is tried again, at most `network.attempts` times in all, with pauses that double. An
    attempt is given up after `network.stall` seconds without a byte of output, whatever the protocol. Raises
    TransientError after the last attempt, or what `messages.explain` makes of git's messages.
    """
    attempt = 1
    while True:
        try:
            return _attempt(path, words, url, who, doing, network, stdin)
        except messages.TransientError as error:
            attempts = min(network.attempts, error.attempts or network.attempts)
            if attempt >= attempts:
                raise
            pause = min(2.0 ** (attempt - 1), LONGEST_PAUSE)
            seconds = max(error.wait, pause * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            attempt += 1
            again = f"Retrying in {seconds:.1f} s (attempt {attempt} of {attempts})."
            network.reporter.warn(who, f"{error.what.removeprefix(f'{who}: ')} {again}")
        if _State.stopping.wait(seconds):
            raise KeyboardInterrupt


def _attempt(path: Path, words: Sequence[str], url: str, who: str, doing: str, network: Network, stdin: str) -> str:
    network.reporter.command([redact(word) for word in ("git", *words)], path)
    handle = _execute(path, words, ONLINE, stdin, as_process=True)
    process: Popen[bytes] = handle.proc
    try:
        output, errors, is_stalled = _read(process, network.stall, Progress(network.reporter, who, doing))
        if is_stalled or _State.stopping.is_set():
            _end(process)
        status = process.wait()
    finally:
        for pipe in filter(None, (process.stdout, process.stderr)):
            pipe.close()
    if _State.stopping.is_set():
        raise KeyboardInterrupt
    if is_stalled:
        raise messages.explain(f"fatal: no data for {network.stall:g} s", who, redact(url), path, network=True)
    if status:
        raise messages.explain(_with_signal(status, os.fsdecode(errors)), who, redact(url), path, network=True)
    return os.fsdecode(output)


def _read(process: Popen[bytes], stall: float, progress: Progress) -> tuple[bytes, bytes, bool]:
    """Read both outputs of a process until they are closed. Returns them, and whether it was silent for too long."""
    read = {process.stdout: bytearray(), process.stderr: bytearray()}
    last = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for pipe in filter(None, read):
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map() and not _State.stopping.is_set() and time.monotonic() - last <= stall:
            has_ended = process.poll() is not None  # asked first: what it wrote before it ended is there to be read
            ready = selector.select(0.1)
            if not ready and has_ended:
                break  # a child that lives on has inherited the pipe
            for key, _ in ready:
                block = os.read(key.fd, 65536)
                if not block:
                    selector.unregister(key.fileobj)
                    continue
                last = time.monotonic()
                read[key.fileobj] += block  # type: ignore[index]
                if key.fileobj is process.stderr:
                    del read[process.stderr][:-KEPT]
                    progress.read(block)
    return bytes(read[process.stdout]), bytes(read[process.stderr]), time.monotonic() - last > stall


def _end(process: Popen[bytes]) -> None:
    """End the process and its children: by SIGTERM, on which git removes its locks, then by SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        _State.was_killed |= number == signal.SIGKILL
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(TimeoutExpired):
            process.wait(PATIENCE)
            return


def _execute(path: Path, words: Sequence[str], env: Mapping[str, str], stdin: str, **options: Any) -> Any:
    """Start git in a session of its own, so that Ctrl-C does not reach it, and in no repository above `path`."""
    if _State.stopping.is_set():
        raise KeyboardInterrupt
    # Where git-lfs is configured but missing, git would fail: an empty `process` switches both filters off.
    lfs = {} if shutil.which("git-lfs") else {"filter.lfs.process": "", "filter.lfs.required": "false"}
    settings = [word for key, value in {**OPTIONS, **lfs}.items() for word in ("-c", f"{key}={value}")]
    command = ["git", "-C", str(path.absolute()), *settings, *words]  # GitPython would expand variables in the path
    above = {str(path.absolute().parent), str(path.resolve().parent)}
    place = {"GIT_CEILING_DIRECTORIES": os.pathsep.join(above)}
    if (path / "objects").is_dir() and not (path / ".git").exists():  # its `core.worktree` may not exist
        place = {"GIT_DIR": str(path), "GIT_WORK_TREE": str(path)}
    with tempfile.TemporaryFile() as stream:
        stream.write(os.fsencode(stdin))
        stream.seek(0)
        return Git().execute(
            command, istream=stream, env={**ENVIRONMENT, **place, **env}, start_new_session=True, **options
        )


def _with_signal(status: int, text: str) -> str:
    """git's messages, and the signal that it was killed by (negative `status`)."""
    if status >= 0 or status == -signal.SIGPIPE:  # SIGPIPE: its own fetch was refused; it has removed its locks
        return text
    _State.was_killed = True
    return f"{text}\nfatal: git was killed by {signal.Signals(-status).name}"
