"""What a package's own files say of it (PEP 621, setup.cfg, setup.py), read without running or building anything."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import PurePosixPath
from typing import Any, TypeVar

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from .errors import SourcesError
from .urls import redact

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RUST = {"setuptools-rust", "maturin", "puccinialin"}
LARGEST = 100_000  # bytes; the real files have up to 15,000, and deep nesting in more could exhaust the parser's stack
SETUP_KEYWORDS = {  # setuptools' spelling -> PEP 621's
    "name": "name",
    "version": "version",
    "python_requires": "requires-python",
    "install_requires": "dependencies",
    "extras_require": "optional-dependencies",
}
T = TypeVar("T")


@dataclass(frozen=True)
class Metadata:
    """A package before it is built. `version` is None where only the build knows it; `requires_python` may be empty."""

    distribution: str
    version: str | None
    requires_python: str
    requires: tuple[Requirement, ...]
    extras: Mapping[str, tuple[Requirement, ...]]
    build_requires: tuple[str, ...]
    needs_rust: bool
    needs_torch_to_build: bool


def read_metadata(files: Mapping[str, bytes], folder: str) -> Metadata:
    """The metadata of the package in `folder` ("" is the root).

    `files` maps paths relative to the checkout to their content: those of `Layout.metadata_files` that exist. Raises
    SourcesError, naming the file and the place in it, for a file that cannot be read as what it is.
    """
    where = f"{folder}/" if folder else ""
    toml = f"{where}pyproject.toml"
    pyproject = read_toml(files.get(toml, b""), toml)
    script, imports = _setup_py(files.get(f"{where}setup.py", b""), f"{where}setup.py")
    project = _get(pyproject, "project", dict, toml)
    said = _setup_cfg(files.get(f"{where}setup.cfg", b""), f"{where}setup.cfg") | script | project
    requires = _get(said, "dependencies", list, toml)
    if "dependencies" in _get(project, "dynamic", list, toml):
        requires = [*requires, *_dynamic_dependencies(pyproject, files, where)]
    build = _requirements(_get(_get(pyproject, "build-system", dict, toml), "requires", list, toml), toml)
    built_with = {canonicalize_name(each) for each in (*(each.name for each in build), *imports)}
    extras = _get(said, "optional-dependencies", dict, toml)
    name = _get(said, "name", str, toml)
    if not name:
        raise SourcesError(f"{toml}, {where}setup.cfg and {where}setup.py name no distribution.")
    return Metadata(
        distribution=name,
        version=_version([_get(said, "version", str, toml), *_text(files, f"{where}version.txt", "version.txt")]),
        requires_python=str(_parse(SpecifierSet, _get(said, "requires-python", str, toml), toml)),
        requires=_requirements(requires, toml),
        extras={canonicalize_name(extra): _requirements(_get(extras, extra, list, toml), toml) for extra in extras},
        build_requires=tuple(map(str, build)),
        needs_rust=bool(built_with & RUST) or "setuptools-rust" in _get(pyproject, "tool", dict, toml),
        needs_torch_to_build="torch" in imports and "torch" not in {each.name.lower() for each in build},
    )


def read_toml(content: bytes, name: str) -> dict[str, Any]:
    """The TOML document in `content`; SourcesError names the file and the line where there is none."""
    try:
        return tomllib.loads(_decode(content, name))
    except tomllib.TOMLDecodeError as error:
        raise SourcesError(f"{name} is not TOML: {error}") from None
    except RecursionError:
        raise SourcesError(f"{name} is nested too deeply to be read.") from None


def _decode(content: bytes, name: str) -> str:
    if len(content) > LARGEST:
        raise SourcesError(f"{name} has {len(content)} bytes; up to {LARGEST} are read.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourcesError(f"{name} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def _get(table: Mapping[str, Any], key: str, kind: type[T], name: str) -> T:
    """The entry, or an empty one of that type; SourcesError where it is of another."""
    value = table.get(key, kind())
    if not isinstance(value, kind):
        raise SourcesError(f"{name}: `{key}` is {type(value).__name__}, expected was {kind.__name__}.")
    return value


def _parse(kind: Callable[[str], T], text: Any, name: str) -> T:
    try:
        return kind(text)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SourcesError(f"{name}: {redact(repr(text)[:200])} cannot be read: {str(error)[:200]}") from None


def _requirements(listed: Iterable[Any], name: str) -> tuple[Requirement, ...]:
    return tuple(_parse(Requirement, each, name) for each in listed)


def _text(files: Mapping[str, bytes], *names: str) -> Iterator[str]:
    return (_decode(files[name], name).strip() for name in names if name in files)


def _version(candidates: Iterable[str]) -> str | None:
    """The first that is a version: version.txt may be the target of a symbolic link, a static version a placeholder."""
    for text in candidates:
        try:
            return str(Version(text))
        except ValueError:
            continue
    return None


def _dynamic_dependencies(pyproject: Mapping[str, Any], files: Mapping[str, bytes], where: str) -> list[str]:
    """The requirement files that setuptools is told to read, without their comments and options."""
    table: Any = pyproject
    for key in ("tool", "setuptools", "dynamic", "dependencies"):
        table = _get(table, key, dict, f"{where}pyproject.toml")
    listed = table.get("file", [])
    names = [f"{where}{name}" for name in ([listed] if isinstance(listed, str) else listed)]
    lines = [line.split(" #")[0].strip() for text in _text(files, *names) for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def _setup_cfg(content: bytes, name: str) -> dict[str, Any]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(_decode(content, name))
    except configparser.Error as error:
        raise SourcesError(f"{name} cannot be read: {error}") from None
    said = [pair for section in ("metadata", "options") if section in parser for pair in parser.items(section)]
    return _pep_621({SETUP_KEYWORDS[key]: value for key, value in said if key in SETUP_KEYWORDS})


def _pep_621(found: dict[str, Any]) -> dict[str, Any]:
    """The same with lists where setuptools takes lines or tuples too, without what it would read from elsewhere."""
    found = {key: value for key, value in found.items() if not str(value).startswith(("attr:", "file:"))}
    if isinstance(listed := found.get("dependencies"), str | tuple):
        found["dependencies"] = [line for line in listed.splitlines() if line] if isinstance(listed, str) else [*listed]
    return found


def _setup_py(content: bytes, name: str) -> tuple[dict[str, Any], set[str]]:
    """What the script hands to `setup()` in so many words, and the modules that it imports at its top."""
    try:
        tree = ast.parse(_decode(content, name))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise SourcesError(f"{name}{line} is no Python that can be read.") from None
    imports: set[str] = set()
    constants: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            imports |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imports.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Assign):
            constants |= {target.id: node.value for target in node.targets if isinstance(target, ast.Name)}
    found: dict[str, Any] = {}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        for keyword in call.keywords if called == "setup" else ():
            value = keyword.value
            value = constants.get(value.id, value) if isinstance(value, ast.Name) else value
            if keyword.arg in SETUP_KEYWORDS:
                try:
                    found[SETUP_KEYWORDS[keyword.arg]] = ast.literal_eval(value)
                except (ValueError, TypeError, MemoryError, RecursionError):
                    continue  # computed: only the build knows it
    return _pep_621(found), imports


def sparse_folders(pyproject: Mapping[str, Any], submodule: str) -> tuple[str, ...] | None:
    """The folders of the submodule at path `submodule` that the package ships, relative to it; None is all of it.

    They come from `[tool.setuptools.package-dir]` (package -> folder) and `[tool.setuptools.package-data]` (package ->
    patterns): what stands before a pattern's first wildcard. Paths that lead elsewhere count for nothing.
    """
    tool = pyproject.get("tool")
    table = tool.get("setuptools") if isinstance(tool, Mapping) else None
    places, data = (_table(table, key) for key in ("package-dir", "package-data"))
    root = PurePosixPath(submodule)
    found: set[PurePosixPath] = set()
    for package, patterns in data.items():
        for pattern in patterns if isinstance(patterns, list) else ():
            folder, deep = _shipped(places, package, pattern)
            if folder is not None and folder != root and folder.is_relative_to(root):
                found.add(folder.relative_to(root))
            elif folder is not None and deep and root.is_relative_to(folder):
                return None
    return tuple(sorted(str(folder) for folder in found if not found.intersection(folder.parents))) or None


def _table(table: object, key: str) -> Mapping[str, Any]:
    value = table.get(key) if isinstance(table, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _shipped(places: Mapping[str, Any], package: str, pattern: object) -> tuple[PurePosixPath | None, bool]:
    """The folder, from the checkout's root, that holds what the pattern matches, and whether folders in it do too."""
    parent, below = package, ""
    while parent and parent not in places:
        parent, _, last = parent.rpartition(".")
        below = f"{last}/{below}"
    base = places.get(parent, "")
    if not isinstance(base, str) or not isinstance(pattern, str):
        return None, False
    parts = [part for part in f"{base}/{below}/{pattern}".split("/") if part not in ("", ".")]
    plain = list(takewhile(re.compile(r"[\w.+][\w.+ -]*").fullmatch, parts))
    rest = parts[len(plain) :] or parts[-1:]
    if ".." in plain or not all(map(re.compile(r"[\w.+*?\[\]!-]+").fullmatch, rest)) or base.startswith("/"):
        return None, False
    return PurePosixPath(*plain[: len(parts) - len(rest)]), len(rest) > 1 or rest == ["**"]
