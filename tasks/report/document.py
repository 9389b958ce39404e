"""A run as the JSON object that `--json` prints; tasks/verify/schemas/result.schema.json describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import SourcesError
from ..models import VERSION, Result
from ..names import redact

SCHEMA_VERSION = 2  # increased when a key changes its meaning or disappears; CHANGELOG says what changed


def document(result: Result) -> dict[str, Any]:
    """Return the object for a run, of dicts, lists, strings and numbers. None means unknown, or that there is nothing
    to say. It holds no password."""
    tree = {"schema_version": SCHEMA_VERSION, "version": VERSION, **asdict(result), "ok": result.ok}
    tree["steps"] = [{"task": step, **asdict(row)} for step, rows in result.steps.items() for row in rows]
    if found := tree.pop("verification"):
        shown = ("repositories", "packages") if result.task == "status" else (*found.keys() - {"ok"},)
        tree |= {key: found[key] for key in shown}
    return {key: _plain(value) for key, value in tree.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, SourcesError):
        return _plain({"code": value.code, "what": value.what, "hint": value.hint, "command": value.command})
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 3)
    return redact(str(value)) or None if isinstance(value, str | Path) else value
