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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any, BinaryIO, Protocol, cast

from ..errors import SourcesError
from ..models import Network
from ..names import redact
from . import messages

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # `check_version` reports a missing git
from git import Git, GitCommandNotFound

MINIMUM = (2, 34)
LONGEST_PAUSE = 30.0  # seconds between two attempts
KEPT = 1_000_000  # bytes of a transfer's messages, the last ones
MOST = 200_000_000  # bytes of a transfer's output; no list of refs is that long
PATIENCE = 5.0  # seconds for a process to end by itself
BLOCK = 65536
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


class Listener(Protocol):
    """What takes git's messages as they come."""

    def read(self, block: bytes) -> None:
        """Take a part of the messages."""


class _State:
    """What all commands of this process share."""

    stopping = threading.Event()
    killed = False  # whether a git process was killed, so that it may have left locks
    inherited: tuple[int, ...] = ()  # descriptors of a lock, which then lasts as long as the last git


def start(*, inherited: Sequence[int] = ()) -> None:
    """Let git run (again); its processes inherit these descriptors of a lock."""
    _State.stopping.clear()
    _State.killed = False
    _State.inherited = tuple(inherited)


def stop() -> None:
    """End all transfers and let no other command start; local commands, which take seconds at most, finish."""
    _State.stopping.set()


def left_locks() -> bool:
    """Whether a git process of this run was killed and may have left locks."""
    return _State.killed


def check_version() -> None:
    """Raise SourcesError where git is missing or older than MINIMUM. Variables that name another repository, or no ssh,
    are removed from this process."""
    for name in FOREIGN:
        os.environ.pop(name, None)
    wanted = ".".join(map(str, MINIMUM))
    hint = f"Install git {wanted} or newer, such as with `apt-get install git`."
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
    if _State.stopping.is_set():
        raise KeyboardInterrupt
    with _given(stdin) as stream:
        finished: Any = Git().execute(
            _command(path, words),
            istream=stream,
            env={**ENVIRONMENT, **OFFLINE, **_where(path), **(env or {})},
            with_extended_output=True,
            with_exceptions=False,
            stdout_as_string=False,
            start_new_session=True,
            pass_fds=_State.inherited,
        )
    status, output, errors = finished
    text = _with_signal(status, errors)
    if status and check:
        raise messages.explain(text, who or path.name, str(path), path)
    return "" if status else os.fsdecode(output)


def transfer(
    path: Path, *words: str, url: str, who: str, network: Network, listener: Listener | None = None, stdin: str = ""
) -> str:
    """Run a git command that contacts the remote at `url` and return its standard output.

    After a transient error it is tried again, at most `network.attempts` times in all, with pauses that double. An
    attempt is given up after `network.stall` seconds without a byte of output, whatever the protocol. Raises
    TransientError after the last attempt, or what `messages.explain` makes of git's messages.
    """
    pause, attempt = 1.0, 1
    while True:
        try:
            return _attempt(path, words, url, who, network, listener, stdin)
        except messages.TransientError as error:
            attempts = min(network.attempts, error.attempts or network.attempts)
            if attempt >= attempts:
                raise
            seconds = max(error.wait, pause * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            attempt += 1
            again = f"Retrying in {seconds:.1f} s (attempt {attempt} of {attempts})."
            network.reporter.warn(who, f"{error.what.removeprefix(f'{who}: ')} {again}")
        if _State.stopping.wait(seconds):
            raise KeyboardInterrupt
        pause = min(2 * pause, LONGEST_PAUSE)


def _attempt(
    path: Path, words: Sequence[str], url: str, who: str, network: Network, listener: Listener | None, stdin: str
) -> str:
    network.reporter.command([redact(word) for word in ("git", *words)], path)
    if _State.stopping.is_set():
        raise KeyboardInterrupt
    with _given(stdin) as stream:
        handle: Any = Git().execute(
            _command(path, words),
            istream=stream,
            env={**ENVIRONMENT, **ONLINE, **_where(path)},
            as_process=True,
            start_new_session=True,
            pass_fds=_State.inherited,
        )
    process: Popen[bytes] = handle.proc
    try:
        output, errors, reason = _read(process, network.stall, listener)
        if reason or _State.stopping.is_set():
            _end(process)
        status = process.wait()
    finally:
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()
    if _State.stopping.is_set():
        raise KeyboardInterrupt
    if reason or status:
        text = f"fatal: {reason}" if reason else _with_signal(status, os.fsdecode(errors))
        raise messages.explain(text, who, redact(url), path, network=True)
    return os.fsdecode(output)


def _read(process: Popen[bytes], stall: float, listener: Listener | None) -> tuple[bytes, bytes, str]:
    """Read both outputs of a process until they are closed. Returns them, and why it has to be ended, if it does."""
    output, errors = bytearray(), bytearray()
    last = time.monotonic()
    assert process.stdout and process.stderr
    with selectors.DefaultSelector() as selector:
        for pipe in (process.stdout, process.stderr):
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map() and not _State.stopping.is_set():
            ready = selector.select(0.1)
            if not ready and process.poll() is not None:
                break  # a child that lives on has inherited the pipe
            for key, _ in ready:
                block = os.read(key.fd, BLOCK)
                if not block:
                    selector.unregister(key.fileobj)
                    continue
                last = time.monotonic()
                if key.fileobj is process.stdout:
                    output += block
                    continue
                errors = (errors + block)[-KEPT:]
                if listener:
                    listener.read(block)
            if time.monotonic() - last > stall:
                return b"", bytes(errors), f"no data for {stall:g} s"
            if len(output) > MOST:
                return b"", bytes(errors), f"more than {MOST:,} bytes of output"
    return bytes(output), bytes(errors), ""


def _end(process: Popen[bytes]) -> None:
    """End the process and its children: by SIGTERM, on which git removes its locks, then by SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        _State.killed = number == signal.SIGKILL
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(TimeoutExpired):
            process.wait(PATIENCE)
            return


def _command(path: Path, words: Sequence[str]) -> list[str]:
    # Where git-lfs is configured but missing, git would fail: an empty `process` switches both filters off.
    lfs = {} if shutil.which("git-lfs") else {"filter.lfs.process": "", "filter.lfs.required": "false"}
    options = [word for key, value in {**OPTIONS, **lfs}.items() for word in ("-c", f"{key}={value}")]
    return ["git", "-C", str(path.absolute()), *options, *words]  # GitPython would expand variables in the path


def _where(path: Path) -> dict[str, str]:
    """The variables that make git work in `path` and in no repository above it."""
    if (path / "objects").is_dir() and not (path / ".git").exists():  # its `core.worktree` may not exist
        return {"GIT_DIR": str(path), "GIT_WORK_TREE": str(path)}
    above = {str(path.absolute().parent), str(path.resolve().parent)}
    return {"GIT_CEILING_DIRECTORIES": os.pathsep.join(above)}


@contextmanager
def _given(stdin: str) -> Iterator[BinaryIO | None]:
    """Standard input for a command."""
    if not stdin:
        yield None
        return
    with tempfile.TemporaryFile() as stream:
        stream.write(os.fsencode(stdin))
        stream.seek(0)
        yield cast(BinaryIO, stream)


def _with_signal(status: int, text: str) -> str:
    """git's messages, and the signal that it was killed by (negative `status`)."""
    if status >= 0:
        return text
    if -status == signal.SIGKILL:
        _State.killed = True
    return f"{text}\nfatal: git was killed by {signal.Signals(-status).name}"
