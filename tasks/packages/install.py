"""Installs packages from their checkouts, editable, side by side, even if they require other versions of each other."""

from __future__ import annotations

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
from .environment import Environment
from .installer import WHO, Installer, exclusive, find_installer
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

    Of `settings`, `installer` and `indexes` are used. The installer's full output is appended to the file `log`. If
    one package cannot be installed, its outcome has the error, nothing of it has changed, and the others are
    installed. Raises InstallError or DiskError before anything is started if it is known that the installation must
    fail. If there is nothing to do, nothing is started or written; with Invoke's --dry neither.
    """
    began = time.monotonic()
    ours = _ours(packages, environment, settings)

    def find_stale() -> list[Package]:
        return [package for package in packages if reinstall or not package.is_current(environment, deps, ours)]

    stale, errors = find_stale(), dict[str, SourcesError]()
    before = {package.name: environment.distribution(package.name) for package in packages}
    if stale and not c.config.run.dry:
        check(packages, stale, environment, deps)
        with exclusive(environment.prefix, reporter):
            stale = find_stale()  # another run may have installed them meanwhile
            if stale:
                for module in LATER if environment.current else ():
                    import_module(module)  # before the installation replaces a library that is needed later
                tool = find_installer(c, environment, settings, log=log, reporter=reporter)
                errors = _Installation(tool, packages, deps, ours).run(stale)
    outcomes = []
    for package in packages:
        outcome = Outcome(package.repository.name, "already installed", commit=package.commit, version=package.version)
        if package in stale:
            old, error = before[package.name], errors.get(package.name)
            done = "failed" if error else "reinstalled" if old else "installed"
            outcome = replace(
                outcome, action="would install" if c.config.run.dry else done, error=error,
                before_version=old.version if old else "",
                seconds=time.monotonic() - began if package is stale[0] else 0.0,  # one installation for all
            )  # fmt: skip
        outcomes.append(outcome)
    return outcomes


def _ours(packages: Sequence[Package], environment: Environment, settings: Settings) -> set[str]:
    """The distributions that never come from an index: those of the packages, and FlashInfer's if its checkout is or
    will be installed, though it is not among them."""
    configured = any(each.name == "flashinfer" and each.install for each in settings.repositories)
    installed = [found for name in FLASHINFER if (found := environment.distribution(name))]
    held = configured or any(found.editable for found in installed)
    return names(packages) | ({*FLASHINFER, *COMPANIONS} if held else set())


@dataclass
class _Installation:
    """One installation of `packages`. `ours` are the distributions that no index provides; `requires` is what the
    builds declare and `errors` what packages failed with, both by the names of the distributions."""

    tool: Installer
    packages: Sequence[Package]
    deps: bool
    ours: set[str]
    requires: dict[str, Sequence[str | Requirement]] = field(default_factory=dict)
    errors: dict[str, SourcesError] = field(default_factory=dict)

    def run(self, ready: Sequence[Package]) -> dict[str, SourcesError]:
        """Install the `ready` ones with what all require; return the errors.

        Nothing in the environment changes until the packages have been built once, elsewhere, and all requirements
        have been resolved, downloaded and built; what the packages replace is removed after they are installed.
        """
        environment = self.tool.environment
        complete = all(map(environment.distribution, ("torch", *BESIDE_TORCH)))
        late = [one for one in ready if one.metadata.needs_torch_to_build and not complete]
        early = [one for one in ready if one not in late]
        if self.deps:
            with tempfile.TemporaryDirectory() as directory:
                self._build(early, Path(directory))
        if all(package.name in self.errors for package in ready):
            return self.errors
        self._clean()
        if late:
            self.requires |= {one.name: one.metadata.requires for one in late}  # until their builds declare it
            self._require(*BESIDE_TORCH)
            self._build(late)
        self._require()
        replaced = [one for one in late if not one.is_checkout(environment.distribution(one.name))]
        self._build([*early, *replaced])
        for package in ready:
            try:
                if package.name not in self.errors:
                    self._finish(package)
            except SourcesError as error:
                self.errors[package.name] = error
        return self.errors

    def _build(self, packages: Sequence[Package], target: Path | None = None) -> None:
        """Install checkouts editable, those that are built the same way together; or into the directory `target`."""
        for isolated in (True, False):
            some = [one for one in packages if one.metadata.needs_torch_to_build != isolated]
            some = [one for one in some if one.name not in self.errors]
            if some:
                self._build_together(some, isolated, target)

    def _build_together(self, packages: Sequence[Package], isolated: bool, target: Path | None) -> None:
        """Install checkouts with one command; if it fails, one after the other, to learn which package failed."""
        arguments = ["--no-deps", *([] if isolated else ["--no-build-isolation"])]
        variables: dict[str, str] = {}
        for package in packages:
            if not target:
                package.remember(self.tool.environment, None)
            variables |= package.variables
            arguments += self.tool.editable(package.name, package.folder)
        doing = f"{'building' if target else 'installing'} {' and '.join(map(str, packages))}"
        who = packages[0].repository.name if len(packages) == 1 else WHO
        try:
            self.tool.install(who, doing, arguments, variables, target)
        except SourcesError as error:
            if len(packages) == 1:
                self.errors[packages[0].name] = error
                return
            for package in packages:
                self._build_together([package], isolated, target and target / package.name)
            return
        built = replace(self.tool.environment, paths=(target,)) if target else self.tool.environment
        self.requires |= {one.name: found.requires for one in packages if (found := built.distribution(one.name))}

    def _requirements(self) -> list[Requirement]:
        """What all the packages require, including those that were installed before."""
        requires = dict(self.requires)
        for name in [one.name for one in self.packages if one.name not in requires]:
            found = self.tool.environment.distribution(name)
            requires |= {name: found.requires} if found and found.editable else {}
        extras = {package.name: package.repository.extras for package in self.packages}
        return list(applying(requires.get, extras, self.tool.environment.markers))

    def _require(self, *more: str) -> None:
        """Resolve and install all requirements and `more` together, except for the packages and their companions.

        They include what the running program requires, if the environment is its own.
        """
        if not self.deps or all(package.name in self.errors for package in self.packages):
            return
        lines = [*(str(one) for one in self._requirements() if _name(one) not in self.ours), *more]
        file = self.tool.log.with_suffix(".requirements.txt")  # kept, so that the command can be repeated by hand
        file.write_text("\n".join(dict.fromkeys(lines)) + "\n", encoding="utf-8")
        arguments = ["-r", str(file)] if lines else []
        arguments += ["-r", str(TOOLS)] if self.tool.environment.current else []
        try:
            if arguments:
                self.tool.install(WHO, "installing requirements", arguments)
        except SourcesError as error:
            self.errors.update({one.name: error for one in self.packages if one.name not in self.errors})

    def _clean(self) -> None:
        """Remove what an interrupted installation left: an installer would stop, or Python would import it instead."""
        environment = self.tool.environment
        modules = {name: package.module for package in self.packages for name in (package.name, *package.aliases)}
        for info in environment.incomplete():
            module = modules.get(canonicalize_name(info.name.partition("-")[0]))
            if module or environment.virtual:  # elsewhere the system may have installed the others
                self.tool.reporter.warn(WHO, f"removed {info.name}, which an interrupted installation left incomplete")
                shutil.rmtree(info)
            if module:
                shutil.rmtree(info.parent / module, ignore_errors=True)
        for package in self.packages:
            for _ in range(environment.copies(package.name) - 1):
                self.tool.uninstall(package.repository.name, package.name)

    def _finish(self, package: Package) -> None:
        """Remove what the package replaces, align its companions, and check and record that it is installed.

        Raises SourcesError.
        """
        environment, who = self.tool.environment, package.repository.name
        for extra in {canonicalize_name(extra) for extra in package.repository.extras} - {*package.metadata.extras}:
            self.tool.reporter.warn(who, f"{package.version} has no extra named {extra}")
        for alias in filter(environment.distribution, package.aliases):
            self.tool.uninstall(who, alias)
            self.tool.reporter.event(who, f"{alias} removed, which {package} replaces")
        for name in package.layout.companions if package.version else ():
            self._align(package, name)
        found = environment.distribution(package.name)
        if not package.is_checkout(found):
            installed = f"{found.version} from {found.location or 'an index'} {found.broken}" if found else "nothing"
            raise InstallError(
                f"{who}: the installer reported success, but {installed.strip()} is installed, "
                f"not {package.version} from {package.folder}.",
                command="invoke install --reinstall",
            )
        package.remember(environment, self.deps)

    def _align(self, package: Package, name: str) -> None:
        """Install the companion in the package's version, else remove it: with another one the import would fail."""
        environment, who = self.tool.environment, package.repository.name
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
            why = "the package index could not be reached" if isinstance(error, NetworkError) else "that was not found"
            self.tool.reporter.warn(
                who,
                f"{gone}: it must have {package.name}'s version, {version}, and {why}. FlashInfer works without it, "
                "but compiles or downloads kernels at first use. More package indexes, such as "
                "https://flashinfer.ai/whl, can be set in sources.indexes.",
            )


def _name(requirement: Requirement) -> str:
    return canonicalize_name(requirement.name)
