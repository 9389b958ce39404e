"""What GitHub Actions reads: workflow commands and the summary of a job."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..models import Check
from .tables import counted
from .text import clean


def annotation(level: str, title: str, message: str) -> str:
    """Return the workflow command for an annotation; `level` is error or warning."""

    title, message = (re.sub(r"[%\r\n]", _percent, text) for text in (title, message))
    return f"::{level} title={re.sub('[:,]', _percent, title)}::{message}"


def markdown(checks: Sequence[Check]) -> str:
    """Return the checks as a Markdown table under a heading that counts them."""

    def cell(text: str) -> str:
        return re.sub(r"([\\`*_\[\]<>|~&$#])", r"\\\1", clean(text)).replace("\n", "<br>")

    def code(text: str) -> str:
        return f"<code>{cell(text)}</code>" if text else ""

    rows = [
        f"| {check.status} | {cell(check.name)} | {cell(check.detail)} | {cell(check.hint)}{code(check.command)} |"
        for check in checks
    ]
    return "\n".join([f"### verify: {counted(checks)}", "", "| | check | found | fix |", "|-|-|-|-|", *rows, "", ""])


def _percent(found: re.Match[str]) -> str:
    return f"%{ord(found[0]):02X}"
