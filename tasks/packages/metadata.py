"""A package's metadata in its own files (PEP 621, setup.cfg, setup.py), read without running or building anything."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from ..errors import SourcesError
from ..names import redact

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RUST = {"setuptools-rust", "maturin"}
T = TypeVar("T")


@dataclass(frozen=True)
class Metadata:
    """A package before it is built. `version` is None if only the build knows it; `requires_python` may be empty.

    `requires` is in the form of Requires-Dist: the requirements of the normalized `extras` have a marker (PEP 508).
    """

    distribution: str
    version: str | None
    requires_python: str
    requires: tuple[Requirement, ...]
    extras: tuple[str, ...]
    build_requires: tuple[str, ...]
    needs_rust: bool
    needs_torch_to_build: bool
    needs_cuda_to_build: bool

    @property
    def from_tags(self) -> bool:
        """Whether the build takes the version from the tags (setuptools-scm)."""
        return not self.version and any(re.match(r"setuptools[-_.]scm\b", each, re.I) for each in self.build_requires)


def read_metadata(files: Mapping[str, bytes], folder: str) -> Metadata:
    """The metadata of the package in `folder` ("" is the root).

    `files` has the bytes of those of `Layout.metadata_files` that exist. Raises SourcesError, which names the file and
    the line or key, for a file that is not valid.
    """
    prefix = f"{folder}/" if folder else ""
    toml = f"{prefix}pyproject.toml"
    pyproject = read_toml(files.get(toml, b""), toml)
    project, system = (_get(pyproject, key, dict, toml) for key in ("project", "build-system"))
    config, script, *versions = (
        _decode(files.get(path, b""), path).strip()
        for path in (f"{prefix}setup.cfg", f"{prefix}setup.py", f"{prefix}version.txt", "version.txt")
    )
    name = _get(project, "name", str, toml) or _keyword("name", config, script)
    if not name:
        raise SourcesError(f"{toml}, {prefix}setup.cfg and {prefix}setup.py name no distribution.")
    python = _get(project, "requires-python", str, toml) or _keyword("python_requires", config, script)
    build = _requirements(_get(system, "requires", list, toml), toml)
    built_with = {canonicalize_name(each.name) for each in build}
    imports_torch = bool(re.search(r"^(import|from)\b.*\btorch\b", script, re.M))
    requires = _requirements(_get(project, "dependencies", list, toml), toml)
    extras = _get(project, "optional-dependencies", dict, toml)
    for extra in extras:
        for each in _requirements(_get(extras, extra, list, toml), toml):
            asked = f"extra == '{canonicalize_name(extra)}'"
            each.marker = Marker(f"({each.marker}) and {asked}" if each.marker else asked)
            requires += (each,)
    return Metadata(
        distribution=name,
        version=_version([_get(project, "version", str, toml), _keyword("version", config, script), *versions]),
        requires_python=str(_parse(SpecifierSet, python, toml)),
        requires=requires,
        extras=tuple(map(canonicalize_name, extras)),
        build_requires=tuple(map(str, build)),
        needs_rust=bool(built_with & RUST),
        needs_torch_to_build=imports_torch and "torch" not in built_with,
        needs_cuda_to_build=imports_torch and "CUDAExtension(" in script,
    )


def read_toml(content: bytes, name: str) -> dict[str, Any]:
    """Parse a TOML document. Raises SourcesError, which names the file and the line, if it is not valid."""
    try:
        return tomllib.loads(_decode(content, name))
    except (tomllib.TOMLDecodeError, RecursionError) as error:  # the latter: nested too deeply
        raise SourcesError(f"{name} is not valid TOML: {error}") from None


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourcesError(f"{name} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def _get(table: Mapping[str, Any], key: str, kind: type[T], name: str) -> T:
    """The entry, or an empty value of its type. Raises SourcesError if it has another type."""
    value = table.get(key, kind())
    if not isinstance(value, kind):
        raise SourcesError(f"{name}: `{key}` must be {kind.__name__}, got {type(value).__name__}.")
    return value


def _parse(kind: Callable[[str], T], text: Any, name: str) -> T:
    try:
        return kind(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise SourcesError(f"{name}: {redact(repr(text)[:200])} is not valid: {str(error)[:200]}") from None


def _requirements(listed: Iterable[Any], name: str) -> tuple[Requirement, ...]:
    return tuple(_parse(Requirement, each, name) for each in listed)


def _keyword(keyword: str, config: str, script: str) -> str:
    """The value in setup.cfg, or the literal argument of `setup()` in setup.py; else empty."""
    found = re.search(rf"^{keyword}\s*=(.*)", config.partition("[metadata]")[2], re.M) or re.search(
        rf"\b{keyword}\s*=\s*[\"'](.*?)[\"']", script.partition("setup(")[2]
    )
    return found[1].strip() if found else ""


def _version(candidates: Iterable[str]) -> str | None:
    """The first valid version: a static one may be a placeholder, version.txt the target of a symbolic link."""
    for text in candidates:
        with suppress(ValueError):
            return str(Version(text))
    return None
