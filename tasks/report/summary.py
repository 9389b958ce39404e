"""A run in words: what was done to each repository, the checks, the last lines. All text is safe to show."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from rich.text import Text

from ..errors import Interrupted, NetworkError, counted, examples
from ..models import Check, EnvironmentState, PackageState, RefSource, RepositoryState, Result
from ..names import shell
from .screen import clean, duration, one_line, size

SHORT = 10  # characters of a commit id
BRIEF = 80  # characters; a longer command is shown only with its error
NEXT = {"clone": "invoke install", "update": "invoke install", "install": "invoke verify"}
CHECKED = ("verify", "setup")
BAD = ("warn", "fail")
STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}
WORDS = {"pass": "passed", "warn": "warned", "fail": "failed", "skip": "skipped"}
SHARED = "install"  # the step whose time all repositories share


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
    refs, versions, source, commit, failed, lines = [""], [""], "", "", "", list[str]()
    for step, rows in result.steps.items():
        row = next((row for row in rows if row.repository == name), None)
        if row:
            refs = [row.before_ref or refs[0], _ref(row.ref, row.resolved) or refs[-1]]
            versions = [row.before_version or versions[0], row.version or versions[-1]]
            source, commit = _from(row.ref_source) or source, row.commit or commit
            seconds = duration(row.seconds) if row.seconds and step != SHARED else ""
            lines.append(f"{step}: {_joined(row.action, size(row.bytes), seconds)}")
            failed = step if row.error else failed
        elif failed:
            lines.append(f"{step}: skipped ({failed} failed)")
    if mine := [check for check in result.checks if check.name.startswith(f"{name}: ")]:
        lines.append(f"verify: {tally(mine)}")
    ref, version = (" → ".join(dict.fromkeys(filter(None, values))) for values in (refs, versions))
    return [*filter(None, [_joined(ref, source, commit[:SHORT], version)]), *lines]


def _state(state: RepositoryState, package: PackageState | None) -> list[str]:
    """The lines of one repository for `status`."""
    installed = f"{package.version} is installed" if package and package.version else "not installed"
    if package and state.version and package.version == state.version:
        installed = "installed"
    ref, commit = _ref(state.ref, state.resolved), (state.commit or "")[:SHORT]
    facts = _joined(
        state.problem,
        f"on {state.branch}" if state.branch not in ("", state.ref, state.resolved) else "",
        f"{state.ahead} ahead" if state.ahead else "",
        f"{state.behind} behind" if state.behind else "",
        f"{counted(len(state.changed), 'changed file')}: {examples(state.changed)}" if state.changed else "",
    )
    first = _joined(ref, _from(state.ref_source), commit, state.version or "", installed if package else "")
    return [first, facts or "clean"]


def _ref(ref: str, resolved: str) -> str:
    return f"{ref} ({resolved})" if resolved and resolved != ref else ref


def _from(source: RefSource) -> str:
    return f"from {source if source == 'this checkout' else f'the {source}'}" if source else ""


def _joined(*facts: str) -> str:
    return one_line(", ".join(filter(None, facts)))


def check_lines(group: str, checks: Sequence[Check], verbose: bool) -> Iterator[tuple[Text, int]]:
    """Return the checks of a group: one line, and below it what failed or warned, with what to do, or with `verbose`
    all of them. Beside each line is how far it is indented where a terminal folds it; 0 for what is to be copied."""
    statuses = [check.status for check in checks]
    worst = next(status for status in ("fail", "warn", "pass", "skip") if status in statuses)
    reasons = dict.fromkeys(one_line(check.detail) for check in checks if check.status == "skip")
    text = f"{tally(checks)}: {', '.join(reasons)}" if worst == "skip" else tally(checks)
    yield Text.assemble((f"{one_line(group)}: ", "bold"), (text, STYLES[worst])), 2
    for check in checks:
        if verbose or check.status in BAD:
            text = f"{one_line(check.name).removeprefix(f'{group}: ')}: {one_line(check.detail)}"
            yield Text.assemble((f"  {check.status}  ", STYLES[check.status]), text), 8
        for line in advice(check.hint, check.command) if check.status in BAD else ():
            yield Text(f"        {line}", "cyan"), 0


def tally(checks: Iterable[Check]) -> str:
    """Return how many checks passed, warned, failed and were skipped, without the zeros."""
    statuses = [check.status for check in checks]
    return ", ".join(f"{statuses.count(status)} {word}" for status, word in WORDS.items() if status in statuses)


def grouped(checks: Iterable[Check]) -> dict[str, list[Check]]:
    """Return the checks by the part of their names before `: `, in order of appearance."""
    groups: dict[str, list[Check]] = {}
    for check in checks:
        groups.setdefault(check.name.partition(": ")[0], []).append(check)
    return groups


def advice(hint: str, command: str) -> list[str]:
    """Return the lines that say what to do: advice in words, then the command."""
    return clean(f"{hint}\n{command}").strip().splitlines()


def warnings(result: Result) -> list[str]:
    """Return all warnings of a run, those of its checks too, each once; none that an error repeats."""
    texts = []
    for row in result.outcomes:
        if not isinstance(row.error, NetworkError):
            texts += [text if text.startswith(f"{row.repository}/") else f"{row.repository}: {text}"
                      for text in row.warnings]  # fmt: skip
    checks = [f"{check.name}: {check.detail}" for check in result.checks if check.status == "warn"]
    return list(dict.fromkeys([*texts, *result.warnings, *checks]))


def closing(result: Result) -> tuple[str, str, str]:
    """Return the end of a run: how it went, what to do next (may be empty), and the colour."""
    time = duration(sum(result.seconds.values()))
    after = f" after {time}" if result.seconds else ""
    if result.exit_status == Interrupted.status:
        return f"Interrupted{after}.", "the same command again", "bold red"
    if not result.ok:
        subject = "Not ready" if result.task in CHECKED else f"{result.task} incomplete"
        return f"{subject}{after}.", _remedy(result), "bold red"
    if result.task == "status":
        absent = result.verification and any(not state.commit for state in result.verification.repositories.values())
        return "", "invoke setup" if absent else "", "bold"
    if result.dry and not result.verification:
        return "Nothing was changed (--dry).", "the same command without --dry", "bold green"
    if result.task in CHECKED:
        count = len(warnings(result))
        ready = f"Ready with {counted(count, 'warning')}" if count else "Ready"
        return f"{ready} in {time}.", _use(result.environment), "bold yellow" if count else "bold green"
    return f"{result.task} finished in {time}.", NEXT.get(result.task, ""), "bold green"


def _remedy(result: Result) -> str:
    """The first brief command of a failure; empty where there is none."""
    errors = [result.error, *(row.error for row in result.outcomes)]
    checks = sorted(result.checks, key=lambda check: check.status)  # failures before warnings
    commands = [error.command for error in errors if error and len(error.command) <= BRIEF]
    commands += [check.command for check in checks if check.status in BAD]
    return next(filter(None, commands), "")


def _use(environment: EnvironmentState | None) -> str:
    """How to use what was installed."""
    if not environment or os.environ.get("VIRTUAL_ENV") == str(environment.prefix):
        return "import sglang and flashinfer"
    return f"run your programs with {shell(environment.interpreter)}"
