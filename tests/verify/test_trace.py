"""What `verify` says of trace data: the project's own, damaged, and hostile."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.models import Check
from tasks.verify.trace import read_trace
from tests.conftest import ROOT

REFERENCE = "import torch\n\ndef run(x, n):\n    return x.cumsum(0)[:n]\n"
Json = dict[str, Any]


def definition() -> Json:
    """A sound definition with a variable and a constant axis and a scalar."""
    return {
        "name": "scan_h8",
        "op_type": "scan",
        "axes": {"rows": {"type": "var"}, "h": {"type": "const", "value": 8}},
        "inputs": {"x": {"shape": ["rows", "h"], "dtype": "float32"}, "n": {"shape": None, "dtype": "int32"}},
        "outputs": {"y": {"shape": ["rows", "h"], "dtype": "float32"}},
        "constraints": ["rows >= 1", "rows == x.shape[0]", "max(rows, h) <= 4096"],
        "reference": REFERENCE,
    }


def workload() -> Json:
    """A sound workload of it."""
    inputs = {"x": {"type": "random"}, "n": {"type": "scalar", "value": 3}}
    return {"definition": "scan_h8", "workload": {"axes": {"rows": 4}, "inputs": inputs, "uuid": "a"}}


def write(folder: Path, what: Json | bytes | None = None, lines: bytes | None = None) -> Path:
    """A trace folder with one definition, its workload and its reference test. Returns `folder`."""
    what = definition() if what is None else what
    files = {
        "definitions/scan/scan_h8.json": what if isinstance(what, bytes) else json.dumps(what, indent=1).encode(),
        "workloads/scan/scan_h8.jsonl": json.dumps(workload()).encode() + b"\n" if lines is None else lines,
        "tests/references/test_scan_h8.py": b"def test_nothing(): ...\n",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def failed(folder: Path) -> dict[str, Check]:
    """The failed checks but the summaries, by the file that they name. Each says what is wrong and what to do."""
    checks = [check for check in read_trace(folder).checks if check.status != "pass"]
    assert all(check.name.startswith("trace: ") and check.status == "fail" and check.hint for check in checks)
    assert all(check.detail.isprintable() and check.name.isprintable() for check in checks)
    return {check.name.removeprefix("trace: "): check for check in checks if "/" in check.name}


def test_the_trace_data_of_this_project_is_sound() -> None:
    trace = read_trace(ROOT / "flashinfer_trace")
    assert [check.name for check in trace.checks if check.status != "pass"] == []
    assert set(trace.op_types) >= {"gemm", "gqa_paged", "mla_paged", "moe", "rmsnorm"}
    assert trace.definitions == trace.reference_tests == sum(trace.op_types.values())
    assert list(trace.op_types) == sorted(trace.op_types)


def test_page_tables_that_workloads_name_are_there() -> None:
    trace = ROOT / "flashinfer_trace"
    named = {
        path for file in trace.glob("workloads/*/*.jsonl") for path in re.findall(r'"path": "(.+?)"', file.read_text())
    }
    assert named == {str(file.relative_to(trace)) for file in trace.glob("blob/**/*.safetensors")}


def test_sound_data_passes_with_one_check_of_a_kind(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path))
    assert [(check.name, check.status) for check in trace.checks] == [
        ("trace: definitions", "pass"), ("trace: reference tests", "pass"), ("trace: workloads", "pass"),
    ]  # fmt: skip
    assert (trace.op_types, trace.definitions, trace.reference_tests) == ({"scan": 1}, 1, 1)


@pytest.mark.parametrize("missing", ["", "definitions", "tests/references"])
def test_folders_that_are_missing_or_empty_fail(tmp_path: Path, missing: str) -> None:
    assert [check.status for check in read_trace(tmp_path / "nowhere").checks] == ["fail", "fail", "skip"]
    write(tmp_path)
    for file in [file for file in (tmp_path / missing).rglob("*.*") if file.is_file()]:
        file.unlink()
    assert {check.status for check in read_trace(tmp_path).checks} >= {"fail"}


def test_a_definition_without_its_reference_test_fails(tmp_path: Path) -> None:
    (write(tmp_path) / "tests/references/test_scan_h8.py").rename(tmp_path / "tests/references/test_other.py")
    assert list(failed(tmp_path)) == ["tests/references/test_scan_h8.py"]


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


@pytest.mark.parametrize(
    ("apply", "detail"),
    [
        (change("reference"), "lacks reference"),
        (change("axes", to=[]), "axes must be object"),
        (change("axes", "h", "value"), "axes.h lacks value"),
        (change("axes", "h", "value", to=-1), "axes.h.value must be bigger than or equal to 0"),
        (change("axes", "rows", "type", to="dynamic"), "axes.rows.type must be one of"),
        (change("inputs", "x", "dtype", to="float128"), "inputs.x.dtype must be one of"),
        (change("inputs", "x", "shape", to=["cols"]), "inputs.x.shape: no axis cols"),
        (change("outputs", "y", "shape", to=["rows", "width"]), "outputs.y.shape: no axis width"),
        (change("outputs", to={}), "outputs must contain at least 1 properties"),
        (change("constraints", to=["rows == batch"]), "constraints.0: no axis batch"),
        (change("constraints", to=["h == 8", "rows =="]), "constraints.1: rows == is no expression"),
        (change("name", to="scan_h9"), "name: scan_h9 is not the name of the file"),
        (change("op_type", to="sort"), "op_type: sort is not the name of the folder"),
        (change("reference", to="def run(x, n):\n  return x +\n"), "reference: line 2"),
        (change("reference", to="def go(x, n): ...\n"), "reference: no global function run"),
        (change("reference", to="class A:\n def run(x, n): ...\n"), "reference: no global function run"),
        (change("reference", to="\ndef run(n, x): ...\n"), "reference: line 2: the parameters of run"),
        (change("reference", to="def run(x, n, *more): ...\n"), "reference: line 1: the parameters of run"),
        (change("reference", to="import torch.nn.functional as F\n" + REFERENCE), "line 1: uses torch.nn.functional"),
        (change("reference", to="from torch import nn\ndef run(x, n):\n  nn.functional.relu(x)\n"), "line 3: uses"),
        (change("reference", to="from torch.nn import functional\n" + REFERENCE), "line 1: uses torch.nn.functional"),
        (change("reference", to="x = " + "-" * 50_000 + "1\n"), "reference: does not compile"),
        (change("reference", to="x = " + "(" * 50_000), "reference: "),
        (change("reference", to="#" * 100_000), "reference: 100,000 characters"),
    ],
)  # fmt: skip
def test_a_broken_definition_is_named_with_its_field(
    tmp_path: Path, apply: Callable[[Json], None], detail: str
) -> None:
    value = definition()
    apply(value)
    found = failed(write(tmp_path, value))
    assert list(found) == ["definitions/scan/scan_h8.json"]
    assert detail in found["definitions/scan/scan_h8.json"].detail


def test_torch_functional_is_not_torch_nn_functional(tmp_path: Path) -> None:
    reference = "import torch\n\ndef run(x, n):\n    return torch.functional.einsum('ij->j', x)  # not nn.functional\n"
    assert not failed(write(tmp_path, definition() | {"reference": reference}))


@pytest.mark.parametrize(
    ("apply", "detail"),
    [
        (change("definition", to="scan_h9"), "definition: scan_h9 is not the name of the file"),
        (change("workload"), "workload: must be an object"),
        (change("workload", "uuid"), "workload.uuid: must be a text"),
        (change("workload", "axes", "rows"), "workload.axes: rows is not bound"),
        (change("workload", "axes", "rows", to=2.5), "workload.axes.rows: must be a whole number"),
        (change("workload", "axes", "rows", to=True), "workload.axes.rows: must be a whole number"),
        (change("workload", "axes", "cols", to=1), "workload.axes: the definition has no cols"),
        (change("workload", "axes", "h", to=9), "workload.axes.h: the definition has 8"),
        (change("workload", "inputs", "x"), "workload.inputs: lacks x"),
        (change("workload", "inputs", "z", to={"type": "random"}), "workload.inputs: the definition has no z"),
        (change("workload", "inputs", "n", to={"type": "scalar"}), "workload.inputs.n: must be"),
        (change("workload", "inputs", "n", to={"type": ["random"]}), "workload.inputs.n: must be"),
        (change("workload", "inputs", "x", to={"type": "safetensors", "path": "a"}), "workload.inputs.x: must be"),
    ],
)
def test_a_broken_workload_is_named_with_its_line_and_field(
    tmp_path: Path, apply: Callable[[Json], None], detail: str
) -> None:
    second = workload()
    second["workload"]["uuid"] = "b"
    apply(second)
    found = failed(write(tmp_path, lines=f"{json.dumps(workload())}\n\n{json.dumps(second)}\n".encode()))
    assert list(found) == ["workloads/scan/scan_h8.jsonl"]
    assert found["workloads/scan/scan_h8.jsonl"].detail.startswith(f"line 3: {detail}")


def test_workloads_need_their_definition_and_differ(tmp_path: Path) -> None:
    line = json.dumps(workload()).encode() + b"\n"
    assert "uuid: given twice" in failed(write(tmp_path, lines=line * 2))["workloads/scan/scan_h8.jsonl"].detail
    assert "holds no workload" in failed(write(tmp_path, lines=b"\n"))["workloads/scan/scan_h8.jsonl"].detail
    (write(tmp_path) / "workloads/scan/other.jsonl").write_bytes(line)
    assert "no definition" in failed(tmp_path)["workloads/scan/other.jsonl"].detail


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b"", "line 1 column 1: no JSON"),
        (b'{"name": "NaN",\n "axes": {"h": NaN}}', "line 2: NaN is no JSON value"),
        (b'{"a": "\\"Infinity", "b":\n\n-Infinity}', "line 3: -Infinity is no JSON value"),
        (b'{"name": 1e999}', "lacks op_type"),
        (b'{"name":' + b"9" * 10_000 + b"}", "line 1: a number is too long"),
        (b'{"name": "a",\n "name": "b"}', "name: given twice"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 40_000 + b"1" + b"}" * 40_000, "nested too deep"),
        (b'{"name":\n "\xff"}', "line 2: no UTF-8, byte 0xff"),
        (b"\xef\xbb\xbf{}", "line 1 column 1: no JSON"),
        (b"\x00\x01\x02", "line 1 column 1: no JSON"),
        (b"[]", "the object must be object"),
        (b'{"name": "\\u001b[31m\\ud800", "op_type": 1}', "lacks axes"),
    ],
)
def test_a_hostile_file_is_a_failed_check(tmp_path: Path, content: bytes, detail: str) -> None:
    write(tmp_path, content, lines=b"\n" + content.replace(b"\n", b" "))
    found = failed(tmp_path)
    assert list(found) == ["definitions/scan/scan_h8.json", "workloads/scan/scan_h8.jsonl"]
    assert detail in found["definitions/scan/scan_h8.json"].detail
    assert found["workloads/scan/scan_h8.jsonl"].detail.startswith(("line 2", "holds no workload"))


def test_control_characters_of_the_data_reach_nobody(tmp_path: Path) -> None:
    found = failed(write(tmp_path, definition() | {"name": "\x1b[31m\ud800"}))
    assert "\\x1b[31m\\ud800" in found["definitions/scan/scan_h8.json"].detail


def test_what_is_no_small_regular_file_is_not_read(tmp_path: Path) -> None:
    folder = write(tmp_path) / "definitions/scan"
    with (folder / "huge.json").open("wb") as stream:
        stream.truncate(100 * 1024 * 1024)
    with (tmp_path / "workloads/scan/huge.jsonl").open("wb") as stream:
        stream.truncate(100 * 1024 * 1024)
    os.mkfifo(folder / "pipe.json")
    (folder / "device.json").symlink_to("/dev/zero")
    (folder / "loop.json").symlink_to("loop.json")
    (folder / "folder.json").mkdir()
    (tmp_path / "definitions/around").symlink_to("../definitions")
    details = {Path(name).name: check.detail for name, check in failed(tmp_path).items() if "tests/" not in name}
    assert "104,857,600 bytes" in details["huge.json"]
    assert "104,857,600 bytes" in details["huge.jsonl"]
    assert details["pipe.json"] == details["device.json"] == details["folder.json"] == "no regular file"
    assert "symbolic links" in details["loop.json"]


def test_a_definition_belongs_into_one_folder(tmp_path: Path) -> None:
    text = (write(tmp_path) / "definitions/scan/scan_h8.json").read_text()
    (tmp_path / "definitions/stray.json").write_text(text)
    (tmp_path / "definitions/sort").mkdir()
    (tmp_path / "definitions/sort/scan_h8.json").write_text(text)
    found = failed(tmp_path)
    assert "belongs into the folder" in found["definitions/stray.json"].detail
    assert "taken by definitions/scan/scan_h8.json" in found["definitions/sort/scan_h8.json"].detail


def test_nothing_of_the_data_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    touch = f"open({str(mark)!r}, 'w')"
    reference = f"{touch}\n\ndef run(x, n, _={touch}): ...\n"
    value = definition() | {"reference": reference, "constraints": [f"len({touch}.name)"]}
    write(tmp_path, value)
    (tmp_path / "tests/references/conftest.py").write_text(touch)
    before = sorted(tmp_path.rglob("*"))
    read_trace(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True)
    | st.text()
    | st.sampled_from(["var", "const"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("type"), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(field=st.sampled_from(sorted(definition())), value=VALUES, content=st.binary(max_size=50))
def test_whatever_the_files_hold_is_reported(
    tmp_path_factory: pytest.TempPathFactory, field: str, value: object, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("trace")
    read_trace(
        write(folder, definition() | {field: value}, lines=json.dumps(workload() | {"workload": value}).encode())
    )
    assert failed(write(folder, content, lines=content))
