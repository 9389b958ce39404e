"""The package in a checkout: its metadata, what is installed of it, and whether that is current."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from ..errors import SourcesError
from ..files import write_atomic
from ..git.refs import highest, release
from ..models import Repository
from .environment import Distribution, Environment
from .layouts import Layout, find_layout
from .matching import FLASHINFER
from .metadata import Metadata, read_metadata
from .requirements import missing_requirements

BUILD_FILES = ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "version.txt")
RECORD = "installed.json"  # in the checkout's .git
NO_DEPS = " without requirements"
HOOKS = ("BUILD_NVEP", "BUILD_NIXL_EP", "BUILD_NCCL_EP", "FLASHINFER_BUILD_NO_PIP")


@dataclass(frozen=True)
class Source:
    """The files of the checkout of `repository` at `commit`; `tags` are its local tags, name to commit id."""

    repository: Repository
    commit: str
    tags: Mapping[str, str]

    @cached_property
    def layout(self) -> Layout:
        """Raises SourcesError if the files have no known layout."""
        return find_layout(self.repository.name, lambda path: (self.repository.path / path).exists())

    @cached_property
    def metadata(self) -> Metadata:
        """Raises SourcesError if a file is not valid."""
        paths = {name: self.repository.path / name for name in self.layout.metadata_files}
        files = {name: path.read_bytes() for name, path in paths.items() if path.is_file()}
        return read_metadata(files, self.layout.folder)

    @cached_property
    def version(self) -> str:
        """The version in the files; if they leave it to the tags (setuptools-scm), the release at this commit, or else
        the highest tag, as SGLang's build has it. Empty if neither exists. Raises SourcesError."""
        if self.layout.installable and not self.metadata.from_tags:
            return self.metadata.version or ""
        here = (release(tag) for tag, commit in self.tags.items() if commit == self.commit)
        newest = max((version for version in here if version), default=None)
        return str(newest or (highest(self.tags) if self.layout.installable else None) or "")


@dataclass(frozen=True)
class Package(Source):
    """A source that can be installed. Raises SourcesError if its metadata cannot be read.

    The checkout's .git has a record of the environments that it was installed into.
    """

    def __post_init__(self) -> None:
        _ = self.version  # reads the files now

    def __str__(self) -> str:
        return f"{self.repository.name} {self.version}".strip()

    @property
    def folder(self) -> Path:
        """The directory that has the pyproject.toml or setup.py."""
        return self.repository.path / self.layout.folder

    @property
    def name(self) -> str:
        """The distribution's normalized name."""
        return canonicalize_name(self.metadata.distribution)

    @property
    def module(self) -> str:
        """What is imported."""
        return self.layout.module or self.metadata.distribution.replace("-", "_")

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other distributions with the same module: FlashInfer changed its name once."""
        return tuple(name for name in FLASHINFER if name != self.name) if self.name in FLASHINFER else ()

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables for the build, none of which the user has set."""
        values = {}
        if self.version and self.metadata.from_tags:
            # A checkout of a release is that release, even if there are newer tags.
            values[f"SETUPTOOLS_SCM_PRETEND_VERSION_FOR_{re.sub('[-_.]+', '_', self.name).upper()}"] = self.version
        if self.name in FLASHINFER and not any(hook in os.environ for hook in HOOKS):
            # By default FlashInfer's build hook downloads CUDA wheels and compiles nixl, up to three times, into the
            # build's own environment, which is thrown away.
            values |= {"BUILD_NVEP": "0", "FLASHINFER_BUILD_NO_PIP": "1"}
        return {name: value for name, value in values.items() if name not in os.environ}

    def fits(self, version: str) -> bool:
        """Whether it is this package's version (PEP 440, without a local version)."""
        try:
            return not self.version or Version(version).public == Version(self.version).public
        except InvalidVersion:
            return version == self.version

    def is_checkout(self, found: Distribution | None) -> bool:
        """Whether the installed distribution is this checkout: editable (PEP 610), its directory, its version."""
        if not found or found.broken or not found.editable or not found.location:
            return False
        return os.path.realpath(found.location) == os.path.realpath(self.folder) and self.fits(found.version)

    def is_current(self, environment: Environment, deps: bool, ours: Iterable[str]) -> bool:
        """Whether it is installed as it is now; with `deps`, what it requires, too, except for the names in `ours`."""
        found = environment.distribution(self.name)
        if not found or not self.is_checkout(found) or any(map(environment.distribution, self.aliases)):
            return False
        recorded, state = self._recorded().get(str(environment.prefix)), self._state()
        if recorded not in ([state] if deps else [state, state + NO_DEPS]):
            return False
        companions = map(environment.distribution, self.layout.companions)
        if any(other and not self.fits(other.version) for other in companions):
            return False
        try:
            missing = missing_requirements(environment, found, self.repository.extras) if deps else ()
        except SourcesError:  # damaged metadata
            return False
        return all(canonicalize_name(one.requirement.name) in ours for one in missing)

    def without_deps(self, environment: Environment) -> bool:
        """Whether it was installed with `--no-deps`."""
        return str(self._recorded().get(str(environment.prefix))).endswith(NO_DEPS)

    def remember(self, environment: Environment, deps: bool | None) -> None:
        """Record that it is installed as it is now, with its requirements or without; or, with None, that it is not."""
        states = self._recorded()
        states.pop(str(environment.prefix), None)
        if deps is not None:
            states[str(environment.prefix)] = self._state() + ("" if deps else NO_DEPS)
        write_atomic(self.repository.path / ".git" / RECORD, json.dumps(states, indent=1))

    def _recorded(self) -> dict[str, object]:
        """In which state it is installed, by the prefix of the environment; empty if no record can be read."""
        with suppress(OSError, ValueError, TypeError):
            return {**json.loads((self.repository.path / ".git" / RECORD).read_text(encoding="utf-8"))}
        return {}

    def _state(self) -> str:
        """A digest of what an installation depends on."""
        files = [self.folder / name for name in BUILD_FILES]
        contents = [file.read_bytes() if file.is_file() else b"" for file in files]
        return hashlib.sha256(repr([self.commit, sorted(self.repository.extras), contents]).encode()).hexdigest()


def names(packages: Sequence[Package]) -> set[str]:
    """The distributions that come with these packages and from nowhere else."""
    return {n for one in packages for n in (one.name, *one.aliases, *one.layout.companions)}
