"""What GitHub Actions reads: workflow commands (annotations) and the summary of a job, in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ..models import Check, Result
from .text import clean


def annotation(level: str, title: str, message: str) -> str:
    """Return the workflow command for an annotation; `level` is error or warning."""
    title, message = (re.sub(r"[%\r\n]", _percent, text) for text in (title, message))
    return f"::{level} title={re.sub('[:,]', _percent, title)}::{message}"


def markdown(result: Result, columns: Mapping[str, Sequence[str]], closing: str) -> str:
    """Return a run as Markdown: how it ended, the table of outcomes, the warnings and the checks."""
    lines = [f"### invoke {result.task}", "", _cell(closing), ""]
    if columns:
        lines += _table(columns, (map(_cell, row) for row in zip(*columns.values(), strict=True)))
    lines += [*(f"- warning: {_cell(text)}" for text in result.all_warnings), ""] if result.all_warnings else []
    if result.checks:
        rows = ([each.status, _cell(each.name), _cell(each.detail), _advice(each)] for each in result.checks)
        lines += _table(("", "check", "found", "what to do"), rows)
    return "\n".join([*lines, ""])


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    titles = list(titles)
    return [f"| {' | '.join(row)} |" for row in (titles, ["-"] * len(titles), *rows)] + [""]


def _cell(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|~&$#])", r"\\\1", clean(text)).replace("\n", "<br>")


def _advice(check: Check) -> str:
    command = f"<code>{_cell(check.command)}</code>" if check.command else ""
    return "<br>".join(filter(None, (_cell(check.hint), command)))


def _percent(found: re.Match[str]) -> str:
    return f"%{ord(found[0]):02X}"
