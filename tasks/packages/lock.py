"""A set-up is locked, so that it can be reproduced, and compared with a lock.

What only the builds need (setuptools and the like) is not locked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from invoke.context import Context
from packaging.pylock import Package as Entry
from packaging.pylock import Pylock, PylockValidationError
from packaging.utils import canonicalize_name

from ..errors import InstallError, LocalWorkError
from ..models import Check, Reporter, Settings
from ..names import redact
from . import indexes
from .environment import Distribution, Environment
from .install import _write
from .lock_file import MARKERS, Lock, LockedRepository, installed, public
from .metadata import read_toml
from .package import Package
from .requirements import applying
from .uv import Uv


def make_lock(
    c: Context, packages: Sequence[Package], repositories: Sequence[LockedRepository], environment: Environment, *,
    settings: Settings, log: Path, reporter: Reporter, obstacles: Sequence[str] = (),
) -> Lock:  # fmt: skip
    """The lock of the checkouts `repositories` and of what the `packages` require, in the versions installed now.

    uv asks the package index for the files of these versions and their hashes. `obstacles` are what keeps checkouts
    from being reproduced, such as `sglang: 2 changed files`. Raises LocalWorkError, which names them and those of the
    environment, NetworkError, or InstallError.
    """
    needed = required(packages, environment)
    missing = [package for package in packages if not package.is_checkout(environment.distribution(package.name))]
    obstacles = [*obstacles, *(f"{package.name} is not installed from {package.folder}" for package in missing)]
    for name, found in sorted(needed.items()):
        obstacles += [f"{name}: {found.broken}"] if found.broken else []
        obstacles += [f"{name} is installed from {redact(found.url)}"] if found.url else []
    if obstacles:
        hint = "Commit and push changes; install packages from a package index."
        command = "invoke install" if missing else ""
        raise LocalWorkError(f"This set-up cannot be reproduced: {'; '.join(obstacles)}.", hint, command)
    entries: Sequence[Entry] = ()
    if not c.config.run.dry:
        uv = Uv(c, environment, settings, log, reporter)
        entries = _ask_index(uv, [f"{name}=={found.version}" for name, found in sorted(needed.items())])
    made_on = {name: environment.markers[name] for name in MARKERS}
    return Lock(_with_packages(repositories, packages), tuple(entries), made_on, settings.overrides)


def _ask_index(uv: Uv, pins: Sequence[str]) -> Sequence[Entry]:
    """The distributions, with their files and hashes on the package index. Raises as `Uv.run` does."""
    output = uv.log.with_name("pylock.index.toml")
    output.unlink(missing_ok=True)  # uv would prefer what is in it
    uv.run("asking the package index for hashes", [
        "compile", "--quiet", "--no-deps", "--no-header", "--format=pylock.toml", f"--output-file={output}",
        "--index-strategy=unsafe-best-match", _write(uv.log.with_suffix(".lock.txt"), pins),
    ])  # fmt: skip
    text = indexes.mask(output.read_text(encoding="utf-8"), uv.variables)
    output.unlink()
    try:
        return Pylock.from_dict(read_toml(text.encode(), "uv's output")).packages
    except PylockValidationError as error:
        raise InstallError(f"The package index does not have the hashes of all files: {error}") from None


def differences(
    lock: Lock, packages: Sequence[Package], repositories: Sequence[LockedRepository], environment: Environment,
    overrides: Sequence[str] = (),
) -> list[Check]:  # fmt: skip
    """A failed check for each difference between the lock and the set-up; one that passes if there is none."""
    versions = {name: installed(environment, name) for name in {*required(packages, environment), *lock.versions}}
    now = _facts(_with_packages(repositories, packages), versions, environment.markers, overrides)
    locked = _facts(lock.repositories, lock.versions, lock.made_on, lock.overrides)
    failed = [
        Check(f"lock: {key}", "fail", f"{now.get(key) or 'none'}, locked is {locked.get(key) or 'none'}",
              command="invoke setup --locked")
        for key in sorted({*now, *locked}) if now.get(key, "") != locked.get(key, "")
    ]  # fmt: skip
    return failed or [Check("lock", "pass", lock.size)]


def _facts(
    repositories: Sequence[LockedRepository], versions: Mapping[str, str], markers: Mapping[str, str],
    overrides: Sequence[str],
) -> dict[str, str]:  # fmt: skip
    """What a lock fixes, each under a name of its own."""
    facts = {name: markers[name] for name in MARKERS} | {"overrides": ", ".join(sorted(overrides))}
    for locked in repositories:
        own = {"url": redact(locked.url), "commit": locked.commit, "extras": ", ".join(locked.extras)}
        facts |= {f"{locked.name} {key}": value for key, value in {**own, **locked.submodules}.items()}
    return facts | {f"{name} version": version for name, version in versions.items()}


def required(packages: Sequence[Package], environment: Environment) -> dict[str, Distribution]:
    """The installed distributions that the packages (with their extras) require, directly or not, and their companions.

    Raises SourcesError for metadata that cannot be read.
    """
    found = cache(environment.distribution)

    def requires(name: str) -> Iterable[str] | None:
        distribution = found(name)
        return distribution.requires if distribution else None

    own = {package.name: package.repository.extras for package in packages}
    roots = {name: () for package in packages for name in package.layout.companions}
    needed = applying(requires, {**roots, **own}, environment.markers)
    names = {*roots, *(canonicalize_name(requirement.name) for requirement in needed)} - {*own}
    return {name: distribution for name in names if (distribution := found(name))}


def _with_packages(
    repositories: Sequence[LockedRepository], packages: Sequence[Package]
) -> tuple[LockedRepository, ...]:
    """The repositories in the order of their names, each with what is installed from it."""
    by_name = {locked.name: replace(locked, url=public(locked.url)) for locked in repositories}  # as the file has it
    for package in packages:
        by_name[package.repository.name] = replace(
            by_name[package.repository.name], distribution=package.name, subdirectory=package.layout.folder,
            extras=tuple(sorted(package.repository.extras)),
        )  # fmt: skip
    return tuple(by_name[name] for name in sorted(by_name))
