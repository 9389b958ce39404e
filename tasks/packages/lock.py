"""The lock file `pylock.sources.toml`: a set-up is locked, so that it can be reproduced, and compared with a lock.

What SGLang and FlashInfer require is in it as uv writes it (PEP 751), with versions and hashes. The checkouts are in
`[tool.flashinfer-sources]`. What only the builds need (setuptools and the like) is not locked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from packaging.pylock import Package as Entry
from packaging.pylock import Pylock, PylockValidationError
from packaging.utils import canonicalize_name, canonicalize_version

from ..errors import InstallError, LocalWorkError, SourcesError, UsageError
from ..models import Check
from ..names import check_ref, check_url, redact
from .environment import Distribution, Environment, applying
from .package import Package, read_toml
from .uv import Uv, mask, write

FILE = "pylock.sources.toml"
TOOL = "flashinfer-sources"
MARKERS = ("implementation_name", "python_version", "sys_platform", "platform_machine")


@dataclass(frozen=True)
class LockedRepository:
    """A checkout: the REF that was asked for, its commit, the commits of its submodules by path, and the extras."""

    name: str
    url: str
    ref: str
    commit: str
    submodules: Mapping[str, str]
    extras: Sequence[str] = ()


@dataclass(frozen=True)
class Lock:
    """All checkouts, the distributions from package indexes as in PEP 751, the Python and platform that it was made on,
    and the overrides that were configured then."""

    repositories: Sequence[LockedRepository]
    distributions: Sequence[Entry]
    made_on: str
    overrides: Sequence[str]

    @property
    def versions(self) -> dict[str, str]:
        """Distribution names with their versions."""
        return {entry.name: str(entry.version) for entry in self.distributions}

    def requirements(self) -> list[str]:
        """The distributions as the lines of a requirements file with hashes."""
        lines = []
        for entry in self.distributions:
            known = [wheel.hashes for wheel in entry.wheels or ()] + ([entry.sdist.hashes] if entry.sdist else [])
            hashes = {f"--hash={kind}:{digest}" for each in known for kind, digest in each.items()}
            lines.append(" ".join([f"{entry.name}=={entry.version}", *sorted(hashes)]))
        return lines

    def lacking(self, environment: Environment) -> list[str]:
        """The distributions that are not installed in the locked versions."""
        return [name for name, version in self.versions.items() if _installed(environment, name) != version]


def platform(environment: Environment) -> str:
    """The Python and platform of an environment: what wheels depend on."""
    return " ".join(environment.markers[name] for name in MARKERS)


def make_lock(
    uv: Uv, packages: Sequence[Package], repositories: Sequence[LockedRepository], obstacles: Sequence[str] = ()
) -> str:
    """The text of the lock file of the checkouts `repositories` and of what the `packages` require, in the versions
    installed now; the same for the same set-up.

    uv asks the package index for the files of these versions and their hashes. `obstacles` are what keeps checkouts
    from being reproduced, such as `sglang: 2 changed files`. Raises LocalWorkError, which names them and those of the
    environment, NetworkError, or InstallError.
    """
    import tomli_w

    environment, log = uv.environment, uv.log
    needed = _needed(packages, environment)
    missing = [package for package in packages if not package.is_checkout(environment.distribution(package.name))]
    obstacles = [*obstacles, *(f"{package.name} is not installed from {package.folder}" for package in missing)]
    for name, found in sorted(needed.items()):
        obstacles += [f"{name}: {found.broken}"] if found.broken else []
        obstacles += [f"{name} is installed from {redact(found.url)}"] if found.url else []
    if obstacles:
        hint = "Commit and push changes; install packages from a package index."
        command = "invoke install" if missing else ""
        raise LocalWorkError(f"This set-up cannot be reproduced: {'; '.join(obstacles)}.", hint, command)
    if uv.c.config.run.dry:
        return ""
    pins = write(log.with_suffix(".lock.txt"), [f"{name}=={found.version}" for name, found in sorted(needed.items())])
    output = log.with_name("pylock.index.toml")
    output.unlink(missing_ok=True)  # uv would prefer what is in it
    uv.run("asking the package index for hashes", [
        "compile", "--quiet", "--no-deps", "--no-header", "--format=pylock.toml", f"--output-file={output}",
        "--index-strategy=unsafe-best-match", pins,
    ])  # fmt: skip
    distributions = mask(output.read_text(encoding="utf-8"), uv.variables)
    output.unlink()
    try:
        Pylock.from_dict(read_toml(distributions.encode(), output.name))
    except PylockValidationError as error:
        raise InstallError(f"The package index does not have the hashes of all files: {error}") from None
    own = {
        "made-on": platform(environment),
        "overrides": [*uv.settings.overrides],
        "repositories": [asdict(locked) for locked in sorted(repositories, key=lambda locked: locked.name)],
    }
    return f"{distributions}\n{_without_users(tomli_w.dumps({'tool': {TOOL: own}}))}"


def differences(
    lock: Lock, packages: Sequence[Package], repositories: Sequence[LockedRepository], environment: Environment,
    overrides: Sequence[str] = (),
) -> list[Check]:  # fmt: skip
    """A failed check for each difference between the lock and the set-up; one that passes if there is none."""
    versions = {name: _installed(environment, name) for name in {*_needed(packages, environment), *lock.versions}}
    now = _locked_facts(repositories, versions, platform(environment), overrides)
    locked = _locked_facts(lock.repositories, lock.versions, lock.made_on, lock.overrides)
    failed = [
        Check(f"lock: {key}", "fail", f"{now.get(key) or 'none'}, locked is {locked.get(key) or 'none'}",
              command="invoke setup --locked")
        for key in sorted({*now, *locked}) if now.get(key, "") != locked.get(key, "")
    ]  # fmt: skip
    size = f"{len(lock.repositories)} repositories and {len(lock.distributions)} distributions"
    return failed or [Check("lock", "pass", size)]


def _locked_facts(
    repositories: Sequence[LockedRepository], versions: Mapping[str, str], made_on: str, overrides: Sequence[str]
) -> dict[str, str]:
    """What a lock fixes, each under a name of its own."""
    facts = {"made on": made_on, "overrides": ", ".join(sorted(overrides))}
    for locked in repositories:
        own = {"url": _without_users(locked.url), "commit": locked.commit, "extras": ", ".join(sorted(locked.extras))}
        facts |= {f"{locked.name} {key}": value for key, value in {**own, **locked.submodules}.items()}
    return facts | {f"{name} version": version for name, version in versions.items()}


def _needed(packages: Sequence[Package], environment: Environment) -> dict[str, Distribution]:
    """The installed distributions that the packages (with their extras) require, directly or not, and their companions.

    Raises SourcesError for metadata that cannot be read.
    """
    find = cache(environment.distribution)

    def requires(name: str) -> Iterable[str]:
        found = find(name)
        return found.requires if found else ()

    own = {package.name: package.repository.extras for package in packages}
    roots = {name: () for package in packages for name in package.layout.companions}
    needed = applying(requires, {**roots, **own}, environment.markers)
    names = {*roots, *(canonicalize_name(requirement.name) for requirement in needed)} - {*own}
    return {name: found for name in names if (found := find(name))}


def _installed(environment: Environment, name: str) -> str:
    """The installed version, and the directory that it is installed from, if it is from one; empty for none."""
    found = environment.distribution(name)
    version = canonicalize_version(found.version, strip_trailing_zero=False) if found else ""
    return f"{version} from {found.location}" if found and found.location else version


def _without_users(text: str) -> str:
    """The text without the users and passwords of the URLs in it, except for `ssh://git@…`."""
    return redact(text).replace("://***@", "://")


def read_lock(path: Path) -> Lock:
    """The lock in a file that `make_lock` wrote. Raises UsageError."""
    try:
        content = read_toml(path.read_bytes(), path.name)
        tool = content["tool"][TOOL]
        lock = Lock(
            repositories=[LockedRepository(**entry) for entry in tool["repositories"]],
            distributions=Pylock.from_dict(content).packages,
            made_on=tool["made-on"],
            overrides=tool["overrides"],
        )
        _check_values(lock, path)
        return lock
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "`invoke lock` writes this file.", "invoke lock") from None
    except (SourcesError, ValueError, KeyError, TypeError, AttributeError, PylockValidationError) as error:
        raise UsageError(f"{path} is not a lock file of this tool (PEP 751): {error!s:.200}") from None


def _check_values(lock: Lock, path: Path) -> None:
    """Raise something that `read_lock` catches for a value that is not what it should be."""
    texts = [lock.made_on, *lock.overrides]
    for locked in lock.repositories:
        texts += [locked.name, *locked.extras]
        check_url(locked.url, f"{path}: {locked.name}", allow_local=True)
        check_ref(locked.ref)
        for commit in (locked.commit, *locked.submodules.values()):
            if not re.fullmatch("[0-9a-f]{40}", commit):
                raise ValueError(f"{commit!a} is not a commit id of 40 digits")
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{text!a:.80} must be a text")
