"""Text from remotes, files and installers made safe to show, and figures made short."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .config import redact
from .model import Check

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # control sequences: colours, cursor (ECMA-48)
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"  # titles, links, device strings
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROLS = re.compile(  # also what turns the direction of writing around, or is not seen at all
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)
_WORKFLOW = re.compile(r"^(\s*):(?=:)|(#)(?=#\[)", re.MULTILINE)  # GitHub would obey these


def clean(text: str, *, limit: int = 2000) -> str:
    """Return `text` without control characters (newlines stay), escape sequences, workflow commands and passwords.

    What passes `limit` characters is cut. Redacted twice: what is taken out may have hidden a password or split one.
    """
    text = re.sub(r"\r\n?", "\n", redact(text)).replace("\t", " ")
    text = redact(_CONTROLS.sub("", _ESCAPES.sub("", text)))
    text = _WORKFLOW.sub(r"\1\2: " if ":" in text[:1] else r"\1\2 ", text) if "::" in text or "##[" in text else text
    return text if len(text) <= limit else f"{text[:limit]}..."


def one_line(text: str, *, limit: int = 2000) -> str:
    """Return `clean(text)` on one line."""
    return " ".join(clean(text, limit=limit).split())


def size(count: float) -> str:
    """Return bytes as MB or GB (powers of ten), or nothing for none."""
    if count <= 0:
        return ""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def counted(checks: Sequence[Check]) -> str:
    """Return how many checks passed, warned, failed and were skipped, without the zeros."""
    tally = {status: sum(check.status == status for check in checks) for status in ("pass", "warn", "fail", "skip")}
    return ", ".join(f"{count} {status}" for status, count in tally.items() if count)


def annotation(level: str, title: str, message: str) -> str:
    """Return GitHub's workflow command for an annotation; `level` is error or warning."""

    def escaped(text: str, more: str = "") -> str:
        return "".join(f"%{ord(char):02X}" if char in "%\r\n" + more else char for char in text)

    return f"::{level} title={escaped(title, ':,')}::{escaped(message)}"


def markdown(checks: Sequence[Check]) -> str:
    """Return the checks as a Markdown table with a heading that counts them."""

    def cell(text: str) -> str:
        return re.sub(r"([\\`*_\[\]<>|~&$#])", r"\\\1", clean(text)).replace("\n", "<br>")

    rows = [
        f"| {check.status} | {cell(check.name)} | {cell(check.detail)} |"
        f" {f'<code>{cell(check.fix)}</code>' if check.fix else ''} |"
        for check in checks
    ]
    return "\n".join([f"### verify: {counted(checks)}", "", "| | check | found | fix |", "|-|-|-|-|", *rows, "", ""])
