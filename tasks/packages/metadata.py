"""A package's metadata in its own files (PEP 621), read without running or building anything."""

from __future__ import annotations

import sys
from collections.abc import Mapping
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
    """A package before it is built. `version` is empty if only the build knows it; `requires_python` may be empty.

    `requires` is in the form of Requires-Dist: the requirements of the normalized `extras` have a marker (PEP 508).
    `built_with` are the normalized names of its build requirements.
    """

    distribution: str
    version: str
    requires_python: str
    requires: tuple[Requirement, ...]
    extras: tuple[str, ...]
    built_with: frozenset[str]

    @property
    def from_tags(self) -> bool:
        """Whether the build takes the version from the tags (setuptools-scm)."""
        return not self.version and "setuptools-scm" in self.built_with

    @property
    def needs_rust(self) -> bool:
        """Whether the build compiles Rust extensions."""
        return bool(self.built_with & RUST)


def read_metadata(files: Mapping[str, bytes], folder: str, distribution: str = "") -> Metadata:
    """The metadata of the package in `folder` ("" is the root).

    `files` has the bytes of those of `Layout.metadata_files` that exist; `distribution` is the name if they have none.
    Raises SourcesError, which names the file and the line or key, for a file that is not valid.
    """
    toml = f"{folder}/pyproject.toml".lstrip("/")
    pyproject = read_toml(files.get(toml, b""), toml)
    project, system = (_get(pyproject, key, dict, toml) for key in ("project", "build-system"))
    if not (name := _get(project, "name", str, toml) or distribution):
        raise SourcesError(f"{toml} names no distribution.")
    extras = _get(project, "optional-dependencies", dict, toml)
    requires = _requirements(project, "dependencies", toml)
    for extra in extras:
        for requirement in _requirements(extras, extra, toml):
            asked = f"extra == '{canonicalize_name(extra)}'"
            requirement.marker = Marker(f"({requirement.marker}) and {asked}" if requirement.marker else asked)
            requires.append(requirement)
    try:
        requires_python = str(SpecifierSet(_get(project, "requires-python", str, toml)))
    except ValueError as error:
        raise SourcesError(f"{toml}: requires-python: {str(error)[:200]}") from None
    text = _get(project, "version", str, toml) or files.get("version.txt", b"").decode(errors="replace").strip()
    version = ""
    with suppress(ValueError):
        version = str(Version(text))
    return Metadata(
        distribution=name,
        version=version,
        requires_python=requires_python,
        requires=tuple(requires),
        extras=tuple(map(canonicalize_name, extras)),
        built_with=frozenset(canonicalize_name(one.name) for one in _requirements(system, "requires", toml)),
    )


def read_toml(content: bytes, name: str) -> dict[str, Any]:
    """Parse a TOML document. Raises SourcesError, which names the file and the line, if it is not valid."""
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SourcesError(f"{name} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:  # the latter: nested too deeply
        raise SourcesError(f"{name} is not valid TOML: {error}") from None


def _get(table: Mapping[str, Any], key: str, kind: type[T], name: str) -> T:
    """The entry, or an empty value of its type. Raises SourcesError if it has another type."""
    value = table.get(key, kind())
    if not isinstance(value, kind):
        raise SourcesError(f"{name}: `{key}` must be {kind.__name__}, got {type(value).__name__}.")
    return value


def _requirements(table: Mapping[str, Any], key: str, name: str) -> list[Requirement]:
    requirements = []
    for text in _get(table, key, list, name):
        try:
            requirements.append(Requirement(text))
        except (ValueError, TypeError, RecursionError) as error:
            shown = redact(repr(text)[:200])
            raise SourcesError(f"{name}: {shown} is not a valid requirement: {str(error)[:200]}") from None
    return requirements
