"""Checks a directory of trace data against the FlashInfer Trace format, offline and without running any of it.

Two JSON Schemas (draft 7) say what a definition and a workload look like; the functions below check what they cannot.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import fastjsonschema

from ..errors import counted, examples
from ..models import Check, Status, Trace
from ..names import shell
from ..packages import Environment
from . import machine

LFS = b"version https://git-lfs.github.com/spec/v1"  # the beginning of a file that Git LFS has not downloaded
Json = dict[str, Any]


class Data:
    """The trace data in `path`. Nothing in it raises. `definitions` and `blobs` are those that `check` has read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.definitions = dict[str, Json]()
        self.blobs = set[str]()
        files = [file for file in path.glob("tests/references/test_*.py") if file.is_file()]
        self.tests = {file.stem.removeprefix("test_") for file in files if file.stat().st_size}

    def counted(self) -> Trace:
        """The valid definitions and the reference tests, counted."""
        op_types = Counter(definition["op_type"] for definition in self.definitions.values())
        return Trace(self.path, dict(sorted(op_types.items())), len(self.definitions), len(self.tests))

    def check(self, environment: Environment) -> Iterator[Check]:
        """Check definitions, workloads, the blobs that they name, and that there are reference tests: one check of
        each kind, or one for each file with an error; and flashinfer-bench's verdict."""
        yield from self._files("definitions", self._read_definition)
        yield from self._files("workloads", self._read_workloads)
        untested = [name for name, value in self.definitions.items() if not self.tests & {name, value["op_type"]}]
        if untested:
            hint = f"add tests/references/test_{untested[0]}.py"
            yield Check("reference tests", "warn", f"none for {examples(untested)}", hint)
        else:
            yield Check("reference tests", "pass", counted(len(self.tests), "file"))
        yield self._check_blobs(sorted(self.blobs))
        yield from self._ask_bench(environment)

    def _files(self, kind: str, read: Callable[[bytes], None]) -> Iterator[Check]:
        """Read every file of a kind of data: the check of each with an error, or of all."""
        files, wrong = sorted(self.path.glob(f"{kind}/**/*.json*")), 0
        for file in files:
            try:
                read(file.read_bytes())
            except (ValueError, OSError) as error:
                wrong += 1
                yield Check(str(file.relative_to(self.path)), "fail", str(error), "fix or remove the file")
        if not files and kind == "definitions":
            hint = "set sources.trace to the directory of the trace data, or leave it empty if there is none"
            yield Check(kind, "fail", f"no definitions in {self.path / kind}", hint)
        elif not wrong:
            yield Check(kind, "pass" if files else "skip", counted(len(files), "file"))

    def _read_definition(self, data: bytes) -> None:
        value: Json = _valid("definition", data)
        if both := value["inputs"].keys() & value["outputs"].keys():
            raise ValueError(f"outputs: {min(both)} is also an input")
        try:
            body = ast.parse(value["reference"], "reference").body
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            raise ValueError(f"reference: {error or 'nested too deeply'}") from None
        functions = {node.name: node.args for node in body if isinstance(node, ast.FunctionDef)}
        if not (run := functions.get("run")):
            raise ValueError("reference: no global function run")
        if run.vararg or [argument.arg for argument in (*run.posonlyargs, *run.args)] != [*value["inputs"]]:
            must = f"must be the inputs, in their order: {', '.join(value['inputs'])}"
            raise ValueError(f"reference: the parameters of run {must}")
        self.definitions[value["name"]] = value

    def _read_workloads(self, data: bytes) -> None:
        for number, line in enumerate(data.splitlines(), 1):
            if line.strip():
                try:
                    self._read_workload(line)
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from None

    def _read_workload(self, line: bytes) -> None:
        value = _valid("workload", line)
        if not (definition := self.definitions.get(value["definition"])):
            raise ValueError(f"definition: {value['definition']} is missing or has errors")
        axes, inputs = value["workload"]["axes"], value["workload"]["inputs"]
        variable = {name for name, axis in definition["axes"].items() if axis["type"] == "var"}
        for kind, given, expected in (("axes", axes, variable), ("inputs", inputs, definition["inputs"].keys())):
            if given.keys() != expected:
                must = f"must be {', '.join(sorted(expected))}, got {', '.join(sorted(given))}"
                raise ValueError(f"workload.{kind}: {must}")
        self.blobs |= {source["path"] for source in inputs.values() if source["type"] == "safetensors"}

    def _check_blobs(self, blobs: list[str]) -> Check:
        """Whether the blobs exist; pointers of Git LFS are counted."""
        pointers, missing = 0, list[str]()
        for blob in blobs:
            try:
                with (self.path / blob).open("rb") as file:
                    pointers += file.read(len(LFS)) == LFS
            except (OSError, ValueError):
                missing.append(blob)
        if missing:
            hint = "restore the files, or remove the workloads that name them"
            detail = f"{len(missing)} of {len(blobs)} cannot be read: {examples(missing)}"
            return Check("blobs", "fail", detail, hint)
        if pointers:
            pull = shell("git", "-C", self.path, "lfs", "pull")
            return Check("blobs", "skip", f"{pointers} of {len(blobs)} are Git LFS pointers", command=pull)
        return Check("blobs", "pass" if blobs else "skip", counted(len(blobs), "file"))

    def _ask_bench(self, environment: Environment) -> Iterator[Check]:
        """Let `flashinfer-bench validate` check the data, solutions and traces included, without a GPU; no check where
        it is not installed."""
        if not environment.distribution("flashinfer-bench"):
            return
        options = ["validate", f"--dataset={self.path}", "--disable-gpu", "--outputs=stdout"]
        code = "from flashinfer_bench.cli.main import cli; cli()"
        done = machine.run([environment.python, "-c", code, *options], 300, cwd="/")
        hint = f"`{shell('flashinfer-bench', *options)}` shows more."
        if counts := re.search(r"\d+ definitions: \d+ ok, (\d+) warning, (\d+) error", done.stdout):
            status: Status = "fail" if int(counts[2]) else "warn" if int(counts[1]) else "pass"
            yield Check("flashinfer-bench", status, counts[0], "" if status == "pass" else hint)
        else:
            yield Check("flashinfer-bench", "skip", "it gave no verdict", hint)


@cache
def _schema(name: str) -> Any:
    file = Path(__file__).parent / "schemas" / f"{name}.schema.json"
    return fastjsonschema.compile(json.loads(file.read_bytes()))


def _valid(schema: str, data: bytes) -> Any:
    """The value of a JSON text that `schemas/SCHEMA.schema.json` allows; ValueError names the field and the rule."""
    try:
        return _schema(schema)(json.loads(data))
    except fastjsonschema.JsonSchemaValueException as error:
        raise ValueError(error.message.removeprefix("data.")) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON: {error}") from None
