"""Installs packages from their checkouts, editable, side by side, even if they require other versions of each other."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

from invoke.context import Context
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ..errors import InstallError
from ..files import locked
from ..models import Outcome, Reporter, Settings
from . import preflight
from .environment import Environment, unreadable
from .layouts import COMPANIONS
from .lock_file import FILE, Lock
from .matching import FLASHINFER
from .package import Package, names
from .requirements import admits, applying, read_overrides
from .uv import WHO, WITHOUT_RUST, Uv

LOCK = ".sources-install.lock"
SHOWN = 5  # changes of other packages in a message
COMPAT = "--config-settings-package={}:editable_mode=compat"  # a plain .pth file, which editors can follow
LATER = ("fastjsonschema", "rich.progress", "rich.table")
TOOLS = Path(__file__).parent.parent / "requirements.txt"  # what the running program requires


def install(
    c: Context, packages: Sequence[Package], environment: Environment, *, settings: Settings, deps: bool,
    reinstall: bool, log: Path, reporter: Reporter, again: str = "invoke install", lock: Lock | None = None,
) -> list[Outcome]:  # fmt: skip
    """Install the packages that are not installed as they are now, with what they require, in one command; return what
    was done to each, in their order.

    Of `settings`, `indexes` and `overrides` are used. uv's output is appended to the file `log`; `again` is the user's
    command. With a `lock`, what it has is installed, and no version is resolved. If there is nothing to do, nothing is
    started or written; with Invoke's --dry neither. Raises InstallError (also if the lock was made on another Python or
    platform), NetworkError or DiskError; nothing in the environment has changed then.
    """
    if lock and (wrong := lock.mismatch(environment)):
        hint = "Run `invoke setup` and `invoke lock` here."
        raise InstallError(f"{FILE} was made on another Python or platform: {wrong}.", hint)
    began = time.monotonic()
    uv = Uv(c, environment, settings, log, reporter, again)
    ours = names(packages)
    if _flashinfer(packages, environment, settings)[0] is not None:
        ours |= {*FLASHINFER, *COMPANIONS}

    def find_stale() -> list[Package]:
        current = [one for one in packages if one.is_current(environment, deps and not lock, ours, settings.overrides)]
        return [package for package in packages if reinstall or package not in current]

    def lacking() -> bool:
        return bool(lock and lock.lacking(environment))

    stale = find_stale()
    before = {package.name: version_of(environment, package.name) for package in packages}
    if (stale or lacking()) and not c.config.run.dry:
        preflight.check(uv, stale, deps)

        def wait(holder: str) -> None:
            reporter.event(WHO, f"waiting for {holder}, which installs into {environment.prefix}")

        with locked(environment.prefix / LOCK, wait):
            stale = find_stale()  # another run may have installed them meanwhile
            if stale or lacking():
                for module in LATER if environment.current else ():
                    import_module(module)  # before the installation replaces a library that is needed later
                _install(uv, packages, stale, deps, lock)
    outcomes = []
    for package in packages:
        version = version_of(environment, package.name)
        action = "already installed"
        if package in stale:
            done = "reinstalled" if before[package.name] else "installed"
            action = "would install" if c.config.run.dry else done
        seconds = time.monotonic() - began if stale and package is stale[0] else 0.0  # one installation for all
        outcomes.append(
            Outcome(
                package.repository.name, action, commit=package.commit, seconds=seconds,
                version=version if version.startswith("0.0.0") else package.version or version,
                before_version=before[package.name] if package in stale else "",
            )
        )  # fmt: skip
    return outcomes


def _install(uv: Uv, packages: Sequence[Package], stale: Sequence[Package], deps: bool, lock: Lock | None) -> None:
    """Install the packages with one command, remove what must not stay beside them, and record it."""
    environment, required = uv.environment, _required(packages, uv.environment)
    before = environment.versions()
    arguments, variables = ["install", "--index-strategy=unsafe-best-match"], dict[str, str]()
    for package in stale:
        package.remember(environment, None)
        arguments += [f"--reinstall-package={package.name}"]
    for package in packages:
        variables |= package.variables
        if "setuptools" in package.metadata.built_with:
            arguments += [COMPAT.format(package.name)]
        arguments += ["-e", _address(package.folder, package.name, required, package.repository.extras)]
        for extra in {*map(canonicalize_name, package.repository.extras)} - {*package.metadata.extras}:
            uv.reporter.warn(package.repository.name, f"{package.version} has no extra named {extra}")
    if not any(package.name in FLASHINFER for package in packages):
        arguments += map(COMPAT.format, FLASHINFER)  # with another setting uv would build again what stays
    arguments += _repair(uv, packages)
    if lock:
        arguments += ["--no-deps", "-r", _write(uv.log.with_suffix(".locked.txt"), lock.requirements())]
    elif deps:
        file = _write(uv.log.with_suffix(".overrides.txt"), _overrides(uv, packages, required))
        arguments += ["--overrides", file, *(["-r", str(TOOLS)] if environment.current else [])]
    else:
        arguments += ["--no-deps"]
    uv.run(f"installing {' and '.join(map(str, stale or packages))}", arguments, variables)
    if gone := sorted({name for package in packages for name in package.unfitting(environment)}):
        uv.run(f"removing {', '.join(gone)}, which must not stay beside FlashInfer", ["uninstall", *gone])
    _tell_changes(uv, before, {package.name for package in packages} | {*gone})
    for package in packages:
        _check(uv, package)
        if package in stale:
            _warn(uv, package)
            package.remember(environment, deps or lock is not None, uv.settings.overrides)


def _write(file: Path, lines: Sequence[str]) -> str:
    """Write a file that is kept, so that the command can be repeated by hand; return its path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(file)


def _required(packages: Sequence[Package], environment: Environment) -> list[Requirement]:
    """What the packages require, as their files say."""
    requires = {package.name: package.metadata.requires for package in packages}
    extras = {package.name: package.repository.extras for package in packages}
    return list(applying(requires.get, extras, environment.markers))


def _address(folder: Path, name: str, required: Sequence[Requirement], extras: Iterable[str] = ()) -> str:
    """How uv installs the package in a directory, whatever characters are in its path: with its `extras`, and those
    that others require of it."""
    asked = {extra for requirement in required if canonicalize_name(requirement.name) == name
             for extra in requirement.extras}  # fmt: skip
    chosen = ",".join(sorted({canonicalize_name(extra) for extra in (*extras, *asked)}))
    return f"{folder.as_uri()}[{chosen}]" if chosen else folder.as_uri()


def _overrides(uv: Uv, packages: Sequence[Package], required: Sequence[Requirement]) -> list[str]:
    """What replaces the requirements of these names, whoever has them: the checkouts; nothing for FlashInfer's other
    name and for companions of another version; and what the user wants for all others."""
    lines = [f"-e {_address(one.folder, one.name, required, one.repository.extras)}" for one in packages]
    users = read_overrides(uv.settings.overrides)
    version, kept = _flashinfer(packages, uv.environment, uv.settings, required)
    lines += kept
    for companion in COMPANIONS if version is not None else ():
        asked = [one for one in required if canonicalize_name(one.name) == companion]
        if companion not in users and not (asked and all(admits(one, str(version)) for one in asked)):
            lines.append(_left_out(companion))
    checkouts = {package.name for package in packages}
    for name in checkouts & {*users}:
        uv.reporter.warn(WHO, f"sources.overrides: {name} is installed from its checkout")
    return lines + [str(one) for name, some in users.items() if name not in checkouts for one in some]


def _flashinfer(
    packages: Sequence[Package], environment: Environment, settings: Settings, required: Sequence[Requirement] = ()
) -> tuple[str | None, list[str]]:
    """The version of the FlashInfer that comes from no index ("" if unknown, None if it does), and the
    overrides that keep it: a checkout is or will be installed, though it need not be among the packages."""
    for package in packages:
        if package.name in FLASHINFER:
            return package.version, [_left_out(alias) for alias in package.aliases]
    for name in FLASHINFER:
        found = environment.distribution(name)
        if found and found.editable and found.location and found.location.is_dir():
            others = [_left_out(other) for other in FLASHINFER if other != name]
            return found.version, [f"-e {_address(found.location, name, required)}", *others]
    if any(repository.name == "flashinfer" and repository.install for repository in settings.repositories):
        return "", [_left_out(name) for name in FLASHINFER]
    return None, []


def _left_out(name: str) -> str:
    return f'{name}; python_version < "0"'


def _repair(uv: Uv, packages: Sequence[Package]) -> list[str]:
    """Remove what an interrupted installation left that would stop uv, or be imported instead of a checkout; return the
    arguments that install again what it left incomplete."""
    modules = {name: package.module for package in packages for name in (package.name, *package.aliases)}
    arguments = []
    for info in uv.environment.metadata_directories():
        name = canonicalize_name(info.name.removesuffix(".dist-info").rpartition("-")[0])
        if not unreadable(info):
            whole = (info / "RECORD").exists() and (info / "INSTALLER").exists()
            arguments += [] if whole else [f"--reinstall-package={name}"]
        elif name in modules or uv.environment.virtual:  # elsewhere the system may have installed the others
            uv.reporter.warn(WHO, f"removed {info.name}, which an interrupted installation left incomplete")
            shutil.rmtree(info)
            if name in modules:
                shutil.rmtree(info.parent / modules[name], ignore_errors=True)
    return arguments


def _tell_changes(uv: Uv, before: Mapping[str, str], ours: Collection[str]) -> None:
    """Name the packages of others that have another version now."""
    now = uv.environment.versions()
    changes = [f"{name} {version} → {now.get(name, 'removed')}" for name, version in before.items()
               if name not in ours and now.get(name) != version]  # fmt: skip
    if changes:
        more = f" and {len(changes) - SHOWN} more (see {uv.log})" if len(changes) > SHOWN else ""
        uv.reporter.event(WHO, f"changed {', '.join(changes[:SHOWN])}{more}")


def _check(uv: Uv, package: Package) -> None:
    """Raise InstallError if the package is not installed as its checkout is."""
    found, name = uv.environment.distribution(package.name), package.repository.name
    if not package.is_checkout(found):
        installed = f"{found.version} from {found.location or 'an index'} {found.broken}" if found else "nothing"
        raise InstallError(
            f"{name}: uv reported success, but {installed.strip()} is installed, "
            f"not {package.version} from {package.folder}.",
            command="invoke install --reinstall",
        )


def _warn(uv: Uv, package: Package) -> None:
    """Warn of what the installed package lacks."""
    version, name = version_of(uv.environment, package.name), package.repository.name
    if version.startswith("0.0.0"):
        scm = f"SETUPTOOLS_SCM_PRETEND_VERSION_FOR_{package.name.upper().replace('-', '_')}"
        uv.reporter.warn(name, f"installed as {version}, since its checkout has no release tag: fetch one "
                         f"(git -C {package.checkout.path} fetch URL tag v…), or set {scm}")  # fmt: skip
    if package.metadata.needs_rust and preflight.without_rust(uv) and name == "sglang":
        uv.reporter.warn(name, f"installed without its Rust extensions; {WITHOUT_RUST}")


def version_of(environment: Environment, name: str) -> str:
    """The version that is installed; empty for none."""
    found = environment.distribution(name)
    return found.version if found else ""
