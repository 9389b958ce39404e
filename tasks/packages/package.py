"""What a checkout says about its own package, what is to be installed of it, and whether it is installed already."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from ..errors import SourcesError
from ..git import write_atomic
from ..git.revisions import highest, release
from ..models import Repository
from .environment import Distribution, Environment
from .layouts import Layout, find_layout
from .matching import FLASHINFER
from .metadata import Metadata, read_metadata
from .requirements import missing_requirements

BUILD_FILES = ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "version.txt")
STAMP = "installed.json"
HOOKS = ("BUILD_NVEP", "BUILD_NIXL_EP", "BUILD_NCCL_EP", "FLASHINFER_BUILD_NO_PIP")


@dataclass(frozen=True)
class Source:
    """The files of the checkout of `repository` at `commit`; `tags` are its local tags, name to commit id."""

    repository: Repository
    commit: str
    tags: Mapping[str, str]

    @cached_property
    def layout(self) -> Layout:
        """Raises SourcesError where the files have no known layout."""
        return find_layout(self.repository.name, lambda path: (self.repository.path / path).exists())

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The metadata files, path to content."""
        places = {name: self.repository.path / name for name in self.layout.metadata_files}
        return {name: place.read_bytes() for name, place in places.items() if place.is_file()}

    @cached_property
    def metadata(self) -> Metadata:
        """Raises SourcesError where a file is not valid."""
        return read_metadata(self.files, self.layout.folder)

    @property
    def version(self) -> str:
        """The version in the files; where they leave it to the tags (setuptools-scm), the release at this commit, or
        else the highest tag, as SGLang's build has it. Empty where neither exists. Raises SourcesError."""
        if self.layout.installable and not self.metadata.from_tags:
            return self.metadata.version or ""
        here = (release(tag) for tag, commit in self.tags.items() if commit == self.commit)
        newest = max((version for version in here if version), default=None)
        return str(newest or (highest(self.tags) if self.layout.installable else None) or "")


@dataclass(frozen=True)
class Package:
    """What gets installed: `folder` holds its pyproject.toml or setup.py, `version` is the checkout's (empty: unknown).

    In `git_dir` is recorded what of it was installed where. `companions` must have the package's version.
    """

    repository: str
    folder: Path
    metadata: Metadata
    version: str
    module: str
    commit: str
    git_dir: Path
    extras: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: Source) -> Package:
        """What is to be installed of a checkout. Raises SourcesError where its metadata cannot be read."""
        layout, metadata, repository = source.layout, source.metadata, source.repository
        module = layout.module or metadata.distribution.replace("-", "_")
        return cls(
            repository.name, repository.path / layout.folder, metadata, source.version, module, source.commit,
            repository.path / ".git", repository.extras, layout.companions,
        )  # fmt: skip

    def __str__(self) -> str:
        return f"{self.repository} {self.version}".strip()

    @property
    def name(self) -> str:
        """The distribution's normalized name."""
        return canonicalize_name(self.metadata.distribution)

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other distributions that bring the same module: FlashInfer changed its name once."""
        return tuple(name for name in FLASHINFER if name != self.name) if self.name in FLASHINFER else ()

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables for the build, none of which the user has set."""
        values = {}
        if self.version and self.metadata.from_tags:
            # A checkout of a release is that release, though there are newer tags.
            values[f"SETUPTOOLS_SCM_PRETEND_VERSION_FOR_{re.sub('[-_.]+', '_', self.name).upper()}"] = self.version
        if self.name in FLASHINFER and not any(hook in os.environ for hook in HOOKS):
            # By default FlashInfer's build hook downloads CUDA wheels and compiles nixl, up to three times, into the
            # build's own environment, which is thrown away.
            values |= {"BUILD_NVEP": "0", "FLASHINFER_BUILD_NO_PIP": "1"}
        return {name: value for name, value in values.items() if name not in os.environ}

    def fits(self, version: str) -> bool:
        """Whether it is this package's version (PEP 440, less what comes after a `+`)."""
        try:
            return not self.version or Version(version).public == Version(self.version).public
        except InvalidVersion:
            return version == self.version

    def is_checkout(self, found: Distribution | None) -> bool:
        """Whether what was found installed is this checkout: editable (PEP 610), from its folder, in its version."""
        if not found or found.broken or not found.editable or not found.location:
            return False
        return os.path.realpath(found.location) == os.path.realpath(self.folder) and self.fits(found.version)

    def is_current(self, environment: Environment, deps: bool, ours: Iterable[str]) -> bool:
        """Whether it is installed as it is now; with `deps` also what it requires, but for the names in `ours`."""
        found = environment.distribution(self.name)
        if not found or not self.is_checkout(found) or any(map(environment.distribution, self.aliases)):
            return False
        stamp = self._stamp(environment)
        if stamp.get("state") != self._state() or deps > bool(stamp.get("deps")):
            return False
        if any(other and not self.fits(other.version) for other in map(environment.distribution, self.companions)):
            return False
        try:
            missing = missing_requirements(environment, found, self.extras) if deps else ()
        except SourcesError:  # damaged metadata
            return False
        return all(canonicalize_name(one.requirement.name) in ours for one in missing)

    def without_deps(self, environment: Environment) -> bool:
        """Whether it was installed with `--no-deps`."""
        return self._stamp(environment).get("deps") is False

    def remember(self, environment: Environment, deps: bool | None) -> None:
        """Record that it is installed as it is now, with its requirements or without; or, with None, that it is not."""
        stamps = self._stamps()
        stamps.pop(str(environment.prefix), None)
        if deps is not None:
            stamps[str(environment.prefix)] = {"state": self._state(), "deps": deps}
        write_atomic(self.git_dir / STAMP, json.dumps(stamps, indent=1))

    def _stamp(self, environment: Environment) -> dict[str, Any]:
        stamp = self._stamps().get(str(environment.prefix))
        return stamp if isinstance(stamp, dict) else {}

    def _stamps(self) -> dict[str, Any]:
        try:
            stamps = json.loads((self.git_dir / STAMP).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stamps if isinstance(stamps, dict) else {}

    def _state(self) -> str:
        files = [self.folder / name for name in BUILD_FILES]
        contents = [file.read_bytes().hex() if file.is_file() else "" for file in files]
        known = [self.commit, sorted(self.extras), sorted(self.companions), contents]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def names(packages: Sequence[Package]) -> set[str]:
    """The distributions that come with these packages and from nowhere else."""
    return {n for one in packages for n in (one.name, *one.aliases, *one.companions)}
