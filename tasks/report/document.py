"""A run as the JSON object that `--json` prints; tasks/verify/schemas/result.schema.json describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import SourcesError
from ..models import VERSION, Outcome, Result, Verification
from ..names import redact

SCHEMA_VERSION = 1  # counts up when a key changes its meaning or goes away; CHANGELOG says what changed


def document(result: Result) -> dict[str, Any]:
    """Return the object for a run, of dicts, lists, strings and numbers. None stands for unknown; no password in it."""
    environment = result.environment
    whole = {
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
        **(_found(result.verification) if result.verification else {}),
    }
    plain: dict[str, Any] = _plain(whole)
    return plain


def _step(task: str, outcome: Outcome) -> dict[str, Any]:
    known = ("ref", "ref_source", "resolved", "commit", "version")
    before = {"ref": outcome.before_ref, "commit": outcome.before, "version": outcome.before_version}
    return {
        "task": task,
        "repository": outcome.repository,
        "action": outcome.action,
        **{name: getattr(outcome, name) or None for name in known},
        "before": {name: value or None for name, value in before.items()},
        "bytes": outcome.moved,
        "seconds": round(outcome.seconds, 3),
        "warnings": outcome.warnings,
        "error": _error(outcome.error),
    }


def _error(error: SourcesError | None) -> dict[str, str] | None:
    if error is None:
        return None
    return {"code": error.code, "what": error.what, "hint": error.hint, "command": error.command}


def _found(verification: Verification) -> dict[str, Any]:
    trace = verification.trace and asdict(verification.trace)
    return {
        "repositories": {name: asdict(state) for name, state in verification.repositories.items()},
        "packages": {name: asdict(state) for name, state in verification.packages.items()},
        "trace": trace and {key: value for key, value in trace.items() if key != "checks"},
        "checks": [asdict(check) for check in verification.checks],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return redact(str(value)) if isinstance(value, str | Path) else value
