"""The end of a run in words: the table, the checks, the last lines. All text is safe to show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rich.cells import cell_len
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from ..errors import Interrupted, counted, examples
from ..models import Check, EnvironmentState, Outcome, RepositoryState, Result
from ..names import shell
from .screen import Output, clean, duration, one_line, size

GAP = 2  # columns between two columns of a table
SHORT = 10  # characters of a commit id
LONGEST = 32  # characters of a REF or a version
BRIEF = 80  # characters; a longer command is shown only with its error
NEXT = {"clone": "invoke install", "update": "invoke install", "install": "invoke verify"}
CHECKED = ("verify", "setup")
BAD = ("warn", "fail")
STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}
MARKS = {"pass": "✓", "warn": "!", "fail": "✗", "skip": "-"}
WORDS = {"pass": "passed", "warn": "warned", "fail": "failed", "skip": "skipped"}
DROPPED = ("REF from", "time", "downloaded", "commit", "version")  # by a narrow terminal, in this order
WRAPPED = ("REF", "state")  # columns whose cells may take more lines; in `outcome` and `time` each is a step
ROOM = 24  # columns for each of those
SHARED = "install"  # the step whose time all repositories share

Columns = Mapping[str, Sequence[str]]


def columns(result: Result, arrow: str) -> Columns:
    """Return the table of a run, one row for each repository: what each step did to it, or what `status` found."""
    if result.task == "status" and result.verification:
        states = result.verification.repositories
        installed = {name: found.version or "no" for name, found in result.verification.packages.items()}
        rows = [_state(name, state, installed.get(name, "")) for name, state in states.items()]
    else:
        names = dict.fromkeys(row.repository for row in result.outcomes)
        rows = [_outcomes(name, result, f" {arrow} ") for name in names]
    titles = [title for title in (rows[0] if rows else ()) if any(row[title] for row in rows)]
    return {title: [row[title] for row in rows] for title in titles}


def draw(console: Output, columns: Columns) -> Table:
    """Return the table for a console. A narrow one leaves columns out; then some cells take more lines."""
    kept = dict(columns)
    for narrower in DROPPED:
        if sum(GAP + _width(title, cells) for title, cells in kept.items()) <= console.width + GAP:
            break
        kept.pop(narrower, None)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for title in kept:
        justify: JustifyMethod = "right" if title in ("downloaded", "time") else "left"
        table.add_column(title, no_wrap=title not in WRAPPED, overflow="fold", justify=justify)
    for row in zip(*kept.values(), strict=True):
        texts = [Text(cell) for cell in row]
        for text in texts:
            text.highlight_regex(r"(^|: )(failed|skipped .*|not cloned)", "red")
        table.add_row(*texts)
    return table


def _width(title: str, cells: Sequence[str]) -> int:
    """The width that a column needs."""
    needed = max(map(cell_len, "\n".join((title, *cells)).splitlines()))
    return min(needed, ROOM) if title in WRAPPED else needed


def check_lines(console: Output, group: str, checks: Sequence[Check], verbose: bool) -> Text:
    """Return the checks of a group: one line, and below it what failed or warned, with what to do, or with `verbose`
    all of them."""
    statuses = [check.status for check in checks]
    worst = next(status for status in ("fail", "warn", "pass", "skip") if status in statuses)
    reasons = Counter(one_line(check.detail) for check in checks if check.status == "skip")
    summary = tally(checks) + (f": {', '.join(reasons)}" if worst == "skip" else "")
    mark = f"{MARKS[worst]} " if _draws(console) else ""
    text = Text.assemble((f"{one_line(group)}: ", "bold"), (mark, STYLES[worst]), summary)
    text = console.fold(text)
    shown = [check for check in checks if verbose or check.status in BAD]
    names = {check.name: one_line(check.name).removeprefix(f"{group}: ") for check in shown}
    width = max((len(name) for name in names.values() if len(name) <= LONGEST), default=0)
    for check in shown:
        mark = f"  {MARKS[check.status] if _draws(console) else check.status}  "
        text.append_text(Text.assemble("\n", (mark, STYLES[check.status]), f"{names[check.name]:<{width}}  "))
        text.append_text(console.fold(Text(one_line(check.detail)), len(mark) + width + 2))
        if check.status in BAD:
            text.append("".join(f"\n{' ' * len(mark)}{line}" for line in advice(check.hint, check.command)), "cyan")
    return text


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
    """Return all warnings of a run, those of its checks too, each once."""
    checks = [f"{check.name}: {check.detail}" for check in result.checks if check.status == "warn"]
    return list(dict.fromkeys([*result.all_warnings, *checks]))


def closing(result: Result, environ: Mapping[str, str]) -> tuple[str, str, str]:
    """Return the end of a run: how it went, what to do next (may be empty), and the colour. `environ` says whether the
    environment is active."""
    each = ", ".join(f"{step} {duration(seconds)}" for step, seconds in result.seconds.items())
    time = duration(sum(result.seconds.values())) + (f" ({each})" if len(result.seconds) > 1 else "")
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
        return f"{ready} in {time}.", _use(result.environment, environ), "bold yellow" if count else "bold green"
    return f"{result.task} finished in {time}.", NEXT.get(result.task, ""), "bold green"


def _remedy(result: Result) -> str:
    """The first brief command of a failure; empty where there is none."""
    errors = [result.error, *(row.error for row in result.outcomes)]
    checks = sorted(result.checks, key=lambda check: check.status)  # failures before warnings
    commands = [error.command for error in errors if error and len(error.command) <= BRIEF]
    commands += [check.command for check in checks if check.status in BAD]
    return next(filter(None, commands), "")


def _use(environment: EnvironmentState | None, environ: Mapping[str, str]) -> str:
    """How to use what was installed."""
    if not environment or environ.get("VIRTUAL_ENV") == str(environment.prefix):
        return "import sglang and flashinfer"
    activate = environment.prefix / "bin/activate"
    run = f"run your programs with {shell(environment.interpreter)}"
    return f"source {shell(activate)}" if activate.is_file() else run


def _draws(console: Output) -> bool:
    return console.unicode and console.is_terminal


def _outcomes(name: str, result: Result, arrow: str) -> dict[str, str]:
    """The cells of one repository; after a failed step it was left out of the others."""
    rows = {step: next((row for row in rows if row.repository == name), None) for step, rows in result.steps.items()}
    done = [row for row in rows.values() if row]
    failed = next((step for step, row in rows.items() if row and row.error), "")
    lines, times = dict[str, str](), list[str]()
    for step, row in rows.items():
        if row or failed:
            lines[step] = one_line(row.action) if row else f"skipped ({failed} failed)"
            times.append(duration(row.seconds) if row and row.seconds and step != SHARED else "")
    if mine := [check for check in result.checks if check.name.startswith(f"{name}: ")]:
        lines["verify"] = tally(mine)
    ref, resolved = next(((row.ref, row.resolved) for row in reversed(done) if row.ref), ("", ""))
    refs = _last(done[::-1], "before_ref"), _ref(ref, resolved)
    versions = _last(done[::-1], "before_version"), _last(done, "version")
    return {
        "repository": one_line(name),
        "REF": arrow.join(dict.fromkeys(one_line(ref, limit=LONGEST) for ref in refs if ref)),
        "REF from": _last(done, "ref_source"),
        "commit": one_line(_last(done, "commit"))[:SHORT],
        "version": arrow.join(dict.fromkeys(one_line(version, limit=LONGEST) for version in versions if version)),
        "outcome": "\n".join(f"{step}: {line}" if len(lines) > 1 else line for step, line in lines.items()),
        "downloaded": size(sum(row.bytes for row in done)),
        "time": "\n".join(times).rstrip(),
    }


def _state(name: str, state: RepositoryState, installed: str) -> dict[str, str]:
    """The cells of one repository for `status`."""
    changed = f"{counted(len(state.changed), 'changed file')}: {examples(state.changed)}" if state.changed else ""
    facts = [
        state.problem,
        f"on {state.branch}" if state.branch not in ("", state.ref, state.resolved) else "",
        f"{state.ahead} ahead" if state.ahead else "",
        f"{state.behind} behind" if state.behind else "",
        changed,
    ]
    return {
        "repository": one_line(name),
        "REF": one_line(_ref(state.ref, state.resolved), limit=LONGEST),
        "REF from": state.ref_source,
        "commit": one_line(state.commit or "")[:SHORT],
        "version": one_line(state.version or "", limit=LONGEST),
        "installed": one_line(installed, limit=LONGEST),
        "state": one_line(", ".join(filter(None, facts))) or "clean",
    }


def _ref(ref: str, resolved: str) -> str:
    return f"{ref} ({resolved})" if resolved and resolved != ref else ref


def _last(rows: Sequence[Outcome], name: str) -> str:
    """The last known value of an attribute."""
    return next((value for row in reversed(rows) if (value := getattr(row, name))), "")
