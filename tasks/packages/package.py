"""The package in a checkout: where it is, its metadata, whether it is installed, and which FlashInfer it requires."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from ..errors import SourcesError, UsageError
from ..git import Checkout
from ..git.refs import highest, release
from ..names import redact
from .environment import Distribution, Environment, admits, applying, missing_requirements

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BUILD_FILES = ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "version.txt")
RUST = {"setuptools-rust", "maturin"}
FALLBACK_EXTRAS = (("srt",), ("all",))  # in which SGLang before 0.5.3 has its requirements
FLASHINFER = ("flashinfer", "flashinfer-python")  # its distribution had the first name up to v0.2.0
COMPANIONS = ("flashinfer-cubin", "flashinfer-jit-cache")


@dataclass(frozen=True)
class Layout:
    """Where things are in a checkout; paths are relative to it, with `/`.

    `folder` is what gets installed ("" is the root), `module` what is imported ("" if it is named like the
    distribution). `companions` (and distributions whose names begin like theirs) must have the package's own version.
    `directories` has the paths of each key directory in different releases, the newest first.
    """

    folder: str
    module: str = ""
    companions: tuple[str, ...] = ()
    directories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def find_directories(self, checkout: Path) -> dict[str, Path]:
        """The key directories that exist in the checkout, by role."""
        paths = {role: [checkout / place for place in places] for role, places in self.directories.items()}
        found = {role: next(filter(Path.is_dir, places), None) for role, places in paths.items()}
        return {role: path for role, path in found.items() if path}


LAYOUTS: Mapping[str, Layout] = {
    "sglang": Layout("python", "sglang", (), {
        "models": ("python/sglang/srt/models",),
        "layers": ("python/sglang/srt/layers",),
        "attention": ("python/sglang/srt/layers/attention",),
        "moe": ("python/sglang/srt/layers/moe", "python/sglang/srt/layers/fused_moe_triton"),  # the latter: v0.4.0
    }),
    "flashinfer": Layout("", "flashinfer", COMPANIONS, {
        "package": ("flashinfer", "python/flashinfer"),  # the latter: before v0.2.0
        "headers": ("include/flashinfer",),
        "sources": ("csrc", "python/csrc"),
        "tests": ("tests", "python/tests"),
    }),
}  # fmt: skip


class Package:
    """What a checkout has to be installed, from its own files (PEP 621), without running or building anything.

    `name` is that of the distribution, normalized. `requires` is in the form of Requires-Dist: what an extra requires
    has a marker (PEP 508). `built_with` are the normalized names of the build requirements. `version` is that of the
    files; if they leave it to the tags (setuptools-scm), the release at this commit, or else the highest tag, as
    SGLang's build has it. It is empty if neither exists. What is not `installable` can be cloned and read.

    The checkout's git directory has a record of the environments that it was installed into. Raises SourcesError, which
    names the file, for metadata that is not valid.
    """

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout
        self.repository = checkout.repository
        self.commit = checkout.head
        folders = [folder for folder in ("", "python") if (checkout.path / folder / "pyproject.toml").is_file()]
        self.layout = LAYOUTS.get(self.repository.name) or Layout(next(iter(folders), ""))
        file = Path(self.layout.folder, "pyproject.toml")
        content = _content(checkout.path / file)
        self.installable = bool(content)
        toml = read_toml(content, str(file))
        try:
            project, build = toml.get("project", {}), toml.get("build-system", {})
            self.name: str = canonicalize_name(project.get("name", self.layout.module), validate=True)
            self.requires = [Requirement(text) for text in project.get("dependencies", [])]
            for extra, texts in project.get("optional-dependencies", {}).items():
                self.requires += [_in_extra(Requirement(text), extra) for text in texts]
            build_requires = [Requirement(text) for text in build.get("requires", [])]
            self.built_with: set[str] = {canonicalize_name(requirement.name) for requirement in build_requires}
            version: str = project.get("version") or _content(checkout.path / "version.txt").decode(errors="replace")
            self.version = ""
            with suppress(InvalidVersion):
                self.version = str(Version(version))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise SourcesError(f"{file} is not valid (PEP 621): {redact(str(error))[:200]}") from None
        self.from_tags = not self.version and "setuptools-scm" in self.built_with
        if self.from_tags:
            self.version = _tagged(checkout)

    def __str__(self) -> str:
        return f"{self.repository.name} {self.version}".strip()

    @property
    def folder(self) -> Path:
        """The directory that has the pyproject.toml or setup.py."""
        return self.checkout.path / self.layout.folder

    @property
    def module(self) -> str:
        """What is imported."""
        return self.layout.module or self.name.replace("-", "_")

    @property
    def needs_rust(self) -> bool:
        """Whether the build compiles Rust extensions."""
        return bool(self.built_with & RUST)

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other distributions with the same module: FlashInfer changed its name once."""
        return tuple(name for name in FLASHINFER if name != self.name) if self.name in FLASHINFER else ()

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables for the build, none of which the user has set."""
        name = f"SETUPTOOLS_SCM_PRETEND_VERSION_FOR_{self.name.upper().replace('-', '_')}"
        tagged = self.version and self.from_tags and name not in os.environ
        return {name: self.version} if tagged else {}  # this release, whatever newer tags there are

    def fits(self, version: str) -> bool:
        """Whether it is this package's version (PEP 440, without a local version)."""
        return not self.version or admits(SpecifierSet(f"=={Version(self.version).public}"), version)

    def unfitting(self, environment: Environment) -> list[str]:
        """Of what is installed, what must not stay beside it: its aliases, and companions of another version."""
        return [
            name
            for name, version, _ in environment.metadata_directories()
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
        if _content(self._record(environment)) != self._state(overrides).encode():
            return False
        try:
            extras = self.repository.extras
            missing = missing_requirements(environment, found, extras, overrides) if deps else {}
        except SourcesError:  # damaged metadata
            return False
        return all(canonicalize_name(requirement.name) in ours for requirement in missing)

    def forget(self, environment: Environment) -> None:
        """Record that it is not installed as it is now."""
        self._record(environment).unlink(missing_ok=True)

    def remember(self, environment: Environment, overrides: Sequence[str]) -> None:
        """Record that it is installed as it is now, with these overrides."""
        self._record(environment).write_text(self._state(overrides))

    def _record(self, environment: Environment) -> Path:
        """The file that says in which state it is installed into the environment."""
        name = hashlib.sha256(str(environment.prefix).encode()).hexdigest()
        return self.checkout.git_dir / f"installed-{name[:16]}.txt"

    def _state(self, overrides: Sequence[str]) -> str:
        """A digest of what an installation depends on."""
        contents = [_content(self.folder / name) for name in BUILD_FILES]
        known = [self.commit, sorted(self.repository.extras), contents, sorted(overrides)]
        return hashlib.sha256(repr(known).encode()).hexdigest()


def read_toml(content: bytes, name: str) -> dict[str, Any]:
    """Parse a TOML document. Raises SourcesError, which names the file and the line, if it is not valid."""
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # the latter: nested too deeply
        raise SourcesError(f"{name} is not valid TOML: {str(error)[:200]}") from None


def _in_extra(requirement: Requirement, extra: str) -> Requirement:
    """The requirement of an extra, as Requires-Dist has it."""
    wanted = f"extra == '{canonicalize_name(extra)}'"
    requirement.marker = Marker(f"({requirement.marker}) and {wanted}" if requirement.marker else wanted)
    return requirement


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


def matching(package: Package, tags: Iterable[str], url: str) -> str:
    """The FlashInfer tag that the package requires: that of an exact pin; of a range its lower end, which is what the
    package's authors had; without a lower end the newest release that satisfies it; a pre-release as PEP 440 has it.

    Messages show FlashInfer's `url`. Raises UsageError if nothing is required or no tag satisfies it.
    """
    name, latest = f"{package.name} {package.version}".strip(), "invoke setup --flashinfer-branch=latest"
    requirement = flashinfer_requirement(package)
    if requirement is None:
        raise UsageError(f"{name} requires no FlashInfer, so there is nothing to match.", command=latest)
    versions = {version: tag for tag in tags if (version := release(tag))}
    specifier = requirement.specifier
    fitting = list(specifier.filter(versions))
    if fitting and not requirement.url:
        has_lower_end = any(clause.operator in (">", ">=", "~=") for clause in specifier)
        return versions[min(fitting) if has_lower_end else max(fitting)]
    what = f"{name} requires `{redact(str(requirement))}`; {redact(url)} has no tag for such a version."
    raise UsageError(what, command=latest)


def flashinfer_requirement(package: Package) -> Requirement | None:
    """What the package requires of FlashInfer, or None.

    Its base requirements count, and those of its configured extras, else of `srt`, else of `all`. Markers (PEP 508) are
    evaluated for this interpreter, and several requirements are intersected. Raises SourcesError for a marker without
    meaning.
    """
    for extras in (package.repository.extras, *FALLBACK_EXTRAS):
        needed = applying(lambda name: package.requires if name == package.name else (), {package.name: extras}, {})
        if found := [requirement for requirement in needed if canonicalize_name(requirement.name) in FLASHINFER]:
            found[0].specifier = SpecifierSet(",".join({str(requirement.specifier) for requirement in found}))
            return found[0]
    return None
