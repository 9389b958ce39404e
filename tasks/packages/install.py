"""Installs packages from their checkouts, editable, side by side, even if they require other versions of each other."""

from __future__ import annotations

import importlib.metadata
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ..errors import InstallError
from ..files import locked
from ..models import Outcome
from . import preflight
from .environment import Environment, admits, applying, read
from .lock import FILE, Lock, platform
from .package import COMPANIONS, FLASHINFER, Package, names
from .uv import WHO, WITHOUT_RUST, Uv, write

LOCK = ".sources-install.lock"
COMPAT = "--config-settings-package={}:editable_mode=compat"  # a plain .pth file, which editors can follow
TOOLS = Path(__file__).parent.parent / "requirements.txt"  # what the running program requires


def install(
    uv: Uv, packages: Sequence[Package], *, deps: bool, reinstall: bool, lock: Lock | None = None
) -> list[Outcome]:
    """Install the packages that are not installed as they are now, with what they require, in one command; return what
    was done to each, in their order.

    With a `lock`, what it has is installed, and no version is resolved. If there is nothing to do, nothing is started
    or written; with Invoke's --dry neither. Raises InstallError (also if the lock was made on another Python or
    platform), NetworkError or DiskError; nothing in the environment has changed then.
    """
    environment, dry = uv.environment, uv.c.config.run.dry
    if lock and lock.made_on != platform(environment):
        what = f"{FILE} was made on {lock.made_on}; this is {platform(environment)}."
        raise InstallError(what, "`invoke setup` and `invoke lock` make one here.")
    began = time.monotonic()
    ours = names(packages) | ({*FLASHINFER, *COMPANIONS} if _is_flashinfer_ours(uv, packages) else set())

    def find_stale() -> list[Package]:
        if reinstall or (lock and lock.differing(environment)):
            return list(packages)
        resolve, overrides = deps and not lock, uv.settings.overrides
        return [package for package in packages if not package.is_current(environment, resolve, ours, overrides)]

    stale = find_stale()
    before = {package.name: environment.version(package.name) for package in packages}
    if stale and not dry:
        preflight.check(uv, stale, deps)

        def wait(holder: str) -> None:
            uv.reporter.event(WHO, f"waiting for {holder}, which installs into {environment.prefix}")

        with locked(environment.prefix / LOCK, wait):
            stale = find_stale()  # another run may have installed them meanwhile
            if stale:
                _install(uv, packages, stale, deps, lock)
    outcomes = []
    for package in packages:
        action = "already installed"
        if package in stale:
            done = "reinstalled" if before[package.name] else "installed"
            action = "would install" if dry else done
        else:
            uv.reporter.event(package.repository.name, action)
        seconds = time.monotonic() - began if stale and package is stale[0] else 0.0  # one installation for all
        outcomes.append(
            Outcome(
                package.repository.name, action, commit=package.commit, seconds=seconds,
                version=package.version or environment.version(package.name),
                before_version=before[package.name] if package in stale else "",
            )
        )  # fmt: skip
    return outcomes


def _install(uv: Uv, packages: Sequence[Package], stale: Sequence[Package], deps: bool, lock: Lock | None) -> None:
    """Install the packages with one command, remove what must not stay beside them, and record it."""
    environment, required = uv.environment, _required(packages, uv.environment)
    arguments, variables = ["install", "--index-strategy=unsafe-best-match"], dict[str, str]()
    for package in stale:
        package.forget(environment)
        arguments += [f"--reinstall-package={package.name}"]
    for package in packages:
        variables |= package.variables
        if "setuptools" in package.built_with:
            arguments += [COMPAT.format(package.name)]
        arguments += ["-e", _address(package, required)]
    arguments += _repair(uv, packages)
    if lock:
        arguments += ["--no-deps", "-r", write(uv.log.with_suffix(".locked.txt"), lock.requirements())]
    elif deps:
        overrides = write(uv.log.with_suffix(".overrides.txt"), find_overrides(uv, packages))
        arguments += ["--overrides", overrides, *(["-r", str(TOOLS)] if environment.current else [])]
    else:
        arguments += ["--no-deps"]
    uv.run(f"installing {' and '.join(map(str, stale))}", arguments, variables)
    if gone := sorted({name for package in packages for name in package.unfitting(environment)}):
        uv.run(f"removing {', '.join(gone)}, which must not stay beside FlashInfer", ["uninstall", *gone])
    for package in packages:
        if not package.is_checkout(environment.distribution(package.name)):
            what = f"uv reported success, but {package} is not installed from {package.folder}."
            raise InstallError(f"{package.repository.name}: {what}", command="invoke install --reinstall")
        if package in stale:
            package.remember(environment, uv.settings.overrides)
            if package.needs_rust and preflight.without_rust(package, uv):
                uv.reporter.warn(package.repository.name, f"installed without its Rust extensions; {WITHOUT_RUST}")


def find_overrides(uv: Uv, packages: Sequence[Package]) -> list[str]:
    """The lines of the file that replaces requirements of these names, whoever has them: by the checkouts; by nothing
    for a FlashInfer that comes from another checkout, for its other name, and for companions of another version; and by
    what the user wants. A line that never applies leaves a distribution out, if no other line has its name."""
    required = _required(packages, uv.environment)
    lines = [f"-e {_address(package, required)}" for package in packages]
    if _is_flashinfer_ours(uv, packages):
        versions = {package.name: package.version for package in packages if package.name in FLASHINFER}
        left_out = [name for name in FLASHINFER if name not in versions]
        version = next(iter(versions.values() or filter(None, map(uv.environment.version, FLASHINFER))), "")
        for companion in COMPANIONS:
            wanted = [one for one in required if canonicalize_name(one.name) == companion]
            if not wanted or not all(admits(one.specifier, version) for one in wanted):
                left_out.append(companion)
        lines += [f'{name}; python_version < "0"' for name in left_out]
    return [*lines, *uv.settings.overrides]


def _is_flashinfer_ours(uv: Uv, packages: Sequence[Package]) -> bool:
    """Whether FlashInfer comes from a checkout, which need not be among the packages, and not from an index."""
    installed = [uv.environment.distribution(name) for name in FLASHINFER]
    return (
        any(package.name in FLASHINFER for package in packages)
        or any(found and found.editable and found.location and found.location.is_dir() for found in installed)
        or any(repository.name == "flashinfer" and repository.install for repository in uv.settings.repositories)
    )


def _required(packages: Sequence[Package], environment: Environment) -> list[Requirement]:
    """What the packages require, as their files say."""
    requires = {package.name: package.requires for package in packages}
    extras = {package.name: package.repository.extras for package in packages}
    return list(applying(requires.get, extras, environment.markers))


def _address(package: Package, required: Sequence[Requirement]) -> str:
    """How uv installs the package, whatever characters are in its path: with the extras that are configured, and those
    that others require of it."""
    chosen = {*package.repository.extras}
    for requirement in required:
        if canonicalize_name(requirement.name) == package.name:
            chosen |= requirement.extras
    extras = ",".join(sorted(map(canonicalize_name, chosen)))
    return f"{package.folder.as_uri()}[{extras}]" if extras else package.folder.as_uri()


def _repair(uv: Uv, packages: Sequence[Package]) -> list[str]:
    """Remove what an interrupted installation left that would stop uv, or be imported instead of a checkout; return the
    arguments that install again what it left incomplete."""
    modules = {name: package.module for package in packages for name in (package.name, *package.aliases)}
    arguments = []
    for name, _, info in list(uv.environment.metadata_directories()):
        if not read(name, importlib.metadata.Distribution.at(info)).broken:
            complete = (info / "RECORD").exists() and (info / "INSTALLER").exists()
            arguments += [] if complete else [f"--reinstall-package={name}"]
        elif name in modules or uv.environment.virtual:  # elsewhere the system may have installed the others
            uv.reporter.warn(WHO, f"removed {info.name}, which an interrupted installation left incomplete")
            shutil.rmtree(info)
            if name in modules:
                shutil.rmtree(info.parent / modules[name], ignore_errors=True)
    return arguments
