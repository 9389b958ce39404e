"""One file of trace data against the FlashInfer Trace format: a definition, or the workloads of one.

What is read is data of others: it is parsed, compiled and looked at, and never run.
"""

from __future__ import annotations

import ast
import json
import re
import stat
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any, TypeVar

SCHEMAS = Path(__file__).parent / "schemas"
MAX_DEFINITION = 256 * 1024  # bytes; parsers and the compiler get no more than that, real files have a few KiB
MAX_WORKLOADS = 16 * 1024 * 1024  # bytes of one workload file
_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|(-?Infinity|NaN)')
_T = TypeVar("_T")
_VARIADIC = 0x04 | 0x08  # CO_VARARGS | CO_VARKEYWORDS


class Broken(ValueError):
    """A file is not as the format has it. The text names the line or field."""


def shown(text: object) -> str:
    """`text` for people: one line without control characters, and not endless."""
    whole = str(text)
    whole = whole if whole.isprintable() else ascii(whole)
    return whole if len(whole) <= 300 else f"{whole[:300]}…"  # noqa: PLR2004


def _text(path: Path, file: Path, limit: int) -> str:
    """What a file of `path`/{kind}/{op_type}/ holds. Only regular files are opened: pipes and devices may never end."""
    if len(file.relative_to(path).parts) != 3:  # noqa: PLR2004
        raise Broken("belongs into the folder of its op_type")
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise Broken("no regular file")
    if status.st_size > limit:
        raise Broken(f"{status.st_size:,} bytes, more than the {limit:,} that are read")
    with file.open("rb") as stream:
        data = stream.read(limit)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Broken(f"line {line}: no UTF-8, byte 0x{data[error.start]:02x}") from None


def _json(text: str, line: int = 1) -> Any:
    """The value of a JSON text (RFC 8259: no NaN, no Infinity) that begins in `line`; no name twice in one object."""

    def constant(name: str) -> Any:
        at = next((match.start(1) for match in _CONSTANT.finditer(text) if match[1]), 0)
        raise Broken(f"line {text.count(chr(10), 0, at) + line}: {name} is no JSON value")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            raise Broken(f"{shown(Counter(name for name, _ in pairs).most_common(1)[0][0])}: given twice")
        return value

    try:
        return json.loads(text, parse_constant=constant, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise Broken(f"line {error.lineno + line - 1} column {error.colno}: no JSON, {error.msg}") from None
    except RecursionError:
        raise Broken(f"line {line}: nested too deep") from None
    except Broken:
        raise
    except ValueError:  # more digits than Python turns into a number
        raise Broken(f"line {line}: a number is too long") from None


@cache
def _schema(name: str) -> Callable[[Any], None]:
    """A check against a shipped JSON Schema, that raises with the field. Compiled once: a thousand files take 0.1 s."""
    import fastjsonschema

    validate = fastjsonschema.compile(json.loads((SCHEMAS / f"{name}.schema.json").read_text("utf-8")))

    def check(value: Any) -> None:
        try:
            validate(value)
        except fastjsonschema.JsonSchemaValueException as error:
            field = ".".join(map(str, error.path[1:]))
            rule = error.message.removeprefix(error.name or "").strip()
            if error.rule == "required":
                rule = f"lacks {', '.join(key for key in error.rule_definition if key not in error.value)}"
            raise Broken(f"{shown(field) if field else 'the object'} {shown(rule)}") from None

    return check


def definition_of(path: Path, file: Path) -> dict[str, Any]:
    value: dict[str, Any] = _json(_text(path, file, MAX_DEFINITION))
    _schema("definition")(value)
    if value["name"] != file.stem:
        raise Broken(f"name: {shown(value['name'])} is not the name of the file")
    if value["op_type"] != file.parent.name:
        raise Broken(f"op_type: {shown(value['op_type'])} is not the name of the folder")
    for kind in ("inputs", "outputs"):
        for name, tensor in value[kind].items():
            if unknown := [axis for axis in tensor["shape"] or () if axis not in value["axes"]]:
                raise Broken(f"{kind}.{name}.shape: no axis {shown(unknown[0])}")
    for number, constraint in enumerate(value.get("constraints", ())):
        _constraint(f"constraints.{number}", constraint, {*value["axes"], *value["inputs"]})
    _reference(value["reference"], list(value["inputs"]))
    return value


def _parsed(field: str, parse: Callable[[], _T]) -> _T:
    try:
        with warnings.catch_warnings():  # about the data, such as an odd escape; nobody here wrote it
            warnings.simplefilter("ignore")
            return parse()
    except SyntaxError as error:
        raise Broken(f"{field}: line {error.lineno}: {shown(error.msg)}") from None
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        raise Broken(f"{field}: does not compile, {str(error) or 'nested too deep'}") from None


def _constraint(field: str, text: str, names: set[str]) -> None:
    """A constraint is a Python expression over the axes; it may look into inputs too, as `kv_indptr[-1]` does."""
    nodes = list(ast.walk(_parsed(field, lambda: ast.parse(text.strip(), mode="eval"))))
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        if isinstance(node, ast.Name) and node.id not in names and id(node) not in called:
            raise Broken(f"{field}: no axis {shown(node.id)}")


def _reference(source: str, inputs: list[str]) -> None:
    """`source` compiles, has a global `run` that takes `inputs` in their order, and no torch.nn.functional.

    A code object tells all but the last, in a third of the time that a syntax tree takes.
    """
    code: CodeType = _parsed("reference", lambda: compile(source, "reference", "exec", dont_inherit=True))
    runs = [value for value in code.co_consts if isinstance(value, CodeType) and value.co_name == "run"]
    if not runs:
        raise Broken("reference: no global function run")
    run, count = runs[-1], runs[-1].co_argcount + runs[-1].co_kwonlyargcount
    if list(run.co_varnames[:count]) != inputs or run.co_flags & _VARIADIC:
        wanted = shown(", ".join(inputs))
        raise Broken(f"reference: line {run.co_firstlineno}: the parameters of run are not the inputs ({wanted})")
    if "functional" not in source:
        return
    for node in ast.walk(_parsed("reference", lambda: ast.parse(source))):
        used = False
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            used = any(f"{module}{alias.name}".startswith("torch.nn.functional") for alias in node.names)
        elif isinstance(node, ast.Attribute):
            # Whatever name torch.nn was given; torch.functional is another module.
            used = node.attr == "functional" and not (isinstance(node.value, ast.Name) and node.value.id == "torch")
        else:
            continue
        if used:
            raise Broken(f"reference: line {node.lineno}: uses torch.nn.functional; write its steps out")


def workloads_of(path: Path, file: Path, names: dict[str, Path], sound: dict[str, dict[str, Any]]) -> int:
    """How many workloads `file` holds, one JSON object in a line."""
    text = _text(path, file, MAX_WORKLOADS)
    if file.stem not in names:
        raise Broken(f"no definition has the name {shown(file.stem)}")
    if file.parent.name != names[file.stem].parent.name:
        raise Broken(f"belongs into the folder {shown(names[file.stem].parent.name)}")
    seen: set[str] = set()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = _json(line, number)
            _schema("workload")(value)
            _workload(value, file.stem, sound.get(file.stem))
            if value["workload"]["uuid"] in seen:
                raise Broken("workload.uuid: given twice")
            seen.add(value["workload"]["uuid"])
        except Broken as error:
            raise error if str(error).startswith("line ") else Broken(f"line {number}: {error}") from None
    if not seen:
        raise Broken("holds no workload")
    return len(seen)


def _workload(value: dict[str, Any], name: str, definition: dict[str, Any] | None) -> None:
    if value["definition"] != name:
        raise Broken(f"definition: {shown(value['definition'])} is not the name of the file")
    if definition is None:  # broken, which is a failed check already
        return
    bound, axes = value["workload"]["axes"], definition["axes"]
    for axis, about in axes.items():
        if about["type"] == "var" and axis not in bound:
            raise Broken(f"workload.axes: {axis} is not bound")
        if about["type"] == "const" and bound.get(axis, about["value"]) != about["value"]:
            raise Broken(f"workload.axes.{axis}: the definition has {about['value']}")
    for what, given, known in (("axes", bound, axes), ("inputs", value["workload"]["inputs"], definition["inputs"])):
        if unknown := [key for key in given if key not in known]:
            raise Broken(f"workload.{what}: the definition has no {shown(unknown[0])}")
    if missing := [key for key in definition["inputs"] if key not in value["workload"]["inputs"]]:
        raise Broken(f"workload.inputs: lacks {missing[0]}")
