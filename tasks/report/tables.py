"""The outcome of a run as tables: cells of text that is safe to show, and how they are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from ..models import Check, Outcome, Result
from .console import Output
from .text import advice, duration, one_line, size

SHORT = 10  # characters of a commit id
LONGEST = 32  # characters of a REF or a version
BAD = ("warn", "fail")
STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}
MARKS = {"pass": "✓", "warn": "!", "fail": "✗", "skip": "-"}
SOURCE, OUTCOME = "REF from", "outcome"
NUMBERS = ("moved", "time")
FOLDED = ("REF", SOURCE, "version")  # the columns whose cells may take more lines; each line of the others is a step
GAP = 2  # columns between two columns of a table
SHARED = "install"  # the step whose time all repositories share


def cells(result: Result, arrow: str) -> dict[str, list[str]]:
    """Return the columns of the table of outcomes: one row for each repository, one line for each step."""
    names = dict.fromkeys(row.repository for row in result.outcomes)
    rows = [_cells(name, result, f" {arrow} ") for name in names]
    return {title: [row[title] for row in rows] for title in rows[0] if any(row[title] for row in rows)} if rows else {}


def draw(console: Console, columns: Mapping[str, Sequence[str]]) -> Table:
    """Return the table of `columns` for a console. A narrow one has the source of a REF below it and leaves columns
    out; one that is narrower still folds all cells, between words as long as there is room for each word."""
    kept, room = dict(columns), console.width + GAP
    for narrower in (SOURCE, "time", "moved", "commit"):
        if sum(_least(kept, FOLDED).values()) <= room:
            break
        cells = kept.pop(narrower, ())
        if narrower == SOURCE and cells:
            pairs = zip(kept["REF"], cells, strict=True)
            kept["REF"] = [f"{ref} ({source})" if source else ref for ref, source in pairs]
    least, widths = _least(kept, FOLDED), _least(kept, ())
    if sum(least.values()) > room:
        least = _least(kept, [*kept])
    while sum(widths.values()) > room:
        widths[max(kept, key=lambda title: widths[title] - least[title])] -= 1
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for title, width in widths.items():
        justify: JustifyMethod = "right" if title in NUMBERS else "left"
        table.add_column(title, width=max(1, width - GAP), overflow="fold", justify=justify)
    for row in zip(*kept.values(), strict=True):
        texts = [Text(cell) for cell in row]
        for text in texts:
            text.highlight_regex(r"(^|: )(failed|skipped .*)", "red")
        table.add_row(*texts)
    return table


def _least(columns: Mapping[str, Sequence[str]], folded: Sequence[str]) -> dict[str, int]:
    """The least width of each column, its gap included, where the cells of those `folded` are divided into words."""
    widths = dict[str, int]()
    for title, cells in columns.items():
        text = "\n".join((title, *cells))
        widths[title] = GAP + max(map(cell_len, text.split() if title in folded else text.splitlines()))
    return widths


def grouped(checks: Iterable[Check]) -> dict[str, list[Check]]:
    """Return the checks by the part of their names before `: `, in order of appearance. Checks of a group that were
    skipped for the same reason become one: `14 checks skipped: not cloned`."""
    groups: dict[str, list[Check]] = {}
    for check in checks:
        group, _, name = one_line(check.name).partition(": ")
        groups.setdefault(group, []).append(replace(check, name=name or group, detail=one_line(check.detail)))
    return {group: _joined(members) for group, members in groups.items()}


def check_lines(console: Output, check: Check, width: int) -> Text:
    """Return one check, its name `width` columns wide, with what to do below it. On a terminal the detail is folded
    beside the name, and a longer name has a line of its own; elsewhere nothing is folded."""
    mark = MARKS[check.status] if console.unicode and console.is_terminal else check.status
    start = " " * (len(mark) + 4)
    indent = len(start) + width + 2
    name = f"{check.name:<{width}}  "
    if console.is_terminal and check.detail and len(check.name) > width:
        name = f"{check.name}\n{' ' * indent}"
    lines = advice(check.hint, check.command) if check.status in BAD else []
    text = Text.assemble((f"  {mark}  ", STYLES[check.status]), name, console.fold(Text(check.detail), indent))
    text.rstrip()
    return text.append("".join(f"\n{start}{line}" for line in lines), "cyan")


def counted(checks: Iterable[Check]) -> str:
    """Return how many checks passed, warned, failed and were skipped, without the zeros."""
    statuses = [check.status for check in checks]
    return ", ".join(f"{statuses.count(status)} {status}" for status in MARKS if status in statuses)


def _joined(checks: Sequence[Check]) -> list[Check]:
    reasons = Counter(check.detail for check in checks if check.status == "skip")
    kept = [check for check in checks if check.status != "skip" or reasons[check.detail] == 1]
    many = [(reason, count) for reason, count in reasons.items() if count > 1]
    return kept + [Check(f"{count} checks skipped: {reason}", "skip", "") for reason, count in many]


def _cells(name: str, result: Result, arrow: str) -> dict[str, str]:
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
        lines["verify"] = counted(mine)
    ref, resolved = next(((row.ref, row.resolved) for row in reversed(done) if row.ref), ("", ""))
    refs = _last(done[::-1], "before_ref"), f"{ref} ({resolved})" if resolved and resolved != ref else ref
    versions = _last(done[::-1], "before_version"), _last(done, "version")
    return {
        "repository": one_line(name),
        "REF": arrow.join(dict.fromkeys(one_line(ref, limit=LONGEST) for ref in refs if ref)),
        SOURCE: _last(done, "ref_source"),
        "commit": one_line(_last(done, "commit"))[:SHORT],
        "version": arrow.join(dict.fromkeys(one_line(each, limit=LONGEST) for each in versions if each)),
        OUTCOME: "\n".join(f"{step}: {line}" if len(lines) > 1 else line for step, line in lines.items()),
        "moved": size(sum(row.bytes for row in done)),
        "time": "\n".join(times).rstrip(),
    }


def _last(rows: Sequence[Outcome], name: str) -> str:
    """The last known value of an attribute."""
    return next((value for row in reversed(rows) if (value := getattr(row, name))), "")
