"""A run as the JSON object that `--json` prints; tasks/verify/schemas/result.schema.json describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import SourcesError
from ..models import VERSION, Outcome, Result
from ..names import redact

SCHEMA_VERSION = 1  # increased when a key changes its meaning or disappears; CHANGELOG says what changed


def document(result: Result) -> dict[str, Any]:
    """Return the object for a run, of dicts, lists, strings and numbers. None means unknown. It holds no password."""
    environment = result.environment
    complete: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "version": VERSION,
        "task": result.task,
        "exit_status": result.exit_status,
        "ok": result.ok,
        "environment": environment and asdict(environment) | {"installer": environment.installer or None},
        "seconds": {step: round(seconds, 3) for step, seconds in result.seconds.items()},
        "steps": [_step(task, outcome) for task, outcomes in result.steps.items() for outcome in outcomes],
        "warnings": result.warnings,
        "error": _error(result.error),
    }
    if result.verification:
        complete |= asdict(result.verification) | {"ok": result.ok}
        if complete["trace"]:
            del complete["trace"]["checks"]  # they are among `checks`
    return {key: _plain(value) for key, value in complete.items()}


def _step(task: str, outcome: Outcome) -> dict[str, Any]:
    return {
        "task": task,
        "repository": outcome.repository,
        "action": outcome.action,
        "ref": outcome.ref or None,
        "ref_source": outcome.ref_source or None,
        "resolved": outcome.resolved or None,
        "commit": outcome.commit or None,
        "version": outcome.version or None,
        "before": {
            "ref": outcome.before_ref or None,
            "commit": outcome.before_commit or None,
            "version": outcome.before_version or None,
        },
        "bytes": outcome.bytes,
        "seconds": round(outcome.seconds, 3),
        "warnings": outcome.warnings,
        "error": _error(outcome.error),
    }


def _error(error: SourcesError | None) -> dict[str, str] | None:
    if error is None:
        return None
    return {"code": error.code, "what": error.what, "hint": error.hint, "command": error.command}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return redact(str(value)) if isinstance(value, str | Path) else value
