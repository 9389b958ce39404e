"""Makes text from remotes, files and installers safe to show, and figures short."""

from __future__ import annotations

import re

from rich.filesize import decimal

from ..names import redact

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # control sequences: colours, cursor (ECMA-48)
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"  # titles, links, device strings
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROLS = re.compile(  # also characters that change the writing direction or are invisible
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)


def clean(text: str, *, limit: int = 2000) -> str:
    """Return `text` without control characters (newlines stay), escape sequences, workflow commands and passwords.

    Text beyond `limit` characters is dropped. Passwords are removed before and after, as removed characters may have
    hidden one.
    """
    text = re.sub(r"\r\n?", "\n", redact(text)).replace("\t", " ")
    text = redact(_CONTROLS.sub("", _ESCAPES.sub("", text)))
    text = re.sub(r"^(\s*):(?=:)", r"\1: ", text, flags=re.MULTILINE).replace("##[", "## [")
    return text if len(text) <= limit else f"{text[:limit]}..."


def one_line(text: str, *, limit: int = 2000) -> str:
    """Return `clean(text)` on one line."""
    return " ".join(clean(text, limit=limit).split())


def size(count: float) -> str:
    """Return a number of bytes in kB, MB or GB (powers of ten), empty for 0."""
    return decimal(int(count)) if count >= 1 else ""


def duration(seconds: float) -> str:
    """Return seconds in short, such as 0.4 s or 3 min 20 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.2g} s" if seconds >= 1 else f"{seconds:.1f} s"


def advice(hint: str, command: str) -> list[str]:
    """Return the lines that say what to do: advice in words, then the command."""
    return clean(f"{hint}\n{command}").strip().splitlines()
