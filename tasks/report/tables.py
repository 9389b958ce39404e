"""What the report's tables hold: outcomes and checks as rows of text that is safe to show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..models import Check, Outcome
from .text import duration, one_line, size

SHORT = 10  # characters of a commit id
LONGEST = 32  # characters of a REF or a version
PROSE = "what happened"
DROPPABLE = ("moved", "time", "commit", "REF", "version")  # in this order, where a terminal is narrow


def columns(rows: Sequence[tuple[Outcome, str]], arrow: str) -> dict[str, list[str]]:
    """Return the cells of each column; a row is an outcome and the lines that tell what happened."""
    outcomes = [outcome for outcome, _ in rows]
    versions = [[one_line(version, limit=LONGEST) for version in (row.before_version, row.version)] for row in outcomes]
    return {
        "repository": [one_line(row.repository) for row in outcomes],
        "REF": [one_line(row.ref, limit=LONGEST) for row in outcomes],
        "commit": [one_line(row.commit)[:SHORT] for row in outcomes],
        "version": [f" {arrow} ".join(dict.fromkeys(filter(None, pair))) for pair in versions],
        PROSE: ["\n".join(map(one_line, lines.splitlines())) for _, lines in rows],
        "moved": [size(row.moved) for row in outcomes],
        "time": [duration(row.seconds) if row.seconds else "" for row in outcomes],
    }


def summarised(steps: Mapping[str, Sequence[Outcome]], checks: Sequence[Check]) -> list[tuple[Outcome, str]]:
    """Return a row for each repository: what each step did to it, what a failure left undone, its checks counted."""
    result = []
    for name in dict.fromkeys(row.repository for rows in steps.values() for row in rows):
        own = [(step, next((row for row in rows if row.repository == name), None)) for step, rows in steps.items()]
        done = [row for _, row in own if row]
        failed = next((step for step, row in own if row and row.error), "")
        lines = [
            f"{step}: {row.action or 'failed'}" if row else f"{step}: skipped, {failed} failed"
            for step, row in own
            if row or failed
        ]
        mine = [check for check in checks if check.name.startswith(f"{name}: ")]
        lines += [f"verify: {counted(mine)}"] if mine else []
        total = Outcome(
            name,
            "",
            ref=_last(row.ref for row in done),
            commit=_last(row.commit for row in done),
            version=_last(row.version for row in done),
            before_version=_last(row.before_version for row in reversed(done)),
            moved=sum(row.moved for row in done),
            seconds=sum(row.seconds for row in done),
            error=next((row.error for row in done if row.error), None),
        )
        result.append((total, "\n".join(lines)))
    return result


def _last(texts: Iterable[str]) -> str:
    return next(reversed([text for text in texts if text]), "")


def grouped(checks: Sequence[Check]) -> dict[str, list[tuple[str, Check]]]:
    """Return the checks with their short names, by what stands before `: ` in their names."""
    groups: dict[str, list[tuple[str, Check]]] = {}
    for check in checks:
        group, _, name = one_line(check.name).partition(": ")
        groups.setdefault(group, []).append((name or group, check))
    return groups


def counted(checks: Sequence[Check]) -> str:
    """Return how many checks passed, warned, failed and were skipped, without the zeros."""
    tally = {status: sum(check.status == status for check in checks) for status in ("pass", "warn", "fail", "skip")}
    return ", ".join(f"{count} {status}" for status, count in tally.items() if count)
