"""What `verify` says about trace data: the project's own, damaged, and downloaded without Git LFS."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.models import Check
from tasks.packages import Environment, probe
from tasks.verify.trace import LFS, Data
from tests import conftest
from tests.conftest import ROOT
from tests.packages.conftest import put

HERE = probe()
REFERENCE = "import torch\n\ndef run(x, n):\n    return x.cumsum(0)[:n]\n"
Json = dict[str, Any]


def definition() -> Json:
    """A valid definition with a variable and a constant axis and a scalar."""
    return {
        "name": "scan_h8",
        "op_type": "scan",
        "axes": {"rows": {"type": "var"}, "h": {"type": "const", "value": 8}},
        "inputs": {"x": {"shape": ["rows", "h"], "dtype": "float32"}, "n": {"shape": None, "dtype": "int32"}},
        "outputs": {"y": {"shape": ["rows", "h"], "dtype": "float32"}},
        "reference": REFERENCE,
    }


def workload() -> Json:
    """A valid workload of it, with a blob."""
    inputs = {"x": {"type": "safetensors", "path": "./blob/x", "tensor_key": "x"}, "n": {"type": "scalar", "value": 3}}
    content = {"axes": {"rows": 4}, "inputs": inputs, "uuid": "a"}
    return {"definition": "scan_h8", "workload": content, "solution": None, "evaluation": None}


def write(path: Path, content: Json | bytes | None = None, lines: bytes | None = None) -> Path:
    """Trace data with one definition, its workload, its blob and its reference test. Returns `path`."""
    content = definition() if content is None else content
    files = {
        "definitions/scan/scan_h8.json": content if isinstance(content, bytes) else json.dumps(content).encode(),
        "workloads/scan/scan_h8.jsonl": json.dumps(workload()).encode() + b"\n" if lines is None else lines,
        "tests/references/test_scan_h8.py": b"def test_nothing(): ...\n",
        "blob/x": b"data",
    }
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def checks(path: Path, environment: Environment | None = None) -> dict[str, Check]:
    """The checks by name."""
    return {check.name: check for check in Data(path).check(environment or HERE)}


def failed(path: Path) -> dict[str, str]:
    """The detail of each file with errors."""
    return {name: check.detail for name, check in checks(path).items() if check.status == "fail" and "." in name}


def change(*path: str, to: object = None) -> Callable[[Json], None]:
    """A change of the field at `path`; without a value the field is removed."""

    def apply(value: Json) -> None:
        for key in path[:-1]:
            value = value[key]
        if to is None:
            del value[path[-1]]
        else:
            value[path[-1]] = to

    return apply


def test_the_trace_data_of_this_project_is_valid_and_counted() -> None:
    path = ROOT / "flashinfer_trace"
    data = Data(path)
    assert [check.name for check in data.check(HERE) if check.status != "pass"] == []
    trace = data.counted()
    assert set(trace.op_types) >= {"gemm", "gqa_paged", "mla_paged", "moe", "rmsnorm"}
    assert trace.definitions == trace.reference_tests == sum(trace.op_types.values())
    blobs = {str(file.relative_to(path)) for file in path.glob("blob/**/*.safetensors")}
    assert blobs <= {blob.removeprefix("./") for blob in data.blobs}, "a blob belongs to no workload"


def test_valid_data_passes_with_one_check_of_each_kind(tmp_path: Path) -> None:
    statuses = {name: check.status for name, check in checks(write(tmp_path)).items()}
    assert statuses == dict.fromkeys(["definitions", "workloads", "reference tests", "blobs"], "pass")


def test_missing_definitions_and_reference_tests_are_named(tmp_path: Path) -> None:
    test = write(tmp_path) / "tests/references/test_scan_h8.py"
    test.rename(test.with_name("test_scan.py"))  # one for the op type
    assert checks(tmp_path)["reference tests"].status == "pass"
    test.with_name("test_scan.py").write_text("")
    check = checks(tmp_path)["reference tests"]
    assert (check.status, check.hint) == ("warn", "add tests/references/test_scan_h8.py")
    shutil.rmtree(tmp_path / "definitions")
    check = checks(tmp_path)["definitions"]
    assert check.status == "fail" and "sources.trace" in check.hint


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (change("reference"), "data must contain"),
        (change("inputs", "x", "dtype", to="unknown"), "inputs.x.dtype must be one of"),
        (change("outputs", "x", to={"shape": None, "dtype": "bool"}), "outputs: x is also an input"),
        (change("reference", to="def run(x, n):\n  return x +\n"), "reference: invalid syntax (reference, line 2)"),
        (change("reference", to="x = " + "-" * 50_000 + "1\n"), "reference: "),
        (change("reference", to="def forward(x, n): ...\n"), "no global function run"),
        (change("reference", to="\ndef run(n, x): ...\n"), "must be the inputs, in their order: x, n"),
        (change("reference", to="def run(x, n, *more): ...\n"), "the parameters of run must be the inputs"),
    ],
)  # fmt: skip
def test_an_error_in_a_definition_is_named_with_its_field(
    tmp_path: Path, apply: Callable[[Json], None], message: str
) -> None:
    value = definition()
    apply(value)
    assert message in failed(write(tmp_path, value, lines=b""))["definitions/scan/scan_h8.json"]


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (change("definition", to="scan_h9"), "definition: scan_h9 is missing or has errors"),
        (change("workload", "axes", "rows"), "workload.axes: must be rows, got "),
        (change("workload", "axes", "h", to=8), "workload.axes: must be rows, got h, rows"),
        (change("workload", "axes", "rows", to=0), "workload.axes.rows must be bigger than or equal to 1"),
        (change("workload", "inputs", "x"), "workload.inputs: must be n, x, got n"),
        (change("workload", "inputs", "n", to={"type": "scalar"}), "workload.inputs.n must contain"),
    ],
)
def test_an_error_in_a_workload_is_named_with_its_line_and_field(
    tmp_path: Path, apply: Callable[[Json], None], message: str
) -> None:
    second = workload()
    apply(second)
    found = failed(write(tmp_path, lines=f"{json.dumps(workload())}\n\n{json.dumps(second)}\n".encode()))
    assert list(found) == ["workloads/scan/scan_h8.jsonl"]
    assert found["workloads/scan/scan_h8.jsonl"].startswith("line 3: ")
    assert message in found["workloads/scan/scan_h8.jsonl"]


def test_blobs_that_are_missing_fail_and_pointers_of_git_lfs_are_counted(tmp_path: Path) -> None:
    blob = write(tmp_path) / "blob/x"
    blob.write_bytes(LFS + b"\noid sha256:" + b"0" * 64 + b"\nsize 4096\n")
    check = checks(tmp_path)["blobs"]
    assert (check.status, check.detail) == ("skip", "1 of 1 are Git LFS pointers")
    assert check.command == f"git -C {tmp_path} lfs pull"
    blob.unlink()
    (blob.parents[1] / "tests/references/test_x.py").symlink_to(blob)
    check = checks(tmp_path)["blobs"]
    assert (check.status, check.detail) == ("fail", "1 of 1 cannot be read: ./blob/x")


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b'{"name":\n "\xff"}', b"\x00\x01\x02", b"[]", b"null"])
def test_a_file_that_is_not_valid_json_is_an_error(tmp_path: Path, content: bytes) -> None:
    assert list(failed(write(tmp_path, content))) == ["definitions/scan/scan_h8.json", "workloads/scan/scan_h8.jsonl"]


BENCH = """
import sys
def cli():
    assert sys.argv[1] == "validate" and "--disable-gpu" in sys.argv
    print({output!r})
"""


@pytest.mark.parametrize(
    ("output", "status"),
    [
        ("5 definitions: 5 ok, 0 warning, 0 error", "pass"),
        ("5 definitions: 4 ok, 1 warning, 0 error", "warn"),
        ("5 definitions: 3 ok, 1 warning, 1 error", "fail"),
        ("nothing that is known", "skip"),
    ],
)
def test_flashinfer_bench_gives_its_verdict_where_it_can(
    tmp_path: Path, make_environment: Callable[..., conftest.Environment], output: str, status: str
) -> None:
    environment = probe(make_environment("verified").python)
    assert "flashinfer-bench" not in checks(write(tmp_path / "trace"), environment)
    package = environment.purelib / "flashinfer_bench"
    (package / "cli").mkdir(parents=True)
    (package / "cli/main.py").write_text(BENCH.format(output=output))
    put(environment, "flashinfer-bench", "1")
    assert checks(tmp_path / "trace", environment)["flashinfer-bench"].status == status
