"""The package in a checkout: its metadata, what is installed of it, and whether that is current."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from ..errors import SourcesError
from ..files import write_atomic
from ..git import Checkout
from ..git.refs import highest, release
from .environment import Distribution, Environment
from .layouts import find_layout
from .metadata import Metadata, read_metadata
from .requirements import FLASHINFER, missing_requirements

BUILD_FILES = ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "version.txt")
RECORD = "installed.json"  # in the checkout's git directory
NO_DEPS = " without requirements"


class Package:
    """What a checkout has to be installed. Raises SourcesError if its metadata is not valid.

    The checkout's git directory has a record of the environments that it was installed into. `version` is the one in
    the files; if they leave it to the tags (setuptools-scm), the release at this commit, or else the highest tag, as
    SGLang's build has it. It is empty if neither exists.
    """

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout
        self.repository = checkout.repository
        self.commit = checkout.head
        self.layout = find_layout(self.repository.name, lambda path: (checkout.path / path).exists())
        file = Path(self.layout.folder, "pyproject.toml")
        version = _content(checkout.path / "version.txt").decode(errors="replace").strip()
        content = _content(checkout.path / file)
        self.metadata: Metadata = read_metadata(content, str(file), version, self.layout.module)
        self.installable = bool(content)
        self.version = _tagged(checkout) if self.metadata.from_tags else self.metadata.version

    def __str__(self) -> str:
        return f"{self.repository.name} {self.version}".strip()

    @property
    def folder(self) -> Path:
        """The directory that has the pyproject.toml or setup.py."""
        return self.checkout.path / self.layout.folder

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
    def scm_variable(self) -> str:
        """The environment variable that tells setuptools-scm the version of this package."""
        return f"SETUPTOOLS_SCM_PRETEND_VERSION_FOR_{self.name.upper().replace('-', '_')}"

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables for the build, none of which the user has set."""
        tagged = self.version and self.metadata.from_tags and self.scm_variable not in os.environ
        return {self.scm_variable: self.version} if tagged else {}  # this release, whatever newer tags there are

    def fits(self, version: str) -> bool:
        """Whether it is this package's version (PEP 440, without a local version)."""
        try:
            return not self.version or Version(version).public == Version(self.version).public
        except InvalidVersion:
            return version == self.version

    def unfitting(self, environment: Environment) -> list[str]:
        """Of what is installed, what must not stay beside it: its aliases, and companions of another version."""
        return [
            name
            for name, version in environment.versions().items()
            if name in self.aliases or (name.startswith(self.layout.companions) and not self.fits(version))
        ]

    def is_checkout(self, found: Distribution | None) -> bool:
        """Whether the installed distribution is this checkout: editable (PEP 610), its directory, its version."""
        if not found or found.broken or not found.editable or not found.location:
            return False
        return os.path.realpath(found.location) == os.path.realpath(self.folder) and self.fits(found.version)

    def is_current(
        self, environment: Environment, deps: bool, ours: Collection[str], overrides: Sequence[str] = ()
    ) -> bool:
        """Whether it is installed as it is now; with `deps`, what it requires, too, except for the names in `ours` and
        with the `overrides` of the configuration."""
        found = environment.distribution(self.name)
        if not found or not self.is_checkout(found) or self.unfitting(environment):
            return False
        recorded, state = self._recorded().get(str(environment.prefix)), self._state(overrides)
        if recorded not in ([state] if deps else [state, state + NO_DEPS]):
            return False
        try:
            extras = self.repository.extras
            missing = missing_requirements(environment, found, extras, overrides) if deps else ()
        except SourcesError:  # damaged metadata
            return False
        return all(canonicalize_name(one.requirement.name) in ours for one in missing)

    def without_deps(self, environment: Environment) -> bool:
        """Whether it was installed with `--no-deps`."""
        return str(self._recorded().get(str(environment.prefix))).endswith(NO_DEPS)

    def remember(self, environment: Environment, deps: bool | None, overrides: Sequence[str] = ()) -> None:
        """Record that it is installed as it is now, with its requirements or without; or, with None, that it is not."""
        states = self._recorded()
        states.pop(str(environment.prefix), None)
        if deps is not None:
            states[str(environment.prefix)] = self._state(overrides) + ("" if deps else NO_DEPS)
        write_atomic(self.checkout.git_dir / RECORD, json.dumps(states, indent=1))

    def _recorded(self) -> dict[str, object]:
        """In which state it is installed, by the prefix of the environment; empty if no record can be read."""
        with suppress(OSError, ValueError, TypeError):
            return {**json.loads((self.checkout.git_dir / RECORD).read_text(encoding="utf-8"))}
        return {}

    def _state(self, overrides: Sequence[str]) -> str:
        """A digest of what an installation depends on."""
        contents = [_content(self.folder / name) for name in BUILD_FILES]
        known = [self.commit, sorted(self.repository.extras), contents, sorted(overrides)]
        return hashlib.sha256(repr(known).encode()).hexdigest()


def _content(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def _tagged(checkout: Checkout) -> str:
    """The release at the commit of the checkout, or else its highest tag; empty for none."""
    here = [version for tag, commit in checkout.tags.items() if commit == checkout.head and (version := release(tag))]
    return str(max(here, default=None) or highest(checkout.tags) or "")


def version_of(checkout: Checkout) -> str:
    """The version of what is in a checkout; of one without a package its release tag; empty where it is unknown."""
    try:
        return Package(checkout).version
    except (SourcesError, OSError):
        return _tagged(checkout)


def names(packages: Sequence[Package]) -> set[str]:
    """The distributions that come with these packages and from nowhere else."""
    return {n for one in packages for n in (one.name, *one.aliases, *one.layout.companions)}
