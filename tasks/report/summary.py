"""A run in words: what was done to each repository, its checks, its faults, the last lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from rich.text import Text

from ..errors import counted, examples
from ..models import Check, Outcome, PackageState, RepositoryState, Result
from .screen import clean, duration, one_line, size

SHORT = 10  # characters of a commit id
CHECKED = ("verify", "setup")
BAD = ("fail", "warn")
STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}
WORDS = {"pass": "passed", "warn": "warned", "fail": "failed", "skip": "skipped"}


def repositories(result: Result) -> dict[str, list[str]]:
    """Return the lines about each repository: its REF, commit and version, then what each step did to it, or what
    `status` found."""
    if result.task == "status" and result.verification:
        found = result.verification
        return {name: _state(state, found.packages.get(name)) for name, state in found.repositories.items()}
    names = dict.fromkeys(row.repository for row in result.outcomes)
    return {name: _outcomes(name, result) for name in names}


def _outcomes(name: str, result: Result) -> list[str]:
    """The lines of one repository; after a failed step it was left out of the others."""
    now, failed, lines = Outcome(name, ""), "", list[str]()
    for step, rows in result.steps.items():
        for row in rows:
            if row.repository == name:
                known = {key: value for key, value in vars(row).items() if value}
                now = replace(now, **{"resolved": row.resolved if row.ref else now.resolved, **known})
                seconds = duration(row.seconds) if row.seconds else ""
                lines.append(f"{step}: {_joined(row.action, size(row.bytes), seconds)}")
                failed = step if row.error else ""
        if failed not in ("", step):
            lines.append(f"{step}: skipped ({failed} failed)")
    if mine := [check for check in result.checks if check.name.startswith(f"{name}: ")]:
        lines.append(f"verify: {tally(mine)}")
    before = f"{now.before_ref} → " if now.before_ref not in ("", now.ref) else ""
    return [one_line(before + _at(now)), *lines]


def _state(state: RepositoryState, package: PackageState | None) -> list[str]:
    """The lines of one repository for `status`."""
    facts = _joined(
        state.problem,
        f"on {state.branch}" if state.branch not in ("", state.ref, state.resolved) else "",
        f"{state.ahead} ahead" if state.ahead else "",
        f"{state.behind} behind" if state.behind else "",
        f"{counted(len(state.changed), 'changed file')}: {examples(state.changed)}" if state.changed else "",
    )
    installed = f"{package.version or 'not'} installed".removeprefix(f"{state.version} ") if package else ""
    return [_joined(_at(state), installed), facts or "clean"]


def _at(row: Outcome | RepositoryState) -> str:
    """The REF, where it comes from, the commit and the version."""
    resolved = f" ({row.resolved})" if row.resolved not in ("", row.ref) else ""
    source = f"from {'' if row.ref_source == 'this checkout' else 'the '}{row.ref_source}" if row.ref_source else ""
    return _joined(f"{row.ref}{resolved}", source, (row.commit or "")[:SHORT], row.version or "")


def _joined(*facts: str) -> str:
    return one_line(", ".join(filter(None, facts)))


def check_lines(group: str, checks: Sequence[Check], verbose: bool) -> Iterator[tuple[Text, int]]:
    """Return the checks of a group: one line, and below it what failed or warned, with what to do, or with `verbose`
    all of them. Beside each line is how far it is indented where a terminal folds it; 0 for what is to be copied."""
    statuses = [check.status for check in checks]
    worst = next(status for status in ("fail", "warn", "pass", "skip") if status in statuses)
    reasons = dict.fromkeys(one_line(check.detail) for check in checks if worst == "skip")
    text = ": ".join(filter(None, (tally(checks), ", ".join(reasons))))
    yield Text.assemble((f"{one_line(group)}: ", "bold"), (text, STYLES[worst])), 2
    for check in checks:
        if verbose or check.status in BAD:
            text = f"{one_line(check.name).removeprefix(f'{group}: ')}: {one_line(check.detail)}"
            yield Text.assemble((f"  {check.status}  ", STYLES[check.status]), text), 8
        if check.status in BAD:
            yield from advice(check, 8)


def tally(checks: Iterable[Check]) -> str:
    """Return how many checks passed, warned, failed and were skipped, without the zeros."""
    statuses = [check.status for check in checks]
    return ", ".join(f"{statuses.count(status)} {word}" for status, word in WORDS.items() if status in statuses)


def advice(fault: Check, indent: int) -> Iterator[tuple[Text, int]]:
    """Return the lines that say what to do, as `check_lines` does: advice in words, then the command."""
    for text, fold in ((fault.hint, indent), (fault.command, 0)):
        for line in clean(text).splitlines():
            yield Text(" " * indent + line, "cyan"), fold


def errors(result: Result) -> list[Check]:
    """Return the errors of a run as failed checks, under the names of their repositories."""
    found = [*((row.repository, row.error) for row in result.outcomes), ("error", result.error)]
    return [Check(name, "fail", error.what, error.hint, error.command) for name, error in found if error]


def warnings(result: Result) -> list[Check]:
    """Return the warnings of a run, those of its checks last; each once."""
    split = [text.partition(": ") for text in dict.fromkeys(result.warnings)]
    checks = [check for check in result.checks if check.status == "warn"]
    return [*(Check(who, "warn", text) for who, _, text in split), *checks]


def closing(result: Result) -> tuple[str, str]:
    """Return the last line of a run, and its colour."""
    is_checked = result.task in CHECKED
    if not result.ok:
        return "Not ready." if is_checked else f"{result.task} incomplete.", "bold red"
    if result.dry:
        return "Nothing was changed (--dry).", "bold green"
    count = len(warnings(result))
    ended = "Ready" if is_checked else f"{result.task} finished"
    ended += f" with {counted(count, 'warning')}" if count else ""
    return f"{ended} in {duration(result.seconds)}.", "bold yellow" if count else "bold green"
