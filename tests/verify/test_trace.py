"""What `verify` says about trace data: the project's own, damaged, and downloaded without Git LFS."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.models import Check
from tasks.verify.trace import LFS_POINTER, read_trace
from tests.conftest import ROOT

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
        "constraints": ["rows >= 1", "rows == x.shape[0]", "max(rows, h) <= 4096"],
        "reference": REFERENCE,
    }


def workload(uuid: str = "a") -> Json:
    """A valid workload of it, with a blob."""
    inputs = {"x": {"type": "safetensors", "path": "./blob/x", "tensor_key": "x"}, "n": {"type": "scalar", "value": 3}}
    content = {"axes": {"rows": 4}, "inputs": inputs, "uuid": uuid}
    return {"definition": "scan_h8", "workload": content, "solution": None, "evaluation": None}


def blob(header: bytes) -> bytes:
    """A safetensors file without data."""
    return len(header).to_bytes(8, "little") + header + b"data"


def write(path: Path, content: Json | bytes | None = None, lines: bytes | None = None) -> Path:
    """Trace data with one definition, its workload, its blob and its reference test. Returns `path`."""
    content = definition() if content is None else content
    files = {
        "definitions/scan/scan_h8.json": content if isinstance(content, bytes) else json.dumps(content).encode(),
        "workloads/scan/scan_h8.jsonl": json.dumps(workload()).encode() + b"\n" if lines is None else lines,
        "tests/references/test_scan_h8.py": b"def test_nothing(): ...\n",
        "blob/x": blob(b'{"x": {"dtype": "F32", "shape": [4, 8], "data_offsets": [0, 128]}}'),
    }
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def checks(path: Path) -> dict[str, Check]:
    found = {check.name.removeprefix("trace: "): check for check in read_trace(path).checks}
    assert all(check.name.isprintable() and check.detail.isprintable() for check in found.values())
    return found


def failed(path: Path) -> dict[str, str]:
    """The detail of each file with errors; all other checks pass, but that of its kind."""
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


def test_the_trace_data_of_this_project_is_valid() -> None:
    trace = read_trace(ROOT / "flashinfer_trace")
    assert [check.name for check in trace.checks if check.status != "pass"] == []
    assert set(trace.op_types) >= {"gemm", "gqa_paged", "mla_paged", "moe", "rmsnorm"}
    assert trace.definitions == trace.reference_tests == sum(trace.op_types.values())
    assert list(trace.op_types) == sorted(trace.op_types)


def test_every_blob_of_this_project_belongs_to_a_workload() -> None:
    path = ROOT / "flashinfer_trace"
    named = "".join(file.read_text() for file in path.glob("workloads/*/*.jsonl"))
    assert [file for file in path.glob("blob/**/*.safetensors") if str(file.relative_to(path)) not in named] == []


def test_valid_data_passes_with_one_check_of_each_kind(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path))
    assert [(check.name, check.status) for check in trace.checks] == [
        ("trace: definitions", "pass"), ("trace: reference tests", "pass"), ("trace: workloads", "pass"),
    ]  # fmt: skip
    assert (trace.op_types, trace.definitions, trace.reference_tests) == ({"scan": 1}, 1, 1)


def test_a_directory_without_definitions_fails(tmp_path: Path) -> None:
    assert [check.status for check in read_trace(tmp_path / "nowhere").checks] == ["fail", "skip", "skip"]
    shutil.rmtree(write(tmp_path) / "definitions")
    assert checks(tmp_path)["definitions"].status == "fail"


def test_a_definition_without_a_reference_test_is_a_warning(tmp_path: Path) -> None:
    (write(tmp_path) / "tests/references/test_scan_h8.py").write_bytes(b"")
    check = checks(tmp_path)["reference tests"]
    assert (check.status, check.hint) == ("warn", "add tests/references/test_scan_h8.py")


@pytest.mark.parametrize(
    ("apply", "detail"),
    [
        (change("reference"), "the object must contain"),
        (change("axes", to=[]), "axes must be object"),
        (change("axes", "h", "value"), "axes.h must contain"),
        (change("axes", "h", "value", to=-1), "axes.h.value must be bigger than or equal to 0"),
        (change("axes", "rows", "type", to="dynamic"), "axes.rows.type must be one of"),
        (change("inputs", "x", "dtype", to="float128"), "inputs.x.dtype must be one of"),
        (change("inputs", "x", "shape", to=["cols"]), "inputs.x.shape: unknown axis cols"),
        (change("outputs", to={}), "outputs must contain at least 1 properties"),
        (change("outputs", "x", to={"shape": None, "dtype": "bool"}), "outputs: x is also an input"),
        (change("constraints", to=["h == 8", "rows =="]), "constraints.1: invalid syntax (constraints.1, line 1)"),
        (change("name", to="scan_h9"), "name: scan_h9, but the path says scan_h8"),
        (change("name", to="\x1b[31m\ud800"), "\\x1b[31m\\ud800"),
        (change("op_type", to="sort"), "op_type: sort, but the path says scan"),
        (change("reference", to="def run(x, n):\n  return x +\n"), "reference: invalid syntax (reference, line 2)"),
        (change("reference", to="x = " + "-" * 50_000 + "1\n"), "reference: "),
        (change("reference", to="class A:\n def run(x, n): ...\n"), "reference: no global function run"),
        (change("reference", to="\ndef run(n, x): ...\n"), "the parameters of run are not the inputs (x, n)"),
        (change("reference", to="def run(x, n, *more): ...\n"), "the parameters of run are not the inputs (x, n)"),
    ],
)  # fmt: skip
def test_an_error_in_a_definition_is_named_with_its_field(
    tmp_path: Path, apply: Callable[[Json], None], detail: str
) -> None:
    value = definition()
    apply(value)
    assert detail in failed(write(tmp_path, value, lines=b""))["definitions/scan/scan_h8.json"]


@pytest.mark.parametrize(
    ("source", "warns"),
    [
        ("import torch.nn.functional as F\n", True),
        ("from torch.nn import functional\n", True),
        ("import torch.nn as nn\nsilu = nn.functional.silu\n", True),
        ("import torch.functional  # not nn.functional\n", False),
    ],
)
def test_torch_nn_functional_in_a_reference_is_a_warning(tmp_path: Path, source: str, warns: bool) -> None:
    found = checks(write(tmp_path, definition() | {"reference": source + REFERENCE}))
    assert ("references" in found) == warns
    assert not failed(tmp_path)


@pytest.mark.parametrize(
    ("apply", "detail"),
    [
        (change("definition", to="scan_h9"), "definition: scan_h9, but the path says scan_h8"),
        (change("workload"), "the object must contain"),
        (change("workload", "uuid"), "workload must contain"),
        (change("workload", "uuid", to="a"), "workload.uuid: used by an earlier line"),
        (change("workload", "axes", "rows"), "workload.axes: must be rows, got "),
        (change("workload", "axes", "h", to=8), "workload.axes: must be rows, got h, rows"),
        (change("workload", "axes", "rows", to=2.5), "workload.axes.rows must be integer"),
        (change("workload", "axes", "rows", to=True), "workload.axes.rows must be integer"),
        (change("workload", "axes", "rows", to=0), "workload.axes.rows must be bigger than or equal to 1"),
        (change("workload", "axes", "rows", to=5), "workload.inputs.x: expected [5, 8], got [4, 8] in ./blob/x"),
        (change("workload", "inputs", "x"), "workload.inputs: must be n, x, got n"),
        (change("workload", "inputs", "x", "path"), "workload.inputs.x must contain"),
        (change("workload", "inputs", "x", "path", to="blob/none"), "blob/none is missing"),
        (change("workload", "inputs", "x", "tensor_key", to="y"), "workload.inputs.x: expected [4, 8], got None"),
        (change("workload", "inputs", "n", to={"type": "scalar"}), "workload.inputs.n must contain"),
        (change("workload", "inputs", "n", to={"type": "random"}), "workload.inputs.n: random, but the shape is None"),
        (change("workload", "inputs", "n", to={"type": ["random"]}), "workload.inputs.n.type must be one of"),
        (change("solution", to="mine"), "solution must be null"),
    ],
)
def test_an_error_in_a_workload_is_named_with_its_line_and_field(
    tmp_path: Path, apply: Callable[[Json], None], detail: str
) -> None:
    second = workload("b")
    apply(second)
    found = failed(write(tmp_path, lines=f"{json.dumps(workload())}\n\n{json.dumps(second)}\n".encode()))
    assert list(found) == ["workloads/scan/scan_h8.jsonl"]
    assert found["workloads/scan/scan_h8.jsonl"].startswith("line 3: ")
    assert detail in found["workloads/scan/scan_h8.jsonl"]


@pytest.mark.parametrize("content", [b"", b"short", blob(b"[]"), blob(b'{"x": 1}'), blob(b"{"), b"\xff" * 20])
def test_a_blob_that_is_no_safetensors_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    (write(tmp_path) / "blob/x").write_bytes(content)
    assert failed(tmp_path)["workloads/scan/scan_h8.jsonl"].startswith("line 1: ")


def test_git_lfs_pointers_are_counted_and_not_taken_for_files(tmp_path: Path) -> None:
    pointer = LFS_POINTER + b"\noid sha256:" + b"0" * 64 + b"\nsize 4096\n"
    write(tmp_path, lines=f"{json.dumps(workload('a'))}\n{json.dumps(workload('b'))}\n".encode())
    for name in ("blob/x", "definitions/scan/scan_h16.json", "traces/baseline/scan/scan_h8.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(pointer)
    found = checks(tmp_path)
    assert {name: check.status for name, check in found.items()} == {
        "definitions": "pass", "reference tests": "pass", "workloads": "pass", "Git LFS": "skip",
    }  # fmt: skip
    assert found["Git LFS"].detail.startswith("3 of 5 files are Git LFS pointers")
    assert found["Git LFS"].command == f"git -C {tmp_path} lfs pull"


@pytest.mark.parametrize(
    "content",
    [b"", b"[" * 100_000, b'{"name":\n "\xff"}', b"\x00\x01\x02", b'{"a":' + b"9" * 10_000 + b"}", b"[]", b"null"],
)
def test_a_file_that_is_not_valid_json_is_an_error(tmp_path: Path, content: bytes) -> None:
    assert list(failed(write(tmp_path, content))) == ["definitions/scan/scan_h8.json", "workloads/scan/scan_h8.jsonl"]
    if content:
        assert list(failed(write(tmp_path, lines=content))) == ["workloads/scan/scan_h8.jsonl"]


def test_files_in_the_wrong_directory_are_errors(tmp_path: Path) -> None:
    text = (write(tmp_path) / "definitions/scan/scan_h8.json").read_text()
    for name in ("definitions/stray.json", "definitions/sort/scan_h8.json", "workloads/scan/other.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "definitions/scan/directory.json").mkdir()
    found = failed(tmp_path)
    assert "name: scan_h8, but the path says stray" in found["definitions/stray.json"]
    assert "already the name of another definition" in found["definitions/sort/scan_h8.json"]
    assert "definitions/scan/other.json is missing" in found["workloads/scan/other.jsonl"]
    assert "Is a directory" in found["definitions/scan/directory.json"]


def test_nothing_of_the_data_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    touch = f"open({str(mark)!r}, 'w')"
    reference = f"{touch}\n\ndef run(x, n, _={touch}): ...\n"
    write(tmp_path, definition() | {"reference": reference, "constraints": [f"len({touch}.name)"]})
    (tmp_path / "tests/references/conftest.py").write_text(touch)
    read_trace(tmp_path)
    assert not mark.exists()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["var", "const", "scalar"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("type"), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(field=st.sampled_from(sorted(definition())), value=VALUES, content=st.binary(max_size=50))
def test_whatever_the_files_hold_is_reported(
    tmp_path_factory: pytest.TempPathFactory, field: str, value: object, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("trace")
    lines = json.dumps(workload() | {"workload": value}).encode()
    read_trace(write(path, definition() | {field: value}, lines=lines))
    (path / "blob/x").write_bytes(content)
    read_trace(path)
    assert {check.status for check in read_trace(write(path, content, lines=content)).checks} != {"pass"}
