"""Checks a directory of trace data against the FlashInfer Trace format, offline and without running any of it.

Two JSON Schemas (draft 7) say what a definition and a workload look like; the functions below check what they cannot.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from ..models import Check, Trace

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"  # the beginning of a file that Git LFS has not downloaded
DATA = ("definitions", "workloads", "blob", "solutions", "traces")
MAX_POINTER = 1024  # bytes, by the specification of Git LFS
UNREADABLE = (OSError, ValueError, SyntaxError, RecursionError, MemoryError)  # what reading and parsing files raises
FUNCTIONAL = re.compile(r"^[^#\n]*\bnn(\.| import )functional\b", re.MULTILINE)
Json = dict[str, Any]


def read_trace(path: Path) -> Trace:
    """Check the trace data in `path`: one check of each kind, and one for each file with an error.

    Only `definitions/`, `workloads/`, `blob/` and `tests/references/` are checked. Nothing in the data raises.
    """
    files = [file for kind in DATA for file in path.glob(f"{kind}/**/*") if file.is_file()]
    pointers = set(filter(_is_pointer, files))
    definitions, checks = _read_definitions(path, pointers)
    tests = {file.stem for file in path.glob("tests/references/test_*.py") if file.is_file() and file.stat().st_size}
    names = {file.stem for file in path.glob("definitions/**/*.json") if file not in pointers}
    if untested := sorted(name for name in names if f"test_{name}" not in tests):
        detail, hint = f"{len(tests)}; none for {', '.join(untested)}", f"add tests/references/test_{untested[0]}.py"
        checks.append(Check("trace: reference tests", "warn", detail, hint))
    else:
        checks += _summary("reference tests", len(tests), "every definition has one", [])
    checks += _check_workloads(path, definitions, pointers)
    if pointers:
        detail = f"{len(pointers)} of {len(files)} files are Git LFS pointers; what they name was not checked"
        pull = shlex.join(["git", "-C", str(path), "lfs", "pull"])
        checks.append(Check("trace: Git LFS", "skip", detail, "download the files", pull))
    return Trace(path, _op_types(definitions), len(definitions), len(tests), tuple(checks))


def _read_definitions(path: Path, pointers: set[Path]) -> tuple[dict[str, Json], list[Check]]:
    """The valid definitions by name, and the checks of all."""
    definitions: dict[str, Json] = {}
    errors: list[Check] = []
    for file in sorted(path.glob("definitions/**/*.json")):
        if file not in pointers:
            with _reported(path, file, errors):
                if file.stem in definitions:
                    raise ValueError(f"name: {file.stem} is already the name of another definition")
                definitions[file.stem] = _definition(file)
    if not definitions and not errors and not pointers:
        hint = "set sources.trace to the directory of the trace data, or leave it empty if there is none"
        return {}, [Check("trace: definitions", "fail", f"no definitions in {path / 'definitions'}", hint)]
    counts = ", ".join(f"{op_type} {count}" for op_type, count in _op_types(definitions).items())
    checks = _summary("definitions", len(definitions), counts, errors)
    if functional := [name for name, each in definitions.items() if FUNCTIONAL.search(each["reference"])]:
        detail = f"torch.nn.functional in {', '.join(functional)}"
        checks.append(Check("trace: references", "warn", detail, "write out the steps of a reference"))
    return definitions, checks


def _op_types(definitions: Mapping[str, Json]) -> dict[str, int]:
    return dict(sorted(Counter(each["op_type"] for each in definitions.values()).items()))


def _check_workloads(path: Path, definitions: Mapping[str, Json], pointers: set[Path]) -> list[Check]:
    count, blobs, errors = 0, set[Path](), list[Check]()
    for file in sorted(path.glob("workloads/**/*.jsonl")):
        if file not in pointers:
            with _reported(path, file, errors):
                count += _workloads(path, file, definitions.get(file.stem), pointers, blobs)
    return _summary("workloads", count, f"all axes and inputs are bound, {len(blobs)} blobs", errors)


def _summary(kind: str, valid: int, detail: str, errors: list[Check]) -> list[Check]:
    """The check of a `kind` of data, and those of its files with errors."""
    if errors:
        return [Check(f"trace: {kind}", "fail", f"{valid} valid, {len(errors)} with errors"), *errors]
    if not valid:
        return [Check(f"trace: {kind}", "skip", "none found")]
    return [Check(f"trace: {kind}", "pass", f"{valid} ({detail})")]


@contextmanager
def _reported(path: Path, file: Path, errors: list[Check]) -> Iterator[None]:
    """Turn what is wrong with `file` into a failed check among `errors`, in printable characters."""
    try:
        yield
    except UNREADABLE as error:
        what = str(error.strerror if isinstance(error, OSError) else error) or type(error).__name__
        name, detail = (text if text.isprintable() else ascii(text) for text in (str(file.relative_to(path)), what))
        errors.append(Check(f"trace: {name}", "fail", detail, "fix or remove the file"))


def _is_pointer(file: Path) -> bool:
    try:
        return file.stat().st_size < MAX_POINTER and file.read_bytes().startswith(LFS_POINTER)
    except OSError:  # reported where the file is checked
        return False


@cache
def _schema(name: str) -> Any:
    import fastjsonschema

    schema = Path(__file__).parent / "schemas" / f"{name}.schema.json"
    return fastjsonschema.compile(json.loads(schema.read_text("utf-8")))


def _valid(schema: str, data: bytes) -> Any:
    """The value of a JSON text that `schemas/SCHEMA.schema.json` allows, or ValueError with the field and the rule."""
    from fastjsonschema import JsonSchemaValueException

    try:
        value = json.loads(data)
        _schema(schema)(value)
    except JsonSchemaValueException as error:
        field = ".".join(map(str, error.path[1:])) or "the object"
        raise ValueError(field + error.message.removeprefix(error.name or "")) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON: {error}") from None
    return value


def _definition(file: Path) -> Json:
    value: Json = _valid("definition", file.read_bytes())
    for field, expected in (("name", file.stem), ("op_type", file.parent.name)):
        if value[field] != expected:
            raise ValueError(f"{field}: {value[field]}, but the path says {expected}")
    if both := value["inputs"].keys() & value["outputs"].keys():
        raise ValueError(f"outputs: {min(both)} is also an input")
    for kind in ("inputs", "outputs"):
        for name, tensor in value[kind].items():
            if unknown := [axis for axis in tensor["shape"] or () if axis not in value["axes"]]:
                raise ValueError(f"{kind}.{name}.shape: unknown axis {unknown[0]}")
    for number, constraint in enumerate(value.get("constraints") or ()):
        _parsed(f"constraints.{number}", constraint.strip(), "eval")
    body = _parsed("reference", value["reference"], "exec").body
    runs = [node.args for node in body if isinstance(node, ast.FunctionDef) and node.name == "run"]
    if not runs:
        raise ValueError("reference: no global function run")
    if [each.arg for each in (*runs[-1].posonlyargs, *runs[-1].args)] != list(value["inputs"]) or runs[-1].vararg:
        raise ValueError(f"reference: the parameters of run are not the inputs ({', '.join(value['inputs'])})")
    return value


def _parsed(field: str, source: str, mode: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape, for example
            return ast.parse(source, field, mode)
    except UNREADABLE as error:
        raise ValueError(f"{field}: {error or 'nested too deeply'}") from None


def _workloads(path: Path, file: Path, definition: Json | None, pointers: set[Path], blobs: set[Path]) -> int:
    """The number of workloads in `file`, one JSON object on a line; adds the blobs that were checked to `blobs`."""
    if definition is None or definition["op_type"] != file.parent.name:
        raise ValueError(f"definitions/{file.parent.name}/{file.stem}.json is missing or has errors")
    seen = set[str]()
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if line.strip():
            try:
                value = _valid("workload", line)
                _workload(path, value, definition, pointers, blobs)
                if value["workload"]["uuid"] in seen:
                    raise ValueError("workload.uuid: used by an earlier line")
                seen.add(value["workload"]["uuid"])
            except UNREADABLE as error:
                raise ValueError(f"line {number}: {error}") from None
    return len(seen)


def _workload(path: Path, value: Json, definition: Json, pointers: set[Path], blobs: set[Path]) -> None:
    axes, inputs = value["workload"]["axes"], value["workload"]["inputs"]
    if value["definition"] != definition["name"]:
        raise ValueError(f"definition: {value['definition']}, but the path says {definition['name']}")
    variable = {name for name, axis in definition["axes"].items() if axis["type"] == "var"}
    for kind, given, expected in (("axes", axes, variable), ("inputs", inputs, definition["inputs"].keys())):
        if given.keys() != expected:
            raise ValueError(f"workload.{kind}: must be {', '.join(sorted(expected))}, got {', '.join(sorted(given))}")
    sizes = axes | {name: axis["value"] for name, axis in definition["axes"].items() if axis["type"] == "const"}
    for name, source in inputs.items():
        tensor = definition["inputs"][name]
        if (source["type"] == "scalar") != (tensor["shape"] is None):
            raise ValueError(f"workload.inputs.{name}: {source['type']}, but the shape is {tensor['shape']}")
        if source["type"] == "safetensors" and (blob := path / source["path"]) not in pointers:
            shape, found = [sizes[axis] for axis in tensor["shape"]], _shape(blob, source["tensor_key"])
            if found != shape:
                raise ValueError(f"workload.inputs.{name}: expected {shape}, got {found} in {source['path']}")
            blobs.add(blob)


def _shape(blob: Path, key: str) -> Any:
    """The shape of a tensor in a safetensors file: 8 bytes of length, a JSON header, then data, which is not read."""
    if not blob.is_file():
        raise ValueError(f"{blob} is missing")
    with blob.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length)) if length < blob.stat().st_size else None
    tensor = header.get(key) if isinstance(header, dict) else None
    return tensor.get("shape") if isinstance(tensor, dict) else None
