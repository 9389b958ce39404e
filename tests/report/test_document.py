"""The object of `--json`, of every task and at every exit, against the schema that programs read it by."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tasks.errors import SourcesError
from tasks.models import Result
from tasks.report.document import document
from tasks.report.report import Report
from tests.report.values import CHECKS, CLONED, ERRORS, FAILED, FIX, FOUND, LOST, UPDATED, failed, succeeded

SCHEMA = json.loads((Path(__file__).parents[2] / "tasks/verify/schemas/result.schema.json").read_text())
TASKS = ("clone", "update", "install", "verify", "setup", "lock")


def valid(result: Result) -> dict[str, Any]:
    """The object for `result`, as a program reads it."""
    found: dict[str, Any] = json.loads(json.dumps(document(result)))
    jsonschema.validate(found, SCHEMA, jsonschema.Draft202012Validator)
    return found


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("task", TASKS)
def test_each_task_that_succeeds_says_so(task: str) -> None:
    found = valid(succeeded(task))
    assert (found["task"], found["exit_status"], found["ok"], found["error"]) == (task, 0, True, None)
    assert ("checks" in found) == (task in ("verify", "setup"))
    assert bool(found["steps"]) == (task in ("clone", "update", "install", "setup"))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error.status))
@pytest.mark.parametrize("task", TASKS)
def test_each_task_says_what_it_failed_with_at_each_exit_status(task: str, error: SourcesError) -> None:
    for within in (False, True):
        found = valid(failed(task, error, within=within))
        assert (found["exit_status"], found["ok"]) == (error.status, False)
        errors = [found["error"], *(step["error"] for step in found["steps"])]
        told = {"code": error.code, "what": error.what, "hint": error.hint, "command": error.command}
        assert [each for each in errors if each] == [told]


def test_failed_checks_are_exit_status_1() -> None:
    found = valid(Result("verify", 1, verification=FOUND))
    assert found["checks"][2] == {
        "name": "flashinfer: version", "status": "fail", "detail": CHECKS[2].detail, "hint": "", "command": FIX,
    }  # fmt: skip
    assert found["repositories"]["sglang"]["directories"] == {"models": "/p/tmp/sglang/python/sglang/srt/models"}
    assert found["repositories"]["sglang"]["url"] == "https://***@example.org/sglang.git"
    trace = {"path": "/p/flashinfer_trace", "op_types": {"rmsnorm": 1}, "definitions": 1, "reference_tests": 1}
    assert found["trace"] == trace


def test_a_step_says_what_was_before_and_what_is_now() -> None:
    result = Result("update", 3, steps={"update": [UPDATED, CLONED, FAILED]}, warnings=("install: odd",))
    updated, cloned, lost = (found := valid(result))["steps"]
    assert updated["before"] == {"ref": "main", "commit": "e" * 40, "version": "0.6.18"}
    assert (updated["ref"], updated["resolved"], updated["ref_source"]) == ("matching", "v0.6.7.post3", "this checkout")
    assert (cloned["bytes"], cloned["seconds"], cloned["warnings"]) == (52_300_000, 41, list(CLONED.warnings))
    assert (lost["commit"], lost["version"], lost["error"]["what"]) == (None, None, LOST.what)
    assert found["warnings"] == ["install: odd"]


def test_no_password_is_in_it() -> None:
    error = SourcesError(
        "https://me:secret@example.org/x", "https://me:secret@a.b/", "git clone https://me:secret@a.b/c"
    )
    assert "secret" not in json.dumps(document(failed("setup", error, within=True)))


@pytest.mark.parametrize("ok", [True, False])
def test_the_schema_refuses_an_ok_that_is_not_the_exit_status(ok: bool) -> None:
    wrong = document(Result("clone", 1 if ok else 0)) | {"ok": ok}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA, jsonschema.Draft202012Validator)


def test_it_is_alone_on_standard_output() -> None:
    out, err = io.StringIO(), io.StringIO()
    with Report(stream=out, errors=err, environ={}, json=True) as report:
        with report.step("verify"):
            report.event("sglang", "\u2192 checked")
        report.finish(Result("verify", 3, steps={"clone": [FAILED]}, verification=FOUND))
    assert json.loads(out.getvalue())["exit_status"] == 3
    assert "checked" in err.getvalue() and LOST.what in err.getvalue()
    assert not out.getvalue().startswith("verify")
