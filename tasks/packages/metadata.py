"""A package's metadata in its own files (PEP 621, setup.py), read without running or building anything."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
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


def read_metadata(files: Mapping[str, bytes], folder: str) -> Metadata:
    """The metadata of the package in `folder` ("" is the root).

    `files` has the bytes of those of `Layout.metadata_files` that exist. Raises SourcesError, which names the file and
    the line or key, for a file that is not valid.
    """
    prefix = f"{folder}/" if folder else ""
    toml = f"{prefix}pyproject.toml"
    pyproject = read_toml(files.get(toml, b""), toml)
    project, system = (_get(pyproject, key, dict, toml) for key in ("project", "build-system"))
    script, *versions = (
        files.get(path, b"").decode(errors="replace").strip()
        for path in (f"{prefix}setup.py", f"{prefix}version.txt", "version.txt")
    )
    name = _get(project, "name", str, toml) or _argument("name", script)
    if not name:
        raise SourcesError(f"{toml} and {prefix}setup.py name no distribution.")
    extras = _get(project, "optional-dependencies", dict, toml)
    requires = _requirements(project, "dependencies", toml)
    for extra in extras:
        for requirement in _requirements(extras, extra, toml):
            asked = f"extra == '{canonicalize_name(extra)}'"
            requirement.marker = Marker(f"({requirement.marker}) and {asked}" if requirement.marker else asked)
            requires.append(requirement)
    python = _get(project, "requires-python", str, toml) or _argument("python_requires", script)
    try:
        requires_python = str(SpecifierSet(python))
    except ValueError as error:
        raise SourcesError(f"{toml}: requires-python: {str(error)[:200]}") from None
    return Metadata(
        distribution=name,
        version=_first_version([_get(project, "version", str, toml), _argument("version", script), *versions]),
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


def _argument(keyword: str, script: str) -> str:
    """The literal argument of `setup()` in setup.py, or empty."""
    literal = re.search(rf"\b{keyword}\s*=\s*[\"'](.*?)[\"']", script.partition("setup(")[2])
    return literal[1].strip() if literal else ""


def _first_version(candidates: Iterable[str]) -> str:
    """The first valid version: a static one may be a placeholder, version.txt the target of a symbolic link."""
    for text in candidates:
        with suppress(ValueError):
            return str(Version(text))
    return ""
