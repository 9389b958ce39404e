"""One file of trace data against the FlashInfer Trace format: a definition, or the workloads of one.

What is read is data of others: it is parsed, compiled and looked at, and never run.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from types import CodeType
from typing import Any, TypeVar

from .trace_file import Broken, json_of, shown, text_of

SCHEMA = Path(__file__).parent / "schemas" / "definition.schema.json"
MAX_DEFINITION = 256 * 1024  # bytes; real files have a few KiB
MAX_CODE = 64 * 1024  # characters; the compiler takes minutes for some long texts
MAX_WORKLOADS = 16 * 1024 * 1024  # bytes of one workload file
_T = TypeVar("_T")
# What a workload's input must name, by its type.
_GIVES: dict[str, dict[str, Any]] = {
    "random": {},
    "scalar": {"value": (int, float)},
    "safetensors": {"path": str, "tensor_key": str},
}
_VARIADIC = 0x04 | 0x08  # CO_VARARGS | CO_VARKEYWORDS


@cache
def _schema() -> Callable[[Any], None]:
    """A check against the shipped JSON Schema (draft 7) that raises with the field, compiled to be fast."""
    import fastjsonschema

    validate = fastjsonschema.compile(json.loads(SCHEMA.read_text("utf-8")))

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
    value: dict[str, Any] = json_of(text_of(path, file, MAX_DEFINITION))
    _schema()(value)
    if value["name"] != file.stem:
        raise Broken(f"name: {shown(value['name'])} is not the name of the file")
    if value["op_type"] != file.parent.name:
        raise Broken(f"op_type: {shown(value['op_type'])} is not the name of the folder")
    for kind in ("inputs", "outputs"):
        for name, tensor in value[kind].items():
            if unknown := [axis for axis in tensor["shape"] or () if axis not in value["axes"]]:
                raise Broken(f"{kind}.{name}.shape: no axis {shown(unknown[0])}")
    for number, constraint in enumerate(value.get("constraints", ())):
        try:  # it may look into inputs too, as `kv_indptr[-1]` does
            unknown = [name for name in _names(constraint) if name not in value["axes"] and name not in value["inputs"]]
        except Broken:
            raise Broken(f"constraints.{number}: {shown(constraint)} is no expression") from None
        if unknown:
            raise Broken(f"constraints.{number}: no axis {shown(unknown[0])}")
    _reference(value["reference"], list(value["inputs"]))
    return value


def _parsed(field: str, source: str, parse: Callable[[str], _T]) -> _T:
    if len(source) > MAX_CODE:
        raise Broken(f"{field}: {len(source):,} characters, more than the {MAX_CODE:,} that are compiled")
    try:
        with warnings.catch_warnings():  # about the data, such as an odd escape; nobody here wrote it
            warnings.simplefilter("ignore")
            return parse(source)
    except SyntaxError as error:
        raise Broken(f"{field}: line {error.lineno}: {shown(error.msg)}") from None
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        raise Broken(f"{field}: does not compile, {str(error) or 'nested too deep'}") from None


@lru_cache(maxsize=256)
def _names(text: str) -> tuple[str, ...]:
    """The names that a constraint is about. It is a Python expression over the axes, and much the same everywhere."""
    nodes = list(ast.walk(_parsed("constraint", text.strip(), lambda source: ast.parse(source, mode="eval"))))
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    return tuple(node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in called)


def _reference(source: str, inputs: list[str]) -> None:
    """`source` compiles, has a global `run` that takes `inputs` in their order, and no torch.nn.functional.

    A code object tells all but the last, in a third of the time that a syntax tree takes.
    """
    code: CodeType = _parsed("reference", source, lambda text: compile(text, "reference", "exec", dont_inherit=True))
    runs = [value for value in code.co_consts if isinstance(value, CodeType) and value.co_name == "run"]
    if not runs:
        raise Broken("reference: no global function run")
    run, count = runs[-1], runs[-1].co_argcount + runs[-1].co_kwonlyargcount
    if list(run.co_varnames[:count]) != inputs or run.co_flags & _VARIADIC:
        wanted = shown(", ".join(inputs))
        raise Broken(f"reference: line {run.co_firstlineno}: the parameters of run are not the inputs ({wanted})")
    if "functional" not in source:
        return
    for node in ast.walk(_parsed("reference", source, ast.parse)):
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
    text = text_of(path, file, MAX_WORKLOADS)
    if file.stem not in names:
        raise Broken(f"no definition has the name {shown(file.stem)}")
    if file.parent.name != names[file.stem].parent.name:
        raise Broken(f"belongs into the folder {shown(names[file.stem].parent.name)}")
    seen: set[str] = set()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            uuid = _workload(json_of(line, number), file.stem, sound.get(file.stem))
            if uuid in seen:
                raise Broken("workload.uuid: given twice")
            seen.add(uuid)
        except Broken as error:
            raise error if str(error).startswith("line ") else Broken(f"line {number}: {error}") from None
    if not seen:
        raise Broken("holds no workload")
    return len(seen)


def _workload(value: Any, name: str, definition: dict[str, Any] | None) -> str:
    """The uuid of a workload, which binds every variable axis of its definition and says where each input is from."""
    workload = _field(_field({"": value}, "", dict), "workload", dict)
    axes, inputs = _field(workload, "axes", dict, "workload."), _field(workload, "inputs", dict, "workload.")
    if _field(value, "definition", str) != name:
        raise Broken(f"definition: {shown(value['definition'])} is not the name of the file")
    for axis, size in axes.items():
        if type(size) is not int or size < 0:  # bool is an int, too
            raise Broken(f"workload.axes.{shown(axis)}: must be a whole number, not negative")
    for key, source in inputs.items():
        kind = source.get("type") if isinstance(source, dict) else None
        gives = _GIVES.get(kind) if isinstance(kind, str) else None
        if gives is None or not all(isinstance(source.get(part), types) for part, types in gives.items()):
            wanted = "random, a scalar with its value, or safetensors with path and tensor_key"
            raise Broken(f"workload.inputs.{shown(key)}: must be {wanted}")
    if definition is not None:  # a broken one is a failed check already
        _bound(axes, inputs, definition)
    return str(_field(workload, "uuid", str, "workload."))


def _field(owner: dict[str, Any], key: str, kind: type[Any], prefix: str = "") -> Any:
    value = owner.get(key)
    if not isinstance(value, kind) or value == "":
        raise Broken(f"{prefix}{key or 'the line'}: must be {'an object' if kind is dict else 'a text'}")
    return value


def _bound(axes: dict[str, int], inputs: dict[str, Any], definition: dict[str, Any]) -> None:
    for axis, about in definition["axes"].items():
        if about["type"] == "var" and axis not in axes:
            raise Broken(f"workload.axes: {axis} is not bound")
        if about["type"] == "const" and axes.get(axis, about["value"]) != about["value"]:
            raise Broken(f"workload.axes.{axis}: the definition has {about['value']}")
    for what, given in (("axes", axes), ("inputs", inputs)):
        if unknown := [key for key in given if key not in definition[what]]:
            raise Broken(f"workload.{what}: the definition has no {shown(unknown[0])}")
    if missing := [key for key in definition["inputs"] if key not in inputs]:
        raise Broken(f"workload.inputs: lacks {missing[0]}")
