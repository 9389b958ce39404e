"""Reads one file of trace data: what others wrote, as a JSON value or with the reason why it is none."""

from __future__ import annotations

import json
import re
import stat
from collections import Counter
from pathlib import Path
from typing import Any

_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|(-?Infinity|NaN)')


class Broken(ValueError):
    """A file is not as the format has it. The text names the line or field."""


def shown(text: object) -> str:
    """`text` for people: one line without control characters, and not endless."""
    whole = str(text)
    whole = whole if whole.isprintable() else ascii(whole)
    return whole if len(whole) <= 300 else f"{whole[:300]}…"  # noqa: PLR2004


def text_of(path: Path, file: Path, limit: int) -> str:
    """What a file of `path`/{kind}/{op_type}/ holds. Only regular files are opened: pipes and devices may never end."""
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        if stat.S_ISDIR(status.st_mode):
            next(file.iterdir(), None)  # raises where that is why it is looked at
        raise Broken("no regular file")
    if len(file.relative_to(path).parts) != 3:  # noqa: PLR2004
        raise Broken("belongs into the folder of its op_type")
    if status.st_size > limit:
        raise Broken(f"{status.st_size:,} bytes, more than the {limit:,} that are read")
    with file.open("rb") as stream:
        data = stream.read(limit)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Broken(f"line {line}: no UTF-8, byte 0x{data[error.start]:02x}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise Broken(f"{shown(Counter(name for name, _ in pairs).most_common(1)[0][0])}: given twice")
    return value


def _constant(name: str) -> Any:
    raise ValueError(name)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant)


def json_of(text: str, line: int = 1) -> Any:
    """The value of a JSON text (RFC 8259: no NaN, no Infinity) that begins in `line`; no name twice in one object."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise Broken(f"line {error.lineno + line - 1} column {error.colno}: no JSON, {error.msg}") from None
    except RecursionError:
        raise Broken(f"line {line}: nested too deep") from None
    except Broken:
        raise
    except ValueError as error:  # a constant, or more digits than Python turns into a number
        found = next((match for match in _CONSTANT.finditer(text) if match[1] == str(error)), None)
        at = line + text.count("\n", 0, found.start()) if found else line
        raise Broken(f"line {at}: {error} is no JSON value" if found else f"line {at}: a number is too long") from None
