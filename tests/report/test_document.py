"""The object of `--json`, of every task and at every exit, against the schema that programs read it by."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tasks.errors import SourcesError
from tasks.models import Result
from tasks.report.report import document
from tests.report.values import CHECKS, CLONED, ERRORS, FAILED, FIX, FOUND, LOST, UPDATED, failed, succeeded

SCHEMA = json.loads((Path(__file__).parents[2] / "tasks/verify/schemas/result.schema.json").read_text())
TASKS = ("clone", "update", "install", "verify", "setup", "status", "lock")


def valid(result: Result) -> dict[str, Any]:
    """The object for `result`, as a program reads it."""
    found: dict[str, Any] = json.loads(json.dumps(document(result)))
    jsonschema.validate(found, SCHEMA, jsonschema.Draft202012Validator)
    return found


def test_each_task_that_succeeds_says_so() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for task in TASKS:
        found = valid(succeeded(task))
        assert (found["task"], found["exit_status"], found["ok"], found["error"]) == (task, 0, True, None)
        assert ("checks" in found) == ("trace" in found) == (task in ("verify", "setup"))
        assert ("repositories" in found) == ("packages" in found) == (task in ("verify", "setup", "status"))
        assert bool(found["steps"]) == (task in ("clone", "update", "install", "setup"))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_each_task_says_what_it_failed_with(error: SourcesError) -> None:
    for task in TASKS:
        for within in (False, True):
            found = valid(failed(task, error, within=within))
            assert (found["exit_status"], found["ok"]) == (error.status, False)
            texts = {"code": error.code, "what": error.what, "hint": error.hint, "command": error.command}
            shown = {key: value or None for key, value in texts.items()}
            assert [e for e in (found["error"], *(step["error"] for step in found["steps"])) if e] == [shown]


def test_failed_checks_are_exit_status_1() -> None:
    found = valid(Result("verify", 1, verification=FOUND))
    check = {"name": "flashinfer: version", "status": "fail", "detail": CHECKS[2].detail, "hint": None, "command": FIX}
    assert found["checks"][2] == check
    assert found["repositories"]["sglang"]["directories"] == {"models": "/p/tmp/sglang/python/sglang/srt/models"}
    assert found["repositories"]["sglang"]["url"] == "https://***@example.org/sglang.git"
    trace = {"path": "/p/flashinfer_trace", "op_types": {"rmsnorm": 1}, "definitions": 1, "reference_tests": 1}
    assert found["trace"] == trace


def test_a_step_says_what_was_before_and_what_is_now() -> None:
    result = Result("update", 3, steps={"update": [UPDATED, CLONED, FAILED]}, warnings=("install: odd",))
    updated, cloned, lost = (found := valid(result))["steps"]
    before = (updated["before_ref"], updated["before_commit"], updated["before_version"])
    assert before == ("main", "e" * 40, "0.6.18")
    assert (updated["ref"], updated["resolved"], updated["ref_source"]) == ("matching", "v0.6.7.post3", "this checkout")
    assert (cloned["bytes"], cloned["seconds"]) == (52_300_000, 41)
    assert (lost["commit"], lost["version"], lost["error"]["what"]) == (None, None, LOST.what)
    assert found["warnings"] == ["install: odd"]


def test_no_password_is_in_it() -> None:
    secret = "https://me:secret@example.org/x"
    error = SourcesError(secret, secret, f"git clone {secret}")
    state = replace(FOUND.repositories["sglang"], problem=secret, changed=(secret,))
    found = replace(FOUND, repositories={"sglang": state})
    assert "secret" not in json.dumps(document(replace(failed("setup", error, within=True), verification=found)))
