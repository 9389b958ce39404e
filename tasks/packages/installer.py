"""uv and pip: which of them is used, and how it is called."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from invoke.context import Context
from invoke.exceptions import CommandTimedOut

from .. import processes
from ..errors import InstallError, SourcesError
from ..models import Reporter
from . import runner
from .environment import Environment
from .failures import explain

WHO = "install"  # who speaks where several packages are installed at once
OLDEST_PIP = "21.3"  # the first that installs a pyproject.toml package editable (PEP 660)


@dataclass(frozen=True)
class Installer:
    """One of the two installers, working on one environment. `log` takes the full output, `indexes` are additional
    package indexes, `uv` is its path and empty for pip."""

    c: Context
    environment: Environment
    log: Path
    reporter: Reporter
    indexes: Sequence[str] = ()
    uv: str = ""

    def install(
        self, who: str, doing: str, arguments: Sequence[str], variables: Mapping[str, str] | None = None,
        target: Path | None = None,
    ) -> None:  # fmt: skip
        """Install what `arguments` name, with further environment variables; into the directory `target` if given.

        `doing` says in words what for. Both installers build and download everything before they change anything.
        Raises NetworkError, DiskError or InstallError with the reason, the last lines and the command that repeats it.
        """
        options = [f"--extra-index-url={index}" for index in self.indexes]
        if self.uv:  # like pip, take the best version that any index has
            options += ["--index-strategy=unsafe-best-match"] if self.indexes else []
        else:
            options += ["--no-input", "--disable-pip-version-check"]
            options += [] if self.reporter.terminal() else ["--progress-bar=off"]
        command = [*self._command("install"), *options]
        into = ["--target", str(target)] if target else []
        self.run(who, doing, [*command, *into, *arguments], variables or {}, [*command, *arguments])

    def uninstall(self, who: str, name: str) -> None:
        """Remove a distribution. Raises as `install` does."""
        self.run(who, f"removing {name}", [*self._command("uninstall"), *([] if self.uv else ["--yes"]), name])

    def _command(self, verb: str) -> list[str]:
        python = str(self.environment.python)
        return [self.uv, "pip", verb, "--python", python] if self.uv else [python, "-m", "pip", verb]

    def run(
        self, who: str, doing: str, argv: Sequence[str], variables: Mapping[str, str] | None = None,
        repeated: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Run a command; its error tells to repeat `repeated`, by default the same. Raises as `install` does."""
        variables = variables or {}
        again = shlex.join(runner.with_variables(repeated or argv, variables))
        try:
            status, lines = runner.run(
                self.c, argv, variables, who=who, doing=doing, log=self.log, reporter=self.reporter
            )
        except CommandTimedOut as error:
            raise InstallError(f"{who}: the installer did not end within {error.timeout} s.", command=again) from None
        importlib.metadata.MetadataPathFinder().invalidate_caches()
        if status:
            raise explain(who, status, lines, self.log, again)


def find_installer(
    c: Context, choice: str, environment: Environment, *, indexes: Sequence[str], log: Path, reporter: Reporter
) -> Installer:
    """The installer to use: uv, or pip if that is the `choice` or no uv works on this machine (unless it is `uv`).

    An environment without pip gets it from Python's own ensurepip if pip is used. Raises InstallError if there is none.
    """
    if choice != "pip" and (uv := _find_uv()):
        return Installer(c, environment, log, reporter, indexes, uv)
    if choice == "uv":
        raise InstallError("uv is configured as the installer, but was not found or does not run.", "Install uv.")
    tool = Installer(c, environment, log, reporter, indexes)
    if not environment.has_pip:
        reporter.event(WHO, f"{environment.prefix} has no pip: installing the one that comes with Python")
        try:
            tool.run(WHO, "installing pip", [str(environment.python), "-m", "ensurepip"])
        except SourcesError as error:
            raise InstallError(
                f"{environment.prefix} has no pip, uv does not run on this machine, and ensurepip failed: {error.what}",
                "Install uv, or install pip into that environment.",
            ) from None
    pip = environment.distribution("pip")
    if pip and tuple(map(int, re.findall(r"\d+", pip.version)[:2])) < tuple(map(int, OLDEST_PIP.split("."))):
        command = shlex.join([str(environment.python), "-m", "pip", "install", "--upgrade", "pip"])
        what = f"pip {pip.version} is too old: {OLDEST_PIP} is the first with editable installs."
        raise InstallError(what, command=command)
    return tool


def _find_uv() -> str:
    """The path of a uv that runs: the one installed with this tool, else the one on the PATH; empty for none."""
    candidates = [shutil.which("uv")]
    try:
        from uv import find_uv_bin

        candidates.insert(0, find_uv_bin())
    except (ImportError, FileNotFoundError):
        pass
    for path in filter(None, candidates):
        try:
            if processes.run([path, "--version"], timeout=30).status == 0:
                return path
        except OSError:  # built for another kind of machine
            continue
    return ""


def editable(folder: Path) -> list[str]:
    """The arguments that install a directory editable, whatever characters its path has."""
    plain = re.fullmatch(r"[\w./@+-]+", str(folder), re.ASCII)
    return ["-e", str(folder) if plain else folder.as_uri()]
