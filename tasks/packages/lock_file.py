"""The lock file `pylock.sources.toml` (PEP 751): what is in it, and how it is read and written.

SGLang and FlashInfer are `vcs` packages in it, and what they require has versions and hashes. What the standard has no
field for is in `[tool.flashinfer-sources]`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.pylock import Package as Entry
from packaging.pylock import PackageVcs, Pylock, PylockValidationError
from packaging.utils import canonicalize_name, canonicalize_version
from packaging.version import Version

from ..errors import SourcesError, UsageError
from ..names import LATEST, MATCHING, check_ref, check_url, redact
from .environment import Environment
from .metadata import read_toml

FILE = "pylock.sources.toml"
TOOL = "flashinfer-sources"
MARKERS = ("implementation_name", "platform_machine", "python_version", "sys_platform")  # those that wheels depend on


@dataclass(frozen=True)
class LockedRepository:
    """A checkout: the REF that was asked for, its commit, and the commits of its submodules by path.

    `distribution`, `subdirectory` and `extras` are those of the package that is installed from it, if one is.
    """

    name: str
    url: str
    ref: str
    commit: str
    submodules: Mapping[str, str]
    distribution: str = ""
    subdirectory: str = ""
    extras: tuple[str, ...] = ()

    @property
    def package(self) -> Entry:
        """The package in the terms of PEP 751; `user@host:path` becomes the URL that means the same."""
        host = re.fullmatch(r"(?!\w+://)([^/]+?):(?!//)/?(.+)", self.url)
        url = f"ssh://{host[1]}/{host[2]}" if host else f"file://{self.url}" if self.url[0] == "/" else self.url
        revision = None if self.ref in (LATEST, MATCHING) else self.ref
        folder = self.subdirectory or None
        vcs = PackageVcs(type="git", url=url, requested_revision=revision, commit_id=self.commit, subdirectory=folder)
        return Entry(name=canonicalize_name(self.distribution), vcs=vcs)


@dataclass(frozen=True)
class Lock:
    """All checkouts, the distributions from package indexes as in PEP 751, the markers (PEP 508) of the Python and
    platform that it was made on, and the overrides that were configured then."""

    repositories: tuple[LockedRepository, ...]
    distributions: tuple[Entry, ...]
    made_on: Mapping[str, str]
    overrides: tuple[str, ...] = ()

    @property
    def versions(self) -> dict[str, str]:
        """Distribution names with their versions."""
        return {entry.name: str(entry.version) for entry in self.distributions}

    @property
    def size(self) -> str:
        """How much is locked, in words."""
        return f"{len(self.repositories)} repositories and {len(self.distributions)} distributions"

    def text(self) -> str:
        """The text of the file, without passwords; the same for the same lock."""
        import tomli_w

        entries = [*self.distributions, *(locked.package for locked in self.repositories if locked.distribution)]
        repositories = [asdict(locked) for locked in self.repositories]
        lock = Pylock(
            lock_version=Version("1.0"),
            created_by=TOOL,
            environments=[Marker(" and ".join(f"{name} == '{value}'" for name, value in self.made_on.items()))],
            packages=sorted(entries, key=lambda entry: entry.name),
            tool={TOOL: {"made-on": self.made_on, "overrides": [*self.overrides], "repositories": repositories}},
        )
        return public(tomli_w.dumps(lock.to_dict()))

    def requirements(self) -> list[str]:
        """The distributions as the lines of a requirements file with hashes."""
        lines = []
        for entry in self.distributions:
            hashes = [wheel.hashes for wheel in entry.wheels or ()] + ([entry.sdist.hashes] if entry.sdist else [])
            options = {f"--hash={kind}:{digest}" for known in hashes for kind, digest in known.items()}
            lines.append(" ".join([f"{entry.name}=={entry.version}", *sorted(options)]))
        return lines

    def mismatch(self, environment: Environment) -> str:
        """How the environment's Python or platform differs from that of the lock; empty if it does not."""
        now = environment.markers
        return ", ".join(f"{name} is {now[name]}, not {was}" for name, was in self.made_on.items() if now[name] != was)

    def lacking(self, environment: Environment) -> list[str]:
        """The distributions that are not installed in the locked versions."""
        return [name for name, version in self.versions.items() if installed(environment, name) != version]


def installed(environment: Environment, name: str) -> str:
    """The installed version, and the directory that it is installed from, if it is from one; empty for none."""
    found = environment.distribution(name)
    version = canonicalize_version(found.version, strip_trailing_zero=False) if found else ""
    return f"{version} from {found.location}" if found and found.location else version


def public(text: str) -> str:
    """The text without the users and passwords of the URLs in it, except for `ssh://git@…`."""
    return redact(text).replace("://***@", "://")


def read_lock(path: Path) -> Lock:
    """The lock in a file that was written with `Lock.text`. Raises UsageError."""
    try:
        content = Pylock.from_dict(read_toml(path.read_bytes(), path.name))
        tool = (content.tool or {})[TOOL]
        made_on = {name: tool["made-on"][name] for name in MARKERS}
        overrides = tuple(tool.get("overrides", []))
        _check_texts(*made_on.values(), *overrides)
        repositories = tuple(_read_repository(entry, path) for entry in tool["repositories"])
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "`invoke lock` writes this file.", "invoke lock") from None
    except (SourcesError, ValueError, KeyError, TypeError, AttributeError, PylockValidationError) as error:
        raise UsageError(f"{path} is not a lock file of this tool (PEP 751): {error!s:.200}") from None
    return Lock(repositories, tuple(entry for entry in content.packages if not entry.vcs), made_on, overrides)


def _read_repository(entry: Mapping[str, Any], path: Path) -> LockedRepository:
    """A repository in `[tool.flashinfer-sources]`. Raises what `read_lock` catches."""
    locked = LockedRepository(**{**entry, "extras": tuple(entry["extras"])})
    commits = (locked.commit, *locked.submodules.values())
    own = (locked.name, locked.url, locked.ref, locked.distribution, locked.subdirectory)
    _check_texts(*own, *locked.extras, *commits)
    check_url(locked.url, f"{path}: {locked.name}", allow_local=True)
    check_ref(locked.ref)
    for commit in commits:
        if not re.fullmatch("[0-9a-f]{40}", commit):
            raise ValueError(f"{commit!a} is not a commit id of 40 digits")
    return locked


def _check_texts(*values: object) -> None:
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"{value!a:.80} must be a text")
