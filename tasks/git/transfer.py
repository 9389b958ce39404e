"""Runs git where that takes time: progress is told as it comes, and what asks a remote is tried again."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, cast

from ..models import Network, Reporter
from ..names import redact
from .command import cancelled, check_cancelled, execute, failure, run
from .messages import PassingError
from .processes import answered

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from .progress import Progress

_lock = Lock()
_ssh: dict[str, str] = {}


def stream(cwd: Path, *args: str, who: str, doing: str, reporter: Reporter, stdin: str = "", stall: float = 30) -> str:
    """Run a git command whose progress is told to `reporter`; returns standard output and git's messages.

    Raises as `git.run` does.
    """
    reporter.command([redact(word) for word in ("git", *args)], cwd)
    for at, word in enumerate(args[:3]):  # after a `-c key=value`, maybe
        if word in ("fetch", "checkout"):
            args = (*args[: at + 1], "--progress", *args[at + 1 :])
    seen: list[Progress] = []
    given_up = Event()

    def on_message(line: str) -> None:
        if not seen:  # GitPython takes its time to load, and a remote that is only asked says nothing
            from .progress import Progress

            seen.append(Progress(reporter, who, doing))
        seen[0].read(line)

    status, out = execute(
        cwd,
        ("-c", f"http.lowSpeedTime={max(1, round(stall))}", *args),
        {"GIT_SSH_COMMAND": _ssh_command()},
        stdin,
        on_message,
        partial(answered, given_up, stall),
    )
    told = "\n".join(line for each in seen for line in (*each.error_lines, *each.other_lines))
    if status:
        check_cancelled()
        if given_up.is_set():
            told = f"fatal: connection timed out, no answer for {stall:g} s"
        raise failure(told, who, _endpoint(args, cwd), cwd)
    return out + told


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
        network.reporter.warn(who, f"{trouble(state).what} {again[0].upper()}{again[1:]}.")

    return Retrying(
        retry=retry_if_exception_type(PassingError),
        stop=lambda state: state.attempt_number >= tries(state),
        wait=lambda state: max(backoff(state), trouble(state).wait),
        sleep=sleep_using_event(cancelled),
        before_sleep=announce,
        reraise=True,
    )(stream, cwd, *args, who=who, doing=doing, reporter=network.reporter, stdin=stdin, stall=network.stall)


def _endpoint(args: tuple[str, ...], cwd: Path) -> str:
    url = args[-1] if args[0] == "ls-remote" else run(cwd, "config", "remote.origin.url", check=False)
    return redact(url or str(cwd))


def _ssh_command() -> str:
    """The user's ssh (git-config(1), core.sshCommand), which asks for nothing."""
    given = os.environ.get("GIT_SSH_COMMAND", "")
    with _lock:
        if given not in _ssh:
            command = given or run(Path.cwd(), "config", "--global", "core.sshCommand", check=False).strip() or "ssh"
            options = " -oBatchMode=yes -oConnectTimeout=30 -oServerAliveInterval=15"
            _ssh[given] = command + (options if Path(command.split()[0]).name == "ssh" else "")
        return _ssh[given]
