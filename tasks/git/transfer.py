"""Network commands of git: progress is reported as it comes, and transient errors are retried."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from .. import processes
from ..models import Network, Reporter
from ..names import redact
from .command import execute
from .messages import TransientError, explain

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from .progress import Progress


def transfer(cwd: Path, *args: str, url: str, who: str, doing: str, network: Network, stdin: str = "") -> str:
    """Run a git command that contacts the remote at `url` and return its standard output.

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
    )(_attempt, cwd, args, url, who, doing, network, stdin)


def reading(reporter: Reporter, who: str, doing: str) -> Callable[[bytes], object]:
    """A function that takes git's messages as they come and reports the progress in them."""
    seen: list[Progress] = []

    def read(block: bytes) -> None:
        if not seen:  # importing GitPython takes a tenth of a second, and many a command says nothing
            from .progress import Progress

            seen.append(Progress(reporter, who, doing))
        seen[0].read(block)

    return read


def _attempt(cwd: Path, args: tuple[str, ...], url: str, who: str, doing: str, network: Network, stdin: str) -> str:
    network.reporter.command([redact(word) for word in ("git", *args)], cwd)
    done = execute(cwd, args, {}, stdin, network.stall, reading(network.reporter, who, doing))
    if done.status or done.ended:
        text = f"fatal: {done.ended}" if done.ended else os.fsdecode(done.errors)
        raise explain(text, who, redact(url), cwd, network=True)
    return os.fsdecode(done.output)
