"""Both packages from their checkouts, editable, into one environment, whatever their requirements say of each other."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

from invoke.context import Context
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from ..errors import InstallError, NetworkError, SourcesError
from ..models import Outcome, Reporter, Settings
from .environment import Environment, read_direct_url
from .installer import WHO, Installer, editable, exclusive, find_installer
from .layouts import COMPANIONS
from .matching import FLASHINFER
from .package import Package, names
from .preflight import BESIDE_TORCH, check
from .requirements import admits, applying

LATER = ("fastjsonschema", "packaging.direct_url", "rich.progress", "rich.table")
TOOLS = Path(__file__).parent.parent / "requirements.txt"  # what the running program requires


def install(
    c: Context, packages: Sequence[Package], environment: Environment, *,
    settings: Settings, deps: bool, reinstall: bool, log: Path, reporter: Reporter,
) -> list[Outcome]:  # fmt: skip
    """Install the packages that are not installed as they are now, and return what was done to each, in their order.

    Of `settings`, `installer` and `indexes` are used. `log` is the file that the installer's full output is appended
    to. If one package cannot be installed, its outcome holds the error and the others go on; nothing of it has changed
    then. Raises InstallError or DiskError before anything is started if it is known that the installation must fail.
    If nothing is to be done, nothing is started or written; with Invoke's --dry neither.
    """
    began = time.monotonic()
    ours = _ours(packages, environment, settings)

    def find_stale() -> list[Package]:
        return [package for package in packages if reinstall or not package.is_current(environment, deps, ours)]

    stale = find_stale()
    before = {package.name: environment.distribution(package.name) for package in packages}
    work = None
    if stale and not c.config.run.dry:
        check(packages, stale, environment, deps)
        with exclusive(environment.prefix, reporter):
            stale = find_stale()  # another run may have installed them meanwhile
            if stale:
                for module in LATER if environment.current else ():
                    import_module(module)  # before the installation replaces a library that is needed later
                tool = find_installer(c, environment, settings, log=log, reporter=reporter)
                work = _Work(tool, packages, deps, ours)
                work.do(stale)
    outcomes = []
    for package in packages:
        known = Outcome(package.repository, "already installed", commit=package.commit, version=package.version)
        if package in stale:
            old, error = before[package.name], work.errors.get(package.name) if work else None
            action = "failed" if error else "reinstalled" if old else "installed"
            seconds = time.monotonic() - began if package is stale[0] else 0.0  # one installation for all
            known = replace(
                known, action=action if work else "would install", before_version=old.version if old else "",
                seconds=seconds, error=error,
            )  # fmt: skip
        outcomes.append(known)
    return outcomes


def _ours(packages: Sequence[Package], environment: Environment, settings: Settings) -> set[str]:
    """The distributions that never come from an index: those of the packages, and FlashInfer's if its checkout is or
    will be installed, though it is not among them."""
    configured = any(each.name == "flashinfer" and each.install for each in settings.repositories)
    installed = [found for name in FLASHINFER if (found := environment.distribution(name))]
    held = configured or any(found.editable for found in installed)
    return names(packages) | ({*FLASHINFER, *COMPANIONS} if held else set())


@dataclass
class _Work:
    """One installation of `packages`. `ours` are the distributions that no index provides; `requires` is what builds
    declare, `errors` what packages failed with, both by the names of the distributions."""

    tool: Installer
    packages: Sequence[Package]
    deps: bool
    ours: set[str]
    requires: dict[str, Sequence[str | Requirement]] = field(default_factory=dict)
    errors: dict[str, SourcesError] = field(default_factory=dict)

    def do(self, ready: Sequence[Package]) -> None:
        """Install the `ready` ones with what all require.

        Nothing in the environment changes until the packages have been built once, elsewhere, and all requirements
        have been resolved, downloaded and built; what the packages replace goes after they are installed.
        """
        environment = self.tool.environment
        complete = all(map(environment.distribution, ("torch", *BESIDE_TORCH)))
        late = [one for one in ready if one.metadata.needs_torch_to_build and not complete]
        early = [one for one in ready if one not in late]
        if self.deps:
            with tempfile.TemporaryDirectory() as directory:
                self._build(early, Path(directory))
        if all(package.name in self.errors for package in ready):
            return
        self._clean()
        self._require(late)
        self._build(early)
        self._build(late)
        if late:
            self._require(())
            self._build([one for one in ready if not one.is_checkout(environment.distribution(one.name))])
        for package in ready:
            try:
                if package.name not in self.errors:
                    self._finish(package)
            except SourcesError as error:
                self.errors[package.name] = error

    def _build(self, packages: Sequence[Package], target: Path | None = None) -> None:
        """Install checkouts editable, in one command; if it fails one by one, to learn which package it is.

        With `target`, a directory, they are built and installed there for trial.
        """
        for isolated in (True, False):
            some = [one for one in packages if one.metadata.needs_torch_to_build != isolated]
            some = [one for one in some if one.name not in self.errors]
            if not some:
                continue
            arguments = ["--no-deps", *([] if isolated else ["--no-build-isolation"])]
            arguments += [] if self.tool.uv else ["--use-pep517"]
            variables: dict[str, str] = {}
            for package in some:
                if not target:
                    package.remember(self.tool.environment, None)
                variables |= package.variables
                arguments += [f"--reinstall-package={package.name}"] if self.tool.uv else []
                arguments += editable(package.folder)
            doing = f"{'building' if target else 'installing'} {' and '.join(map(str, some))}"
            who = some[0].repository if len(some) == 1 else WHO
            try:
                self.tool.install(who, doing, arguments, variables, target)
            except SourcesError as error:
                if len(some) == 1:
                    self.errors[some[0].name] = error
                else:
                    for package in some:
                        self._build([package], target and target / package.name)
                continue
            trial = replace(self.tool.environment, paths=(target,)) if target else self.tool.environment
            self.requires |= {one.name: found.requires for one in some if (found := trial.distribution(one.name))}

    def _requirements(self, late: Sequence[Package] = ()) -> list[Requirement]:
        """What all the packages require; of those that are built `late`, what their sources declare."""
        requires = {one.name: one.metadata.requires for one in late} | self.requires
        for name in [one.name for one in self.packages if one.name not in requires]:
            found = self.tool.environment.distribution(name)
            requires |= {name: found.requires} if found and found.editable else {}
        extras = {package.name: package.extras for package in self.packages}
        return list(applying(requires, extras, self.tool.environment.markers))

    def _require(self, late: Sequence[Package]) -> None:
        """Resolve and install all requirements together, less those that name the packages and their companions.

        They include what the running program requires, if the environment is its own.
        """
        if not self.deps or all(package.name in self.errors for package in self.packages):
            return
        lines = [str(one) for one in self._requirements(late) if _name(one) not in self.ours]
        lines += BESIDE_TORCH if late else ()
        file = self.tool.log.with_suffix(".requirements.txt")  # it stays, for the command to be repeated by hand
        file.write_text("\n".join(dict.fromkeys(lines)) + "\n", encoding="utf-8")
        arguments = ["-r", str(file)] if lines else []
        arguments += ["-r", str(TOOLS)] if self.tool.environment.current else []
        try:
            if arguments:
                self.tool.install(WHO, "installing requirements", arguments)
        except SourcesError as error:
            self.errors.update({one.name: error for one in self.packages if one.name not in self.errors})

    def _clean(self) -> None:
        """Remove what an interrupted installation left, which would stop the installers or be imported instead."""
        environment, reporter = self.tool.environment, self.tool.reporter
        modules = {name: package.module for package in self.packages for name in (package.name, *package.aliases)}
        for info in {*environment.purelib.glob("*.dist-info"), *environment.platlib.glob("*.dist-info")}:
            module = modules.get(canonicalize_name(info.name.partition("-")[0]))
            if not info.is_dir():
                if module:
                    info.unlink()
                continue
            found = importlib.metadata.Distribution.at(info)
            if module and read_direct_url(found)[2]:
                (info / "direct_url.json").unlink()  # uv would stop
            complete = all((info / name).is_file() and (info / name).stat().st_size for name in ("METADATA", "RECORD"))
            by = (found.read_text("INSTALLER") or "").strip()
            if environment.virtual and by in ("", "pip", "uv") and not complete:  # pip would stop
                reporter.warn(WHO, f"removed {info.name}, which an interrupted installation left incomplete")
                shutil.rmtree(info)
                if module:
                    shutil.rmtree(info.parent / module, ignore_errors=True)
        for package in self.packages:
            for _ in range(environment.copies(package.name) - 1):
                self.tool.uninstall(package.repository, package.name)

    def _finish(self, package: Package) -> None:
        """Remove what the package replaces, align its companions, and check and record that it is installed.

        Raises SourcesError.
        """
        environment, who = self.tool.environment, package.repository
        for extra in {canonicalize_name(extra) for extra in package.extras} - {*package.metadata.extras}:
            self.tool.reporter.warn(who, f"{package.version} has no extra named {extra}")
        for alias in filter(environment.distribution, package.aliases):
            self.tool.uninstall(who, alias)
            self.tool.reporter.event(who, f"{alias} removed, which {package} replaces")
        for name in package.companions:
            self._align(package, name)
        found = environment.distribution(package.name)
        if not package.is_checkout(found):
            there = f"{found.version} from {found.location or 'an index'} {found.broken}" if found else "nothing"
            raise InstallError(
                f"{who}: the installer reported success, but {there.strip()} is installed, "
                f"not {package.version} from {package.folder}.",
                command="invoke install --reinstall",
            )
        package.remember(environment, self.deps)

    def _align(self, package: Package, name: str) -> None:
        """Give a companion the package's version or, with another, remove it: the package's import would raise."""
        environment, who = self.tool.environment, package.repository
        found, version = environment.distribution(name), Version(package.version).public
        required = self.deps and any(_name(one) == name and admits(one, version) for one in self._requirements())
        if package.fits(found.version) if found else not required:
            return
        try:
            self.tool.install(who, f"installing {name}", ["--no-deps", f"{name}=={version}"])
            self.tool.reporter.event(who, f"{name} {f'{found.version} replaced by ' if found else ''}{version}")
        except SourcesError as error:
            if found:
                self.tool.uninstall(who, name)
            gone = f"{name} {found.version} removed" if found else f"{name} not installed"
            why = "the package index could not be reached" if isinstance(error, NetworkError) else "it was not found"
            self.tool.reporter.warn(
                who,
                f"{gone}: {version}, the version of {package.name}, is needed, and {why}. FlashInfer works without it, "
                "but compiles or downloads kernels at first use. sources.indexes can name more package indexes, such "
                "as https://flashinfer.ai/whl.",
            )


def _name(requirement: Requirement) -> str:
    return canonicalize_name(requirement.name)
