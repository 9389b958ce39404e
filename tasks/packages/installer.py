"""pip and uv: finding one, running it, and saying in one sentence why it failed."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DiskError, InstallError
from ..models import Reporter
from ..names import redact
from .environment import Environment

SHOWN = 15  # last lines of a failed installer's output
KEPT = 400  # last lines that the reason is looked for in
OLDEST_PIP = "21.3"  # the first that installs a pyproject.toml package editable (PEP 660)

FULL = r"No space left on device|os error 28\b"
REASONS = (  # the first that fits counts; what its groups matched is put in
    (r"CUDA_HOME environment variable is not set", "the build needs the CUDA toolkit (nvcc)"),
    (r"Because (\S+) was not found in", "no release of {} is to be had from the package index"),
    (
        r"conflict is caused by:\n((?:.+\n)+)|No solution found when resolving.*\n((?:.+\n)+)",
        "these requirements cannot be met together: {}",
    ),
    (
        r"Failed to fetch|error sending request|dns error|NewConnectionError|ConnectTimeoutError|Read timed out",
        "the package index could not be reached",
    ),
    (r"No matching distribution found for (.+)", "no release of {} is to be had from the package index"),
    (r"(?i)can't find rust compiler|cargo.*not (?:found|installed)", "the build needs Rust (cargo)"),
    (
        r"command '(\S+)' failed|No such file or directory: '([^']*(?:cc|\+\+|clang|ninja|cmake|nvcc))'",
        "the compiler {} failed or is missing",
    ),
    (r"(?i)permission denied: '([^']+)'", "{} may not be written to"),
    (r"(?s:.*)\n\s*(\w+(?:Error|Exception): .+)", "the build raised {}"),  # the last one
)


@dataclass(frozen=True)
class Installer:
    """One of the two installers, set to work on one environment."""

    environment: Environment
    reporter: Reporter
    uv: str = ""  # its path; empty for pip

    def install(self, who: str, arguments: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        """Install what `arguments` name, with further environment variables; `who` is told as it goes.

        Raises InstallError with the last lines, the reason and the command to repeat, or DiskError.
        """
        self._run(who, ["install", *self._options(), *arguments], variables or {})

    def uninstall(self, who: str, names: Sequence[str]) -> None:
        """Remove distributions. Raises as `install` does."""
        self._run(who, ["uninstall", *([] if self.uv else ["--yes"]), *names], {})

    def _options(self) -> list[str]:
        return [] if self.uv else ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]

    def _run(self, who: str, words: list[str], variables: Mapping[str, str]) -> None:
        python = str(self.environment.python)
        argv = [self.uv, "pip", words[0], "--python", python] if self.uv else [python, "-m", "pip", words[0]]
        run(who, [*argv, *words[1:]], variables, self.reporter)
        importlib.metadata.MetadataPathFinder().invalidate_caches()


def find_installer(choice: str, environment: Environment, reporter: Reporter) -> Installer:
    """The installer asked for: `uv`, `pip`, or `auto` for uv where it is on the PATH and pip otherwise.

    Nothing is started, except that an environment without pip gets it, with Python's own ensurepip where no uv is
    to be used. Raises InstallError where there is none to be had.
    """
    uv = shutil.which("uv") if choice in ("auto", "uv") else None
    if uv:
        return Installer(environment, reporter, uv)
    if choice == "uv":
        raise InstallError("uv is configured as the installer, and is not on the PATH.", "Install uv, or use pip.")
    if not environment.has_pip:
        reporter.event("install", f"{environment.prefix} has no pip: it gets the one that Python brings along")
        try:
            run("install", [str(environment.python), "-m", "ensurepip"], {}, reporter)
        except InstallError as error:
            raise InstallError(
                f"{environment.prefix} has no pip, there is no uv on the PATH, and ensurepip failed: {error.what}",
                "Put uv on the PATH, or install pip into that environment.",
            ) from None
    pip = environment.distribution("pip")
    if pip and tuple(map(int, re.findall(r"\d+", pip.version)[:2])) < tuple(map(int, OLDEST_PIP.split("."))):
        fix = shlex.join([str(environment.python), "-m", "pip", "install", "--upgrade", "pip"])
        raise InstallError(f"pip {pip.version} is too old: {OLDEST_PIP} is the first with editable installs.", fix)
    return Installer(environment, reporter)


def run(who: str, argv: Sequence[str], variables: Mapping[str, str], reporter: Reporter) -> None:
    """Run a command and hand on what it prints, line by line. Raises as `Installer.install` does."""
    words = [*(["env", *(f"{name}={value}" for name, value in variables.items())] if variables else []), *argv]
    reporter.command(words, None)
    tail: deque[str] = deque(maxlen=KEPT)
    quiet = {"PYTHONUNBUFFERED": "1", "GIT_TERMINAL_PROMPT": "0"}
    try:
        process = subprocess.Popen(
            argv, env={**os.environ, **quiet, **variables}, text=True, encoding="utf-8", errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except OSError as error:
        raise InstallError(f"{who}: {argv[0]} could not be started: {error.strerror}", shlex.join(words)) from None
    with process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                tail.append(redact(line.rstrip()))
                reporter.output(who, tail[-1])
        except BaseException:
            process.send_signal(signal.SIGINT)  # and let it clear up
            raise
    if process.returncode:
        raise _explain(who, process.returncode, tail, shlex.join(words))


def _explain(who: str, status: int, tail: Sequence[str], command: str) -> InstallError | DiskError:
    text = "\n".join(tail) + "\n"
    last = "".join(f"\n    {line}" for line in [line for line in tail if line.strip()][-SHOWN:])
    if re.search(FULL, text):
        return DiskError(f"{who}: the disk filled up while the installer was at work.{last}", command)
    reason = f"the installer ended with status {status}"
    if status < 0:
        reason = f"the installer was ended by signal {-status}" + (
            " (out of memory?)" if status == -signal.SIGKILL else ""
        )
    for pattern, sentence in REASONS:
        if found := re.search(pattern, text):
            matched = next(filter(None, found.groups()), "")
            reason = sentence.format(
                "; ".join(re.sub(r"[\s│╰▶─]+", " ", line).strip(" .") for line in matched.splitlines())
            )
            break
    return InstallError(f"{who}: {reason}.{last}", command)


def editable(folder: Path) -> list[str]:
    """The arguments that install a folder editable, whatever letters its path has."""
    plain = re.fullmatch(r"[\w./@+-]+", str(folder), re.ASCII)
    return ["-e", str(folder) if plain else folder.as_uri()]
