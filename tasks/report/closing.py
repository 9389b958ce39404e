"""The line that a run ends with: ready or not, in how long, what next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from ..errors import Interrupted
from ..models import EnvironmentState, Result
from .text import duration

NEXT = {"clone": "invoke install", "update": "invoke install", "install": "invoke verify"}
CHECKED = ("verify", "setup")
BRIEF = 80  # characters; a longer command, such as an installer's, is shown once, with its error


def closing(result: Result, environ: Mapping[str, str]) -> str:
    """Return the line for `result`; `environ` says whether its environment is active."""
    seconds = f"{duration(sum(result.seconds.values()))}{_each(result.seconds)}"
    after = f" after {seconds}" if result.seconds else ""
    if result.ok and result.dry and not result.verification:
        return "Nothing was changed (--dry). Next: the same command without --dry"
    if result.exit_status == Interrupted.status:
        return f"Interrupted{after}. Next: the same command again"
    if not result.ok:
        subject = "Not ready" if result.task in CHECKED else f"{result.task} incomplete"
        return f"{subject}{after}. Next: {_remedy(result)}"
    if result.task in CHECKED:
        return f"Ready{_warnings(result)} in {seconds}. {_use(result.environment, environ)}"
    following = NEXT.get(result.task)
    return f"{result.task} finished in {seconds}.{f' Next: {following}' if following else ''}"


def _each(seconds: Mapping[str, float]) -> str:
    return f" ({', '.join(f'{step} {duration(each)}' for step, each in seconds.items())})" if len(seconds) > 1 else ""


def _warnings(result: Result) -> str:
    checks = result.verification.checks if result.verification else ()
    warned = [row.warnings for rows in result.steps.values() for row in rows]
    count = sum(map(len, warned)) + len(result.warnings) + sum(check.status == "warn" for check in checks)
    return f" with {count} warning{'s' * (count > 1)}" if count else ""


def _remedy(result: Result) -> str:
    """The command of the first failure that has a brief one, else to fix what was reported and to run it all again."""
    errors = [result.error, *(row.error for rows in result.steps.values() for row in rows)]
    checks = result.verification.checks if result.verification else ()
    commands = [error.command for error in errors if error and len(error.command) <= BRIEF]
    commands += [check.command for status in ("fail", "warn") for check in checks if check.status == status]
    return next(filter(None, commands), "fix what failed, then run it again")


def _use(environment: EnvironmentState | None, environ: Mapping[str, str]) -> str:
    """How to get at what was installed."""
    if not environment or environ.get("VIRTUAL_ENV") == str(environment.prefix):
        return "Next: import sglang and flashinfer."
    activate = environment.prefix / "bin/activate"
    if activate.is_file():
        return f"Next: source {shlex.quote(str(activate))}"
    return f"Next: run your programs with {shlex.quote(str(environment.interpreter))}"
