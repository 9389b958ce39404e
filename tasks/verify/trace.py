"""Checks a directory of trace data against the FlashInfer Trace format, offline and without running any of it.

Two JSON Schemas (draft 7) say what a definition and a workload look like; the functions below check what they cannot.
"""

from __future__ import annotations

import ast
import json
import shlex
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import fastjsonschema

from ..errors import SourcesError, counted, examples
from ..models import Check, Status, Trace

LFS = b"version https://git-lfs.github.com/spec/v1"  # the beginning of a file that Git LFS has not downloaded
POINTER = 1024  # bytes that no such file exceeds
Json = dict[str, Any]


def read_trace(path: Path) -> Trace:
    """Check definitions, workloads, the blobs that they name, and that there are reference tests: one check of each
    kind, and one for each file with an error. Nothing in the data raises."""
    definitions, blobs = dict[str, Json](), set[str]()
    checks = _files(path, "definitions", lambda data: definitions.update(_definition(data)))
    checks += _files(path, "workloads", lambda data: blobs.update(_workloads(data, definitions)))
    op_types = dict(sorted(Counter(definition["op_type"] for definition in definitions.values()).items()))
    tests = {file.stem.removeprefix("test_") for file in path.glob("tests/references/test_*.py") if file.stat().st_size}
    untested = [name for name, value in definitions.items() if not tests & {name, value["op_type"]}]
    tested = Check("trace: reference tests", "pass", counted(len(tests), "file"))
    if untested:
        hint = f"add tests/references/test_{untested[0]}.py"
        tested = Check(tested.name, "warn", f"none for {examples(untested)}", hint)
    checks += [tested, _check_blobs(path, sorted(blobs))]
    return Trace(path, op_types, len(definitions), len(tests), tuple(checks))


def _files(path: Path, kind: str, read: Callable[[bytes], None]) -> list[Check]:
    """Read every file of a kind of data: the check of all, and one for each with an error."""
    files, wrong = sorted(path.glob(f"{kind}/**/*.json*")), list[Check]()
    for file in files:
        name = f"trace: {file.relative_to(path)}"
        try:
            read(file.read_bytes())
        except (SourcesError, OSError) as error:
            what, hint = getattr(error, "what", str(error)), getattr(error, "hint", "")
            wrong.append(Check(name, "fail", what, hint or "fix or remove the file"))
    if not files and kind == "definitions":
        hint = "set sources.trace to the directory of the trace data, or leave it empty if there is none"
        return [Check("trace: definitions", "fail", f"no definitions in {path / kind}", hint)]
    detail = counted(len(files), "file") + (f", {len(wrong)} with errors" if wrong else "")
    status: Status = "fail" if wrong else "pass" if files else "skip"
    return [Check(f"trace: {kind}", status, detail, "fix the files below" if wrong else ""), *wrong]


def _check_blobs(path: Path, blobs: Sequence[str]) -> Check:
    """Whether the blobs exist; pointers of Git LFS are counted."""
    missing = [blob for blob in blobs if not (path / blob).is_file()]
    if missing:
        hint = "restore the files, or remove the workloads that name them"
        return Check("trace: blobs", "fail", f"{len(missing)} of {len(blobs)} are missing: {examples(missing)}", hint)
    small = [blob for blob in blobs if (path / blob).stat().st_size < POINTER]
    if pointers := [blob for blob in small if (path / blob).read_bytes().startswith(LFS)]:
        pull = shlex.join(["git", "-C", str(path), "lfs", "pull"])
        return Check("trace: blobs", "skip", f"{len(pointers)} of {len(blobs)} are Git LFS pointers", "", pull)
    return Check("trace: blobs", "pass" if blobs else "skip", counted(len(blobs), "file"))


@cache
def _schema(name: str) -> Any:
    file = Path(__file__).parent / "schemas" / f"{name}.schema.json"
    return fastjsonschema.compile(json.loads(file.read_bytes()))


def _valid(schema: str, data: bytes, where: str = "") -> Any:
    """The value of a JSON text that `schemas/SCHEMA.schema.json` allows; SourcesError names the field and the rule."""
    try:
        return _schema(schema)(json.loads(data))
    except fastjsonschema.JsonSchemaValueException as error:
        field = ".".join(map(str, error.path[1:])) or "the object"
        hint = "replace `unknown` by the dtype of the tensor" if error.value == "unknown" else ""
        raise SourcesError(where + field + error.message.removeprefix(error.name or ""), hint) from None
    except (ValueError, RecursionError) as error:
        raise SourcesError(f"{where}not valid JSON: {error}") from None


def _definition(data: bytes) -> dict[str, Json]:
    value: Json = _valid("definition", data)
    if both := value["inputs"].keys() & value["outputs"].keys():
        raise SourcesError(f"outputs: {min(both)} is also an input", f"remove {min(both)} from the outputs")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape, for example
            body = ast.parse(value["reference"], "reference").body
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise SourcesError(f"reference: {error or 'nested too deeply'}") from None
    functions = {node.name: node.args for node in body if isinstance(node, ast.FunctionDef)}
    if not (run := functions.get("run")):
        raise SourcesError("reference: no global function run", f"rename {[*functions, 'a function'][0]} to run")
    if run.vararg or [argument.arg for argument in (*run.posonlyargs, *run.args)] != [*value["inputs"]]:
        hint = f"the parameters must be {', '.join(value['inputs'])}"
        raise SourcesError("reference: the parameters of run are not the inputs, in their order", hint)
    return {value["name"]: value}


def _workloads(data: bytes, definitions: Mapping[str, Json]) -> Iterator[str]:
    """The blobs that workloads name. Raises SourcesError where one does not bind its definition's axes and inputs."""
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        where = f"line {number}: "
        value = _valid("workload", line, where)
        if not (definition := definitions.get(value["definition"])):
            raise SourcesError(f"{where}definition: {value['definition']} is missing or has errors")
        axes, inputs = value["workload"]["axes"], value["workload"]["inputs"]
        variable = {name for name, axis in definition["axes"].items() if axis["type"] == "var"}
        for kind, given, expected in (("axes", axes, variable), ("inputs", inputs, definition["inputs"].keys())):
            if given.keys() != expected:
                must = f"must be {', '.join(sorted(expected))}, got {', '.join(sorted(given))}"
                raise SourcesError(f"{where}workload.{kind}: {must}")
        yield from (source["path"] for source in inputs.values() if source["type"] == "safetensors")
