"""uv and pip: which one is used and how it is run; one installation at a time in an environment."""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from invoke.context import Context
from invoke.exceptions import CommandTimedOut, ThreadException

from .. import processes
from ..errors import InstallError, SourcesError
from ..models import Reporter, Settings
from ..names import redact
from .environment import Environment
from .output import Group, Output, explain

WHO = "install"  # stands in events for several packages at once
LOCK = ".sources-install.lock"


@dataclass(frozen=True)
class Installer:
    """uv or pip, working on one environment. `log` is the file that takes the full output, `indexes` are additional
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
        """Install what `arguments` name; into the directory `target` if given. Raises as `run` does.

        Both installers build and download everything before they change anything.
        """
        command = [*self._command("install"), *(f"--extra-index-url={index}" for index in self.indexes)]
        if self.uv and self.indexes:
            command += ["--index-strategy=unsafe-best-match"]  # like pip, take the best version that any index has
        elif not self.uv:
            command += ["--no-input", "--disable-pip-version-check"]
            command += [] if self.reporter.terminal() else ["--progress-bar=off"]
        into = ["--target", str(target)] if target else []
        self.run(who, doing, [*command, *into, *arguments], variables, [*command, *arguments])

    def editable(self, name: str, folder: Path) -> list[str]:
        """The arguments that install the package `name` editable from a directory, even if it is installed already."""
        plain = re.fullmatch(r"[\w./@+-]+", str(folder), re.ASCII)
        again = f"--reinstall-package={name}" if self.uv else "--use-pep517"
        return [again, "-e", str(folder) if plain else folder.as_uri()]

    def uninstall(self, who: str, name: str) -> None:
        """Remove a distribution. Raises as `run` does."""
        self.run(who, f"removing {name}", [*self._command("uninstall"), *([] if self.uv else ["--yes"]), name])

    def _command(self, verb: str) -> list[str]:
        python = str(self.environment.python)
        return [self.uv, "pip", verb, "--python", python] if self.uv else [python, "-m", "pip", verb]

    def run(
        self, who: str, doing: str, argv: Sequence[str], variables: Mapping[str, str] | None = None,
        repeated: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Run a command through Invoke, with additional environment variables; `doing` is its purpose in words.

        Raises NetworkError, DiskError or InstallError with the reason, the last lines of output and the command to
        repeat (`repeated`, by default the same), KeyboardInterrupt, and OSError if the log cannot be written.
        """
        variables = variables or {}
        assigned = ["env", *(f"{name}={value}" for name, value in variables.items())] if variables else []
        again, shown = shlex.join([*assigned, *(repeated or argv)]), [redact(word) for word in [*assigned, *argv]]
        self.reporter.command(shown, None)
        self.reporter.event(who, doing)
        terminal = self.reporter.terminal()
        config = self.c.config.clone()
        config.runners.local = Group
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"$ {shlex.join(shown)}\n")
            output = Output(who, doing, file, terminal, self.reporter)
            try:
                result = Context(config).run(  # noqa: S604 - Invoke's runner always has a shell
                    f"exec {shlex.join(argv)}", shell="/bin/sh", encoding="utf-8", warn=True, echo=False,
                    env={**config.run.env, "PYTHONUNBUFFERED": "1", "GIT_TERMINAL_PROMPT": "0", **variables},
                    pty=terminal is not None, out_stream=output, in_stream=False,
                )  # fmt: skip
            except ThreadException as error:  # the log or the report could not be written
                raise error.exceptions[0].value from None
            except CommandTimedOut as error:  # Invoke's --command-timeout
                what = f"{who}: the installer did not end within {error.timeout} s."
                raise InstallError(what, command=again) from None
            finally:
                output.close()
        importlib.metadata.MetadataPathFinder().invalidate_caches()
        assert result is not None
        if result.exited:
            raise explain(who, result.exited, list(output.lines), self.log, again)


def find_installer(
    c: Context, environment: Environment, settings: Settings, *, log: Path, reporter: Reporter
) -> Installer:
    """The configured installer; by default uv, or pip if uv does not run on this machine.

    An environment without pip gets it from Python's own ensurepip if pip is used. Raises InstallError if there is none.
    """
    uv = _find_uv() if settings.installer != "pip" else ""
    if settings.installer == "uv" and not uv:
        raise InstallError("uv is configured as the installer, but was not found or does not run.", "Install uv.")
    tool = Installer(c, environment, log, reporter, settings.indexes, uv)
    if not uv and not environment.has_pip:
        reporter.event(WHO, f"{environment.prefix} has no pip: installing the one that comes with Python")
        try:
            tool.run(WHO, "installing pip", [str(environment.python), "-m", "ensurepip"])
        except SourcesError as error:
            raise InstallError(
                f"{environment.prefix} has no pip, uv does not run on this machine, and ensurepip failed: {error.what}",
                "Install uv, or install pip into that environment.",
            ) from None
    return tool


def _find_uv() -> str:
    """The path of the uv that is installed with this tool; empty if it is missing or built for another machine."""
    with suppress(ImportError, OSError):
        from uv import find_uv_bin

        path = find_uv_bin()
        if processes.run([path, "--version"], timeout=30).status == 0:
            return path
    return ""


@contextmanager
def exclusive(prefix: Path, reporter: Reporter) -> Iterator[None]:
    """Hold the lock of the environment at `prefix` (flock(2)); first wait for another process that holds it.

    The installer inherits the lock: if only this program is killed, the next run waits until the installer has ended.
    The system releases the locks of processes that have ended. Raises OSError if the file cannot be written.
    """
    lock = os.open(prefix / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 200, 0).decode(errors="replace") or "another installation"
            reporter.event(WHO, f"waiting for {holder}, which installs into {prefix}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        os.ftruncate(lock, 0)
        command = " ".join(["invoke", *sys.argv[1:]])[:80]
        os.pwrite(lock, f"process {os.getpid()} ({command})".encode(errors="replace"), 0)
        os.set_inheritable(lock, True)
        yield
    finally:
        os.close(lock)
