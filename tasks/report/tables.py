"""What came of a run, as tables: cells of text that is safe to show, and how they are drawn."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from rich.cells import cell_len
from rich.console import Console
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
SOURCE, DONE = "REF from", "what happened"
NUMBERS = ("moved", "time")
SHARED = "install"  # the step whose time all repositories share


def repositories(result: Result) -> list[str]:
    """Return the names of the repositories that the steps worked on."""
    return list(dict.fromkeys(row.repository for rows in result.steps.values() for row in rows))


def cells(result: Result, arrow: str) -> dict[str, list[str]]:
    """Return the columns of the table of outcomes: one row for each repository, one line for each step."""
    columns: dict[str, list[str]] = {}
    for name in repositories(result):
        rows = {
            step: next((row for row in rows if row.repository == name), None) for step, rows in result.steps.items()
        }
        done = [row for row in rows.values() if row]
        refs = (_first(row.before_ref for row in done), ref_of(done))
        versions = (_first(row.before_version for row in done), _last(row.version for row in done))
        row = {
            "repository": one_line(name),
            "REF": f" {arrow} ".join(dict.fromkeys(one_line(ref, limit=LONGEST) for ref in refs if ref)),
            SOURCE: _last(row.ref_source for row in done),
            "commit": one_line(_last(row.commit for row in done))[:SHORT],
            "version": f" {arrow} ".join(dict.fromkeys(one_line(each, limit=LONGEST) for each in versions if each)),
            DONE: "\n".join(_steps(rows, result)),
            "moved": size(sum(row.moved for row in done)),
            "time": "\n".join(duration(row.seconds) if row and row.seconds and step != SHARED else ""
                              for step, row in rows.items() if row or _failed(rows)).rstrip(),
        }  # fmt: skip
        for title, cell in row.items():
            columns.setdefault(title, []).append(cell)
    return {title: column for title, column in columns.items() if any(column)}


def ref_of(outcomes: Iterable[Outcome]) -> str:
    """Return the REF in use, and what it leads to: `matching (v0.6.7.post3)`."""
    with_ref = [outcome for outcome in outcomes if outcome.ref]
    if not with_ref:
        return ""
    ref, resolved = with_ref[-1].ref, _last(outcome.resolved for outcome in with_ref)
    return f"{ref} ({resolved})" if resolved and resolved != ref else ref


def draw(console: Console, columns: Mapping[str, Sequence[str]], failed: Sequence[bool]) -> Table:
    """Return the table of `columns` for a console. Where it is narrow, the source of a REF goes below the REF, REFs and
    versions take two lines, some columns are left out, and last of all the words on what happened are folded."""
    kept = {title: list(cells) for title, cells in columns.items()}
    for narrower in (SOURCE, "REF", "version", "time", "moved", "commit", DONE):
        lines = ([title, *"\n".join(cells).split("\n")] for title, cells in kept.items())
        if sum(max(map(cell_len, column)) + 2 for column in lines) - 2 <= console.width:
            break
        if narrower == SOURCE and SOURCE in kept:
            pairs = zip(kept["REF"], kept.pop(SOURCE), strict=True)
            kept["REF"] = [f"{ref}\n({source})" if source else ref for ref, source in pairs]
        elif narrower in ("REF", "version"):
            kept[narrower] = [re.sub(r"(→|->) | (?=\()", r"\1\n", cell) for cell in kept.get(narrower, ())]
        elif narrower != DONE:
            kept.pop(narrower, None)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in kept:
        table.add_column(title, no_wrap=title != DONE, overflow="fold", justify="right" if title in NUMBERS else "left")
    for bad, *row in zip(failed, *kept.values(), strict=True):
        table.add_row(
            *(Text(cell, "red" if bad and title == DONE else "") for title, cell in zip(kept, row, strict=True))
        )
    return table


def grouped(checks: Iterable[Check]) -> dict[str, list[Check]]:
    """Return the checks by what stands before `: ` in their names, in order of appearance. Those of a group that were
    skipped for the same reason become one: `14 checks skipped: not cloned`."""
    groups: dict[str, list[Check]] = {}
    for check in checks:
        group, _, name = one_line(check.name).partition(": ")
        groups.setdefault(group, []).append(replace(check, name=name or group, detail=one_line(check.detail)))
    return {group: _joined(members) for group, members in groups.items()}


def check_lines(console: Output, check: Check, width: int) -> tuple[Table, list[str]]:
    """Return one check, its name `width` columns wide, and the lines below it that say what to do."""
    mark = MARKS[check.status] if console.unicode and console.is_terminal else check.status
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=len(mark) + 2, no_wrap=True)
    if check.detail:
        grid.add_column(width=width, overflow="fold")
        grid.add_column(overflow="fold")
    grid.add_row(
        Text(f"  {mark}", STYLES[check.status]), Text(check.name), *([Text(check.detail)] if check.detail else [])
    )
    lines = advice(check.hint, check.command) if check.status in BAD else []
    return grid, [f"{' ' * (len(mark) + 4)}{line}" for line in lines]


def counted(checks: Iterable[Check]) -> str:
    """Return how many checks passed, warned, failed and were skipped, without the zeros."""
    statuses = [check.status for check in checks]
    return ", ".join(f"{statuses.count(status)} {status}" for status in MARKS if status in statuses)


def _joined(checks: Sequence[Check]) -> list[Check]:
    reasons = [check.detail for check in checks if check.status == "skip"]
    many = {reason for reason in reasons if reasons.count(reason) > 1}
    kept = [check for check in checks if check.status != "skip" or check.detail not in many]
    return kept + [
        Check(f"{reasons.count(reason)} checks skipped: {reason}", "skip", "")
        for reason in dict.fromkeys(reasons)
        if reason in many
    ]


def _steps(rows: Mapping[str, Outcome | None], result: Result) -> list[str]:
    """One line for each step: what it did to the repository, or that an earlier failure kept it from it."""
    failed = _failed(rows)
    lines = {step: one_line(row.action) or "failed" if row else f"skipped ({failed} failed)"
             for step, row in rows.items() if row or failed}  # fmt: skip
    name = next((row.repository for row in rows.values() if row), "")
    if result.verification and (
        mine := [each for each in result.verification.checks if each.name.startswith(f"{name}: ")]
    ):
        lines["verify"] = counted(mine)
    return [f"{step}: {line}" if len(lines) > 1 else line for step, line in lines.items()]


def _failed(rows: Mapping[str, Outcome | None]) -> str:
    return next((step for step, row in rows.items() if row and row.error), "")


def _first(texts: Iterable[str]) -> str:
    return next(filter(None, texts), "")


def _last(texts: Iterable[str]) -> str:
    return _first(reversed([*texts]))
