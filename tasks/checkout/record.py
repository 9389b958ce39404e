"""What this tool did to a checkout, kept in its git directory: the REF that was asked for, and a move under way."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ..git.packs import write_atomic

_FILE = "sources.json"


@dataclass(frozen=True)
class Record:
    """`ref` was asked for when `configured` was the configured branch, and was the `kind` (branch, tag, commit) `name`
    at `commit`. `moving` is the commit that a move has begun to, empty when none is under way."""

    ref: str = ""
    configured: str = ""
    kind: str = ""
    name: str = ""
    commit: str = ""
    moving: str = ""


def read_record(git_dir: Path) -> Record:
    """The record in `git_dir`; an empty one where there is none that can be read."""
    try:
        known = json.loads((git_dir / _FILE).read_text())
        return Record(**{each.name: str(known[each.name]) for each in fields(Record)})
    except (OSError, ValueError, KeyError, TypeError):
        return Record()


def write_record(git_dir: Path, record: Record) -> None:
    """Keep the record, atomically."""
    if record != read_record(git_dir):
        write_atomic(git_dir / _FILE, json.dumps(asdict(record)) + "\n")
