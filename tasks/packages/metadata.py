"""A package's metadata in its own files (PEP 621), read without running or building anything."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from ..errors import SourcesError
from ..names import redact

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RUST = {"setuptools-rust", "maturin"}


@dataclass(frozen=True)
class Metadata:
    """A package before it is built. `version` is empty if only the build knows it.

    `requires` is in the form of Requires-Dist: the requirements of an extra have a marker (PEP 508). `built_with` are
    the normalized names of the build requirements.
    """

    distribution: str
    version: str
    requires: tuple[Requirement, ...]
    built_with: frozenset[str]

    @property
    def from_tags(self) -> bool:
        """Whether the build takes the version from the tags (setuptools-scm)."""
        return not self.version and "setuptools-scm" in self.built_with

    @property
    def needs_rust(self) -> bool:
        """Whether the build compiles Rust extensions."""
        return bool(self.built_with & RUST)


def read_metadata(pyproject: bytes, file: str, version: str = "", distribution: str = "") -> Metadata:
    """The metadata in a pyproject.toml; `version` and `distribution` are those of a package that names none there.

    Raises SourcesError, which names the `file`, for one that is not valid.
    """
    content = read_toml(pyproject, file)
    try:
        project = content.get("project", {})
        requires = [Requirement(text) for text in project.get("dependencies", [])]
        for extra, texts in project.get("optional-dependencies", {}).items():
            requires += [_in_extra(Requirement(text), extra) for text in texts]
        name = project.get("name", distribution)
        canonicalize_name(name, validate=True)
        version = project.get("version", version)
        with suppress(ValueError):
            version = str(Version(version))
        build = [Requirement(text) for text in content.get("build-system", {}).get("requires", [])]
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SourcesError(f"{file} is not valid (PEP 621): {redact(str(error))[:200]}") from None
    return Metadata(name, version, tuple(requires), frozenset(canonicalize_name(one.name) for one in build))


def _in_extra(requirement: Requirement, extra: str) -> Requirement:
    """The requirement of an extra, as Requires-Dist has it."""
    wanted = f"extra == '{canonicalize_name(extra)}'"
    requirement.marker = Marker(f"({requirement.marker}) and {wanted}" if requirement.marker else wanted)
    return requirement


def read_toml(content: bytes, name: str) -> dict[str, Any]:
    """Parse a TOML document. Raises SourcesError, which names the file and the line, if it is not valid."""
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # the latter: nested too deeply
        raise SourcesError(f"{name} is not valid TOML: {str(error)[:200]}") from None
