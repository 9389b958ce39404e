"""The last line of a run: ready or not, how long it took, what next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from ..errors import Interrupted
from ..models import EnvironmentState, Result
from .text import duration

NEXT = {"clone": "invoke install", "update": "invoke install", "install": "invoke verify"}
CHECKED = ("verify", "setup")
BRIEF = 80  # characters; a longer command, such as an installer's, is shown only with its error


def closing(result: Result, environ: Mapping[str, str]) -> str:
    """Return the last line for `result`; `environ` says whether its environment is active."""
    each = ", ".join(f"{step} {duration(seconds)}" for step, seconds in result.seconds.items())
    time = duration(sum(result.seconds.values())) + (f" ({each})" if len(result.seconds) > 1 else "")
    after = f" after {time}" if result.seconds else ""
    if result.ok and result.dry and not result.verification:
        return "Nothing was changed (--dry). Next: the same command without --dry"
    if result.exit_status == Interrupted.status:
        return f"Interrupted{after}. Next: the same command again"
    if not result.ok:
        subject = "Not ready" if result.task in CHECKED else f"{result.task} incomplete"
        return f"{subject}{after}. Next: {_remedy(result)}"
    if result.task in CHECKED:
        count = len(result.all_warnings) + sum(check.status == "warn" for check in result.checks)
        warnings = f" with {count} warning{'s' * (count > 1)}" if count else ""
        return f"Ready{warnings} in {time}. {_use(result.environment, environ)}"
    following = f" Next: {NEXT[result.task]}" if result.task in NEXT else ""
    return f"{result.task} finished in {time}.{following}"


def _remedy(result: Result) -> str:
    """The first brief command of a failure, else the advice to fix what was reported and to run the task again."""
    errors = [result.error, *(row.error for row in result.outcomes)]
    checks = sorted(result.checks, key=lambda check: check.status)  # failures before warnings
    commands = [error.command for error in errors if error and len(error.command) <= BRIEF]
    commands += [check.command for check in checks if check.status in ("fail", "warn")]
    return next(filter(None, commands), "fix what failed, then run it again")


def _use(environment: EnvironmentState | None, environ: Mapping[str, str]) -> str:
    """How to use what was installed."""
    if not environment or environ.get("VIRTUAL_ENV") == str(environment.prefix):
        return "Next: import sglang and flashinfer."
    activate = environment.prefix / "bin/activate"
    if activate.is_file():
        return f"Next: source {shlex.quote(str(activate))}"
    return f"Next: run your programs with {shlex.quote(str(environment.interpreter))}"
