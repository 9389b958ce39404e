"""A set-up is locked, so that it can be reproduced; compared with a lock; and installed from one.

What only the builds need (setuptools and the like) is not locked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from invoke.context import Context
from packaging.pylock import Package as Entry
from packaging.pylock import Pylock, PylockValidationError
from packaging.utils import canonicalize_name, canonicalize_version

from ..errors import InstallError, LocalWorkError
from ..models import Check, Outcome, Reporter, Settings
from ..names import redact
from .environment import Distribution, Environment
from .install import install
from .installer import WHO, Installer, exclusive, find_installer
from .lock_file import FILE, MARKERS, Lock, LockedRepository, public
from .metadata import read_toml
from .package import Package
from .requirements import applying


def make_lock(
    c: Context, packages: Sequence[Package], repositories: Sequence[LockedRepository], environment: Environment, *,
    settings: Settings, log: Path, reporter: Reporter, obstacles: Sequence[str] = (),
) -> Lock:  # fmt: skip
    """The lock of the checkouts `repositories` and of what the `packages` require, in the versions installed now.

    uv asks the package index for the files of these versions and their hashes. `obstacles` are what keeps checkouts
    from being reproduced, such as `sglang: 2 changed files`. Raises LocalWorkError, which names them and those of the
    environment, NetworkError, or InstallError.
    """
    found = required(packages, environment)
    missing = [each for each in packages if not each.is_checkout(environment.distribution(each.name))]
    obstacles = [*obstacles, *(f"{each.name} is not installed from {each.folder}" for each in missing)]
    for name, one in sorted(found.items()):
        obstacles += [f"{name}: {one.broken}"] if one.broken else []
        obstacles += [f"{name} is installed from {redact(one.url)}"] if one.url else []
    if obstacles:
        hint = "Commit and push changes; install packages from a package index."
        command = "invoke install" if missing else ""
        raise LocalWorkError(f"This set-up cannot be reproduced: {'; '.join(obstacles)}.", hint, command)
    made_on = {name: environment.markers[name] for name in MARKERS}
    entries: Sequence[Entry] = ()
    if not c.config.run.dry:
        tool = find_installer(c, environment, replace(settings, installer="uv"), log=log, reporter=reporter)
        entries = _ask_index(tool, {name: one.version for name, one in found.items()})
    return Lock(_with_packages(repositories, packages), tuple(entries), made_on)


def _ask_index(tool: Installer, versions: Mapping[str, str]) -> Sequence[Entry]:
    """The distributions, with their files and hashes on the package index. Raises as `Installer.run` does."""
    pins = tool.log.with_suffix(".lock.txt")  # kept, so that the command can be repeated by hand
    pins.write_text("".join(f"{name}=={version}\n" for name, version in sorted(versions.items())), encoding="utf-8")
    argv = [tool.uv, "pip", "compile", "--quiet", "--no-deps", "--no-header", "--format=pylock.toml",
            "--index-strategy=unsafe-best-match", *(f"--extra-index-url={index}" for index in tool.indexes),
            f"--python={tool.environment.python}", str(pins)]  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "pylock.toml"
        tool.run("lock", "asking the package index for hashes", [*argv, f"--output-file={output}"], repeated=argv)
        try:
            return Pylock.from_dict(read_toml(output.read_bytes(), "uv's output")).packages
        except PylockValidationError as error:
            raise InstallError(f"The package index does not have the hashes of all files: {error}") from None


def install_locked(
    c: Context, lock: Lock, packages: Sequence[Package], environment: Environment, *,
    settings: Settings, log: Path, reporter: Reporter,
) -> list[Outcome]:  # fmt: skip
    """Install the locked distributions, then the packages from their checkouts, which must be at the locked commits.

    No version is resolved; if everything is installed, nothing is started. Raises InstallError if the lock was made on
    another Python or platform, and what `install` raises.
    """
    if wrong := lock.mismatch(environment):
        hint = "Run `invoke setup` and `invoke lock` here."
        raise InstallError(f"{FILE} was made on another Python or platform: {wrong}.", hint)
    missing = [name for name, version in lock.versions.items() if _version(environment.distribution(name)) != version]
    if missing and not c.config.run.dry:
        with exclusive(environment.prefix, reporter):
            tool = find_installer(c, environment, settings, log=log, reporter=reporter)
            file = log.with_suffix(".locked.txt")
            file.write_text(lock.requirements(), encoding="utf-8")
            tool.install(
                WHO, f"installing {len(missing)} locked versions", ["--no-deps", "--require-hashes", "-r", str(file)]
            )
    outcomes = install(c, packages, environment, settings=settings, deps=False, reinstall=False, log=log,
                       reporter=reporter)  # fmt: skip
    for package, outcome in zip(packages, outcomes, strict=True):
        if package.without_deps(environment) and not (outcome.error or c.config.run.dry):
            package.remember(environment, True)
    return outcomes


def differences(
    lock: Lock, packages: Sequence[Package], repositories: Sequence[LockedRepository], environment: Environment
) -> list[Check]:
    """A failed check for each difference between the lock and the set-up; one that passes if there is none."""
    installed = {**required(packages, environment), **{name: environment.distribution(name) for name in lock.versions}}
    versions = {name: _version(found) for name, found in installed.items()}
    now = _facts(_with_packages(repositories, packages), versions, environment.markers)
    locked = _facts(lock.repositories, lock.versions, lock.made_on)
    failed = [
        Check(f"lock: {key}", "fail", f"{now.get(key) or 'none'}, locked is {locked.get(key) or 'none'}",
              command="invoke setup --locked")
        for key in sorted({*now, *locked}) if now.get(key, "") != locked.get(key, "")
    ]  # fmt: skip
    return failed or [Check("lock", "pass", lock.size)]


def _facts(
    repositories: Sequence[LockedRepository], versions: Mapping[str, str], markers: Mapping[str, str]
) -> dict[str, str]:
    """What a lock fixes, each under a name of its own."""
    facts = {name: markers[name] for name in MARKERS}
    for each in repositories:
        own = {"url": redact(each.url), "commit": each.commit, "extras": ", ".join(each.extras), **each.submodules}
        facts |= {f"{each.name} {key}": value for key, value in own.items()}
    return facts | {f"{name} version": version for name, version in versions.items()}


def required(packages: Sequence[Package], environment: Environment) -> dict[str, Distribution]:
    """The installed distributions that the packages (with their extras) require, directly or not, and their companions.

    Raises SourcesError for metadata that cannot be read.
    """
    installed = cache(environment.distribution)
    roots = {name: () for package in packages for name in package.layout.companions}
    own = {package.name: package.repository.extras for package in packages}

    def requires(name: str) -> Iterable[str] | None:
        return found.requires if (found := installed(name)) else None

    needed = applying(requires, {**roots, **own}, environment.markers)
    names = {*roots, *(canonicalize_name(one.name) for one in needed)} - {*own}
    return {name: found for name in names if (found := installed(name))}


def _with_packages(
    repositories: Sequence[LockedRepository], packages: Sequence[Package]
) -> tuple[LockedRepository, ...]:
    """The repositories in the order of their names, each with what is installed from it."""
    by_name = {each.name: replace(each, url=public(each.url)) for each in repositories}  # as the file has it
    for package in packages:
        by_name[package.repository.name] = replace(
            by_name[package.repository.name], distribution=package.name, subdirectory=package.layout.folder,
            extras=tuple(sorted(package.repository.extras)),
        )  # fmt: skip
    return tuple(by_name[name] for name in sorted(by_name))


def _version(found: Distribution | None) -> str:
    """The version, and the directory that it is installed from, if it is from one."""
    version = canonicalize_version(found.version, strip_trailing_zero=False) if found else ""
    return f"{version} from {found.location}" if found and found.location else version
