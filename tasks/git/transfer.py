"""Network commands of git: progress is reported as it comes, and transient errors are retried."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

from .. import processes
from ..models import Network, Reporter
from ..names import redact
from .command import execute, run
from .messages import TransientError, explain

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from .progress import Progress

SSH_OPTIONS = "-oBatchMode=yes -oConnectTimeout=30 -oServerAliveInterval=15"


def transfer(cwd: Path, *args: str, who: str, doing: str, network: Network, stdin: str = "") -> str:
    """Run a git command that contacts a remote and return its standard output.

    After a transient error it is tried again, at most `network.attempts` times in all, with exponential backoff and
    jitter. An attempt is given up after `network.stall` seconds without a byte of output, whatever the protocol.
    Raises TransientError after the last attempt, or what `explain` makes of git's messages.
    """
    from tenacity import Retrying, retry_if_exception_type, wait_exponential_jitter

    backoff = wait_exponential_jitter(initial=1, max=30)

    def error(state: RetryCallState) -> TransientError:
        return cast(TransientError, state.outcome and state.outcome.exception())

    def attempts(state: RetryCallState) -> int:
        return min(network.attempts, error(state).attempts or network.attempts)

    def announce(state: RetryCallState) -> None:
        pause = state.next_action.sleep if state.next_action else 0
        again = f"Attempt {state.attempt_number + 1} of {attempts(state)} in {pause:.1f} s."
        network.reporter.warn(who, f"{error(state).what.removeprefix(f'{who}: ')} {again}")

    return Retrying(
        retry=retry_if_exception_type(TransientError),
        stop=lambda state: state.attempt_number >= attempts(state),
        wait=lambda state: max(backoff(state), error(state).wait),
        sleep=processes.wait,
        before_sleep=announce,
        reraise=True,
    )(_attempt, cwd, args, who, doing, network, stdin)


def reading(reporter: Reporter, who: str, doing: str) -> Callable[[bytes], object]:
    """A function that takes git's messages as they come and reports the progress in them."""
    seen: list[Progress] = []

    def read(block: bytes) -> None:
        if not seen:  # importing GitPython takes a tenth of a second, and many a command says nothing
            from .progress import Progress

            seen.append(Progress(reporter, who, doing))
        seen[0].read(block)

    return read


def _attempt(cwd: Path, args: tuple[str, ...], who: str, doing: str, network: Network, stdin: str) -> str:
    network.reporter.command([redact(word) for word in ("git", *args)], cwd)
    environment = {"GIT_SSH_COMMAND": _ssh_command(cwd)}
    done = execute(cwd, args, environment, stdin, network.stall, reading(network.reporter, who, doing))
    if done.status or done.ended:
        endpoint = args[-1] if args[0] == "ls-remote" else run(cwd, "config", "remote.origin.url", check=False)
        text = f"fatal: {done.ended}" if done.ended else os.fsdecode(done.errors)
        raise explain(text, who, redact(endpoint or str(cwd)), cwd, network=True)
    return os.fsdecode(done.output)


def _ssh_command(cwd: Path) -> str:
    """The user's ssh, by git's own order (git-config(1), core.sshCommand), told never to prompt where it is OpenSSH."""
    configured = os.environ.get("GIT_SSH_COMMAND", "").strip() or run(cwd, "config", "core.sshCommand", check=False)
    command = configured.strip() or shlex.quote(os.environ.get("GIT_SSH") or "ssh")
    with suppress(ValueError):  # an open quote: the shell will say so
        if Path(shlex.split(command)[0]).name == "ssh":
            return f"{command} {SSH_OPTIONS}"
    return command
