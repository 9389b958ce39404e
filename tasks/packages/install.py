"""Both packages from their checkouts, editable, into one environment, whatever their requirements say of each other."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from ..errors import InstallError, SourcesError
from ..models import Outcome, Reporter
from .environment import Environment
from .installer import Installer, editable, find_installer
from .package import Package, names
from .preflight import BESIDE_TORCH, check_environment, check_package
from .requirements import admits, applying

LATER = ("filelock", "jsonschema", "packaging.direct_url", "packaging.markers", "platformdirs", "psutil", "tempfile")
ALL = "install"  # who speaks where several packages are installed at once


def preload() -> None:
    """Import what the program needs later, before an installation replaces its libraries' files."""
    for module in LATER:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)


def install(
    packages: Sequence[Package], environment: Environment, *,
    installer: str = "auto", deps: bool = True, reinstall: bool = False, tools: Sequence[str] = (), reporter: Reporter,
) -> list[Outcome]:  # fmt: skip
    """Install the packages that are not installed as they are now, and say what was done to each, in their order.

    `installer` is auto, uv or pip. `tools` are the requirements of the running program, which are kept met where the
    environment is its own. Where one package cannot be installed, its outcome holds the error and the others go on.
    Raises InstallError where the environment takes no package at all. Where nothing is to be done nothing is started.
    """
    began = time.monotonic()
    before = {package.name: environment.distribution(package.name) for package in packages}
    ours = names(packages)
    stale = [package for package in packages if reinstall or not package.is_current(environment, deps, ours)]
    errors: dict[str, SourcesError] = {}
    if stale:
        check_environment(environment)
        for package in stale:
            try:
                check_package(package, packages, environment, deps)
            except SourcesError as error:
                errors[package.name] = error
        if ready := [package for package in stale if package.name not in errors]:
            preload()
            _Work(find_installer(installer, environment, reporter), packages, deps, tools, errors).do(ready)
    outcomes = []
    for package in packages:
        old, wrong = before[package.name], errors.get(package.name)
        action = "already installed" if package not in stale else "reinstalled" if old else "installed"
        outcome = partial(Outcome, package.repository, "" if wrong else action, commit=package.commit, error=wrong)
        seconds = time.monotonic() - began if package in stale else 0.0
        outcomes.append(outcome(version=package.version, before_version=old.version if old else "", seconds=seconds))
    return outcomes


@dataclass(frozen=True)
class _Work:
    """One run of an installer over `packages`; what goes wrong for one of them is put into `errors`, by its name."""

    tool: Installer
    packages: Sequence[Package]
    deps: bool
    tools: Sequence[str]
    errors: dict[str, SourcesError]

    def do(self, ready: Sequence[Package]) -> None:
        """Install the `ready` ones, then what all require, and see that neither pushed the other out."""
        environment = self.tool.environment
        for package in ready:
            package.remember(environment, None)
            for extra in {canonicalize_name(extra) for extra in package.extras} - {*package.metadata.extras}:
                self.tool.reporter.warn(package.repository, f"{package.version} has no extra named {extra}")
        self._make_room(ready)
        late = [package for package in ready if package.metadata.needs_torch_to_build]
        self._build([package for package in ready if package not in late])
        self._require(late)
        self._build(late)
        if late:
            self._require(())
        self._build([one for one in ready if not one.is_checkout(environment.distribution(one.name))])
        for package in ready:
            if package.name not in self.errors:
                self._align(package)
        for package in ready:
            found = environment.distribution(package.name)
            if package.name not in self.errors and not package.is_checkout(found):
                there = f"{found.version} from {found.location or 'an index'} {found.broken}" if found else "nothing"
                self.errors[package.name] = InstallError(
                    f"{package.repository}: the installer is content, and yet {there.strip()} is installed, "
                    f"not {package.version} from {package.folder}."
                )
            if package.name not in self.errors:
                package.remember(environment, self.deps)

    def _make_room(self, ready: Sequence[Package]) -> None:
        """Remove what would stand in the way: broken-off installations, and a package under its other name."""
        environment, reporter = self.tool.environment, self.tool.reporter
        modules = {name: package.module for package in ready for name in (package.name, *package.aliases)}
        for info in {*environment.purelib.glob("*.dist-info"), *environment.platlib.glob("*.dist-info")}:
            module = modules.get(canonicalize_name(info.name.partition("-")[0]))
            if module:
                (info / "direct_url.json").unlink(missing_ok=True)  # a damaged one would stop uv
            by = info / "INSTALLER"
            ours = not by.exists() or by.read_text(errors="replace").strip() in ("", "pip", "uv")
            whole = all((info / name).is_file() and (info / name).stat().st_size for name in ("METADATA", "RECORD"))
            if environment.virtual and ours and not whole:  # pip would see nothing there, or refuse to replace it
                reporter.warn(ALL, f"removed {info.name}: the rest of an installation that was broken off")
                shutil.rmtree(info)
                if module:  # would be imported in place of the checkout
                    shutil.rmtree(info.parent / module, ignore_errors=True)
        for package in ready:
            double = [package.name] * (environment.copies(package.name) - 1)
            for name in [*filter(environment.distribution, package.aliases), *double]:
                reporter.event(package.repository, f"{name} makes room for {package.name} {package.version}")
                self.tool.uninstall(package.repository, [name])

    def _build(self, packages: Sequence[Package]) -> None:
        """Install folders editable, in one command; where that fails one by one, to tell whose fault it is."""
        for isolated in (True, False):
            some = [one for one in packages if one.metadata.needs_torch_to_build != isolated]
            some = [one for one in some if one.name not in self.errors]
            arguments = ["--no-deps", *([] if isolated else ["--no-build-isolation"])]
            arguments += [] if self.tool.uv else ["--use-pep517"]
            variables: dict[str, str] = {}
            for package in some:
                variables |= package.variables
                arguments += [
                    *(["--reinstall-package", package.name] if self.tool.uv else []),
                    *editable(package.folder),
                ]
            try:
                if some:
                    self.tool.install(some[0].repository if len(some) == 1 else ALL, arguments, variables)
            except SourcesError as error:
                if len(some) == 1:
                    self.errors[some[0].name] = error
                else:
                    for package in some:
                        self._build([package])

    def _requirements(self, late: Sequence[Package] = ()) -> list[Requirement]:
        """What all the packages require; of `late` what they declare, as they are not built yet."""
        requires: dict[str, Sequence[Requirement | str]] = {one.name: one.declared for one in late}
        for package in self.packages:
            if (found := self.tool.environment.distribution(package.name)) and found.editable:
                requires[package.name] = found.requires
        extras: Mapping[str, Sequence[str]] = {package.name: package.extras for package in self.packages}
        return list(applying(requires, extras, self.tool.environment.markers))

    def _require(self, late: Sequence[Package]) -> None:
        """Resolve and install all requirements together, less those that name the packages themselves."""
        if not self.deps or all(package.name in self.errors for package in self.packages):
            return
        ours = names(self.packages)
        requirements = self._requirements(late)
        lines = [str(one) for one in requirements if _name(one) not in ours]
        # A companion with an exact pin on the checkout's version exists, so that it may come along with the others.
        pins = [one for one in requirements if any(each.operator == "==" for each in one.specifier)]
        lines += [f"{_name(one)}=={package.version}" for package in self.packages for one in pins
                  if _name(one) in package.companions and admits(one, package.version)]  # fmt: skip
        lines += [*(BESIDE_TORCH if late else ()), *(self.tools if self.tool.environment.current else ())]
        file = self.packages[0].git_dir / "requirements.txt"  # it stays, for the command to be repeated by hand
        file.write_text("\n".join(dict.fromkeys(lines)) + "\n", encoding="utf-8")
        try:
            if lines:
                self.tool.install(ALL, ["-r", str(file)])
        except SourcesError as error:
            self.errors.update({one.name: error for one in self.packages if one.name not in self.errors})

    def _align(self, package: Package) -> None:
        """Give the companions the package's version, or remove them: with another, its import raises."""
        environment, who, reporter = self.tool.environment, package.repository, self.tool.reporter
        required = {_name(one) for one in self._requirements() if self.deps and admits(one, package.version)}
        for name in package.companions:
            found = environment.distribution(name)
            if package.fits(found.version) if found else name not in required:
                continue
            version = Version(package.version).public
            try:
                self.tool.install(who, ["--no-deps", f"{name}=={version}"])
                reporter.event(who, f"{name} {f'{found.version} replaced by ' if found else ''}{version}")
            except SourcesError:
                if found:
                    self.tool.uninstall(who, [name])
                gone = f"{name} {found.version} removed, as it" if found else f"{name} not installed, as it"
                reporter.warn(
                    who, f"{gone} must have the version of {package.name}, {version}, and that is not to be had"
                )


def _name(requirement: Requirement) -> str:
    return canonicalize_name(requirement.name)
