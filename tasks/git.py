"""Runs git, through GitPython: never prompting, executing nothing of a repository, retried where that can help."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from .errors import SourcesError
from .model import Listener
from .processes import answered, end
from .space import DiskFullError, is_full
from .trouble import GitError, PassingError, explain
from .urls import redact

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # a missing git is told by `check_version`, not by an ImportError

import git as gitpython
from git.cmd import handle_process_output

if TYPE_CHECKING:
    from tenacity import RetryCallState

MINIMUM = (2, 34)
_OPTIONS = {
    "advice.detachedHead": "false",
    "checkout.workers": "0",
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "fetch.recurseSubmodules": "false",
    "fetch.unpackLimit": "1",  # always a pack, which the cache can share
    "gc.auto": "0",
    "http.lowSpeedLimit": "1",
    "maintenance.auto": "false",
    "safe.bareRepository": "all",  # a submodule's, before it has files
    "submodule.recurse": "false",
}
_ENVIRONMENT = {
    "GCM_INTERACTIVE": "never",
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    "GIT_ASKPASS": "false",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "SSH_ASKPASS_REQUIRE": "never",
}
_INHERITED = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
    "GIT_NAMESPACE",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_SHALLOW_FILE",
)
_MOVED = re.compile(r"([\d.]+) (bytes|KiB|MiB|GiB)(?: \| ([\d.]+) (bytes|KiB|MiB|GiB)/s)?")
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

_cancelled = threading.Event()
_running: set[int] = set()


@dataclass(frozen=True)
class Network:
    """How network operations are made: at most `attempts` tries, given up after `stall` seconds without a byte."""

    attempts: int
    stall: float
    listener: Listener


class _Progress(gitpython.RemoteProgress):
    """Hands on what git reports of a transfer or a checkout (git-fetch(1), --progress)."""

    def __init__(self, listener: Listener, who: str, doing: str) -> None:
        super().__init__()
        self._listener, self._who, self._doing = listener, who, doing

    def update(
        self, op_code: int, cur_count: str | float, max_count: str | float | None = None, message: str = ""
    ) -> None:
        sizes = _MOVED.search(message)
        moved, unit, rate, rate_unit = sizes.groups("") if sizes else ("0", "bytes", "", "")
        done = float(cur_count) / float(max_count) if max_count else None
        self._listener.progress(
            self._who,
            self._doing,
            done,
            int(float(moved) * _UNITS[unit]),
            float(rate) * _UNITS[rate_unit] if rate else 0.0,
        )


def check_version() -> None:
    """Raise SourcesError where git is missing or older than MINIMUM."""
    for name in _INHERITED:  # set where Invoke was started by a git hook; they would point git at another repository
        os.environ.pop(name, None)
    wanted = ".".join(map(str, MINIMUM))
    try:
        version = gitpython.Git().version_info
    except gitpython.GitCommandNotFound:
        raise SourcesError("git was not found on the PATH.", f"Install git {wanted} or newer.") from None
    if version[:2] < MINIMUM:
        raise SourcesError(f"git {'.'.join(map(str, version))} is too old.", f"Install git {wanted} or newer.")


def begin() -> None:
    """Let git run again after a `cancel`."""
    _cancelled.clear()


def cancel() -> None:
    """End all running git processes and all waits for a next try, and let no more begin (Ctrl-C)."""
    _cancelled.set()
    for pid in list(_running):
        end(pid)


def run(cwd: Path, *args: str, stdin: str = "", check: bool = True) -> str:
    """Run a local git command in `cwd` and return its standard output without the last newline.

    Raises GitError with git's own words, DiskError or LocalWorkError; with `check` off a failure returns ''.
    """
    _check_cancelled()
    with _input(stdin) as istream:
        status, out, err = gitpython.Git(cwd).execute(
            _argv(cwd, args),
            istream=istream,
            with_extended_output=True,
            with_exceptions=False,
            env={**_environment(cwd), "GIT_ALLOW_PROTOCOL": ""},  # no missing object is asked for behind our back
        )
    if status and check:
        raise _failure(str(err), cwd.name, str(cwd), cwd)
    return "" if status else out


def stream(cwd: Path, *args: str, who: str, doing: str, listener: Listener, stdin: str = "", stall: float = 30) -> str:
    """Run a git command whose progress is told to `listener`; returns standard output. Raises as `run` does."""
    argv = _argv(cwd, (*args[:1], "--progress", *args[1:]) if args[0] in ("fetch", "checkout") else args, stall)
    listener.command([redact(word) for word in ("git", *args)], cwd)
    progress, lines = _Progress(listener, who, doing), list[str]()
    _check_cancelled()
    with _input(stdin) as istream:
        process = gitpython.Git(cwd).execute(
            argv, istream=istream, as_process=True, universal_newlines=True, env=_environment(cwd)
        )
        pid = process.proc.pid  # type: ignore[union-attr]
        _running.add(pid)
        if _cancelled.is_set():
            end(pid)
        try:
            with answered(pid, stall) as given_up:
                handle_process_output(process, lines.append, progress.new_message_handler(), decode_streams=False)
                status = process.proc.wait()  # type: ignore[union-attr]
        finally:
            _running.discard(pid)
    told = "\n".join([*progress.error_lines, *progress.other_lines])
    if status:
        _check_cancelled()
        if given_up.is_set():
            told = f"fatal: connection timed out, no answer for {stall:g} s"
        raise _failure(told, who, _endpoint(args, cwd), cwd)
    return "".join(lines) + told


def transfer(cwd: Path, *args: str, who: str, doing: str, network: Network, stdin: str = "") -> str:
    """Run a git command that asks a remote, again where the trouble may pass, with exponential backoff and jitter.

    Returns standard output followed by git's messages. Raises PassingError after the last try, or what `explain` finds.
    """
    from tenacity import Retrying, retry_if_exception_type, sleep_using_event, wait_exponential_jitter

    backoff = wait_exponential_jitter(initial=1, max=30)

    def trouble(state: RetryCallState) -> PassingError:
        return cast(PassingError, state.outcome and state.outcome.exception())

    def tries(state: RetryCallState) -> int:
        return min(network.attempts, trouble(state).tries or network.attempts)

    def announce(state: RetryCallState) -> None:
        pause = state.next_action.sleep if state.next_action else 0
        again = f"try {state.attempt_number + 1} of {tries(state)} in {pause:.1f} s"
        network.listener.warn(who, f"{trouble(state).what} {again[0].upper()}{again[1:]}.")

    return Retrying(
        retry=retry_if_exception_type(PassingError),
        stop=lambda state: state.attempt_number >= tries(state),
        wait=lambda state: max(backoff(state), trouble(state).wait),
        sleep=sleep_using_event(_cancelled),
        before_sleep=announce,
        reraise=True,
    )(stream, cwd, *args, who=who, doing=doing, listener=network.listener, stdin=stdin, stall=network.stall)


def _check_cancelled() -> None:
    if _cancelled.is_set():
        raise KeyboardInterrupt


def _failure(told: str, who: str, endpoint: str, cwd: Path) -> SourcesError:
    error = explain(told, who, endpoint)
    if type(error) is GitError and is_full(cwd):  # not all of git's messages say so
        return DiskFullError(error.what)
    return error


def _endpoint(args: tuple[str, ...], cwd: Path) -> str:
    url = args[-1] if args[0] == "ls-remote" else run(cwd, "config", "remote.origin.url", check=False)
    return redact(url or str(cwd))


def _argv(cwd: Path, args: tuple[str, ...], stall: float = 30) -> list[str]:
    options = {**_OPTIONS, "http.lowSpeedTime": f"{max(1, round(stall))}"}
    place = ("-C", str(cwd.absolute()))  # GitPython works in the current folder where `cwd` is missing
    return ["git", *place, *(word for key, value in options.items() for word in ("-c", f"{key}={value}")), *args]


def _environment(cwd: Path) -> dict[str, str]:
    above = {str(cwd.absolute().parent), str(cwd.resolve().parent)}  # where `cwd` is no repository, none above is meant
    ssh = _ssh(os.environ.get("GIT_SSH_COMMAND", ""))
    return {**_ENVIRONMENT, "GIT_CEILING_DIRECTORIES": os.pathsep.join(above), "GIT_SSH_COMMAND": ssh}


@cache
def _ssh(command: str) -> str:
    """The user's ssh (git-config(1), core.sshCommand), which asks for nothing."""
    asked = ("git", "config", "--global", "core.sshCommand")
    command = command or str(gitpython.Git().execute(asked, with_exceptions=False)).strip() or "ssh"
    options = " -oBatchMode=yes -oConnectTimeout=30 -oServerAliveInterval=15"
    return command + (options if Path(command.split()[0]).name == "ssh" else "")


def _input(text: str) -> BinaryIO:
    file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - the caller's to close
    file.write(text.encode("utf-8", "surrogateescape"))
    file.seek(0)
    return file
