"""Text from remotes, files and installers made safe to show, and figures made short."""

from __future__ import annotations

import re

from ..names import redact

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # control sequences: colours, cursor (ECMA-48)
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"  # titles, links, device strings
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROLS = re.compile(  # also what turns the direction of writing around, or is not seen at all
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)

_MARKS = ("://", "::", "##[")  # of URLs and of workflow commands


def clean(text: str, *, limit: int = 2000) -> str:
    """Return `text` without control characters (newlines stay), escape sequences, workflow commands and passwords.

    What passes `limit` characters is cut. Redacted twice: what is taken out may have hidden a password or split one.
    """
    if len(text) <= limit and text.isascii() and text.isprintable() and not any(mark in text for mark in _MARKS):
        return text
    text = re.sub(r"\r\n?", "\n", redact(text)).replace("\t", " ")
    text = redact(_CONTROLS.sub("", _ESCAPES.sub("", text)))
    text = re.sub(r"^(\s*):(?=:)", r"\1: ", text, flags=re.MULTILINE).replace("##[", "## [")
    return text if len(text) <= limit else f"{text[:limit]}..."


def one_line(text: str, *, limit: int = 2000) -> str:
    """Return `clean(text)` on one line."""
    return " ".join(clean(text, limit=limit).split())


def size(count: float) -> str:
    """Return bytes as kB, MB or GB (powers of ten), or nothing for none."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1e3:.0f} kB" if count > 0 else ""


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.2g} s"
