"""Running uv: what it is told, what is shown of its output, and why it failed."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TextIO

from invoke.context import Context
from invoke.exceptions import CommandTimedOut, ThreadException

from ..errors import DiskError, InstallError, NetworkError, SourcesError
from ..models import Reporter, Settings
from . import indexes
from .environment import Environment

UV = "python -m pip install --force-reinstall uv"
UV_CACHE = "UV_CACHE_DIR names another directory for uv's cache."
WHO = "install"  # stands in events for several packages at once
WIDTH = 200  # characters of uv's words in a message
RUST_SWITCH = "SGLANG_BUILD_RUST_EXTS"  # "none" makes SGLang's build leave its Rust extensions out
WITHOUT_RUST = "SGLang's native gRPC server and multimodal preprocessing are missing then"
INTERRUPTED = (-signal.SIGINT, 130)  # how uv ends at Ctrl-C
# What contradicts our own options, or would change how every package is built
DROPPED = (
    "UV_NO_BUILD_ISOLATION", "UV_NO_BUILD_ISOLATION_PACKAGE", "UV_REQUIRE_HASHES", "UV_NO_EDITABLE", "UV_TARGET",
    "UV_PREFIX", "UV_SYSTEM_PYTHON", "UV_OVERRIDE", "UV_EXCLUDE", "UV_NO_DEPS", "UV_CONFIG_SETTINGS", "PIP_TARGET",
    "PIP_PREFIX", "PIP_USER", "SETUPTOOLS_SCM_PRETEND_VERSION",
)  # fmt: skip
HOOKS = ("BUILD_NVEP", "BUILD_NIXL_EP", "BUILD_NCCL_EP", "FLASHINFER_BUILD_NO_PIP")
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07")  # ECMA-48
_DRAWN = re.compile(r"\s*[\u2800-\u28ff]|.*(-{6}|\u2501{6})")  # spinners and bars, for the terminal only
_STYLE = r"(?:\x1b\[[0-9;]*m)*"
_FAILED = re.compile(rf"^{_STYLE}(?:error{_STYLE}:|  {_STYLE}\u00d7)", re.MULTILINE)
_MARKS = re.compile(r"^[\s\u2502\u251c\u2570\u2500\u25b6\u00d7]*(error: |cause: )?")  # before the sentences of an error
_TOLD = re.compile(r" *((Resolved|Prepared|Building|Installed) .*|Downloading .*(GiB|\d\d\.\d+ ?MiB)\))$")


@dataclass(frozen=True)
class Uv:
    """uv, working on one environment for the user's command `again`. `log` takes the full output."""

    c: Context
    environment: Environment
    settings: Settings
    log: Path
    reporter: Reporter
    again: str = "invoke install"

    @cached_property
    def program(self) -> str:
        """The path of the uv that was installed with this tool. Raises InstallError."""
        try:
            from uv import find_uv_bin

            return find_uv_bin()
        except (ImportError, FileNotFoundError):
            raise InstallError("uv is not installed.", command=UV) from None

    @cached_property
    def variables(self) -> dict[str, str]:
        """The environment variables for uv and the builds that it starts."""
        given = {name: value for name, value in os.environ.items() if name not in DROPPED}
        pip = indexes.from_pip(given)
        if pip:
            self.reporter.event(WHO, f"uv is given pip's configuration ({', '.join(sorted(pip))})")
        environ = {"GIT_TERMINAL_PROMPT": "0", **pip, **given}
        if self.settings.indexes:
            environ["UV_INDEX"] = " ".join([*self.settings.indexes, environ.get("UV_INDEX", "")]).strip()
        if not any(hook in given for hook in HOOKS):
            # By default FlashInfer's build hook downloads CUDA wheels and compiles nixl into the build's own
            # environment, which is thrown away.
            environ |= {"BUILD_NVEP": "0", "FLASHINFER_BUILD_NO_PIP": "1"}
        return environ

    def cache(self) -> Path:
        """The directory of uv's cache, which need not exist. Raises InstallError if uv cannot be run or has none."""
        argv = [self.program, "cache", "dir"]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False, env=self.variables)
        except OSError as error:
            raise InstallError(f"uv cannot be run: {self.program}: {error.strerror}", command=UV) from None
        if done.returncode:
            raise InstallError(f"`uv cache dir` failed: {done.stderr.strip()[:WIDTH]}", UV_CACHE)
        return Path(done.stdout.strip())

    def run(self, doing: str, arguments: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        """Run `uv pip ARGUMENTS` in the environment, with additional variables; `doing` is its purpose in words.

        Raises NetworkError, DiskError or InstallError with the reason and the command to repeat, KeyboardInterrupt, and
        OSError if the log cannot be written.
        """
        environ = {**self.variables, **(variables or {})}
        argv = [self.program, "pip", *arguments, "--python", str(self.environment.python)]
        changed = {name: value for name, value in environ.items() if os.environ.get(name) != value}
        dropped = [f"--unset={name}" for name in DROPPED if name in os.environ]
        env = ["env", *dropped, *(f"{name}={value}" for name, value in changed.items())]
        command = indexes.mask(shlex.join([*env, *argv]), environ)
        self.reporter.command([indexes.mask(word, environ) for word in argv], None)
        self.reporter.event(WHO, doing)
        terminal = self.reporter.terminal()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"$ {command}\n")
            output = Output(file, terminal, self.reporter, environ)
            try:
                result = self.c.run(  # noqa: S604 - Invoke's runner always has a shell
                    f"exec {shlex.join(argv)} </dev/null 2>&1", shell="/bin/sh", warn=True, echo=False,
                    env={**environ, **self.c.config.run.env}, replace_env=True, pty=terminal is not None,
                    encoding="utf-8", out_stream=output, in_stream=False,
                )  # fmt: skip
            except ThreadException as error:  # the log or the report could not be written
                raise error.exceptions[0].value from None
            except CommandTimedOut as error:  # Invoke's --command-timeout
                raise InstallError(f"uv was ended after {error.timeout} s.", command=command) from None
            finally:
                output.close()
        importlib.metadata.MetadataPathFinder().invalidate_caches()
        assert result is not None
        if result.exited in INTERRUPTED:
            raise KeyboardInterrupt
        if result.exited:
            raise explain(result.exited, output.failure, self.log, command, self.again)


class Output:
    """Where uv's output goes: all of it to the log, without secrets; unchanged to the terminal, or a few lines to the
    reporter. What uv says of a failure is kept for the message, and not shown twice."""

    def __init__(self, log: TextIO, terminal: IO[str] | None, reporter: Reporter, environ: Mapping[str, str]) -> None:
        self._log, self._terminal, self._reporter, self._environ = log, terminal, reporter, environ
        self._partial = ""
        self.failure: list[str] = []

    def write(self, text: str) -> None:
        """Take a piece of output; called by Invoke."""
        if self._terminal and not self.failure:
            self._terminal.write(indexes.mask(_FAILED.split(text)[0], self._environ))
        *lines, self._partial = (self._partial + text).split("\n")
        for line in lines:
            self._line(line)

    def flush(self) -> None:
        """Called by Invoke after each piece."""
        if self._terminal:
            self._terminal.flush()

    def close(self) -> None:
        """Take the last line if it has no end."""
        self._line(self._partial)

    def _line(self, line: str) -> None:
        text = _CONTROL.sub("", line.rstrip("\r")).rpartition("\r")[2].rstrip()
        text = indexes.mask(text, self._environ)
        if _DRAWN.match(text):
            return
        self._log.write(f"{text}\n")
        if self.failure or _FAILED.match(text):
            self.failure.append(text)
        elif _TOLD.match(text) and not self._terminal:
            self._reporter.output(WHO, text.strip())


def explain(status: int, lines: Sequence[str], log: Path, command: str, again: str) -> SourcesError:
    """The error for a uv that ended with `status` (negative: the signal), `lines` being what it said of it.

    Its `command` repeats the installation by hand, and its hint names the log. NetworkError if an index could not be
    reached, DiskError if the disk is full, else InstallError. `again` is the command of the user, which is suggested
    without Rust where cargo failed.
    """
    text = "\n".join(lines)
    head, _, rest = text.partition("\n\n")
    reason = ": ".join(_MARKS.sub("", line).rstrip(".:") for line in head.splitlines())
    build = [line.strip() for line in rest.partition("\n\nhint: ")[0].splitlines() if line.strip()]
    where = f"The full output is in {log}."
    if status < 0:
        memory = " (out of memory?)" if status == -signal.SIGKILL else ""
        return InstallError(f"uv was ended by signal {-status}{memory}.", where, command)
    if re.search(r"No space left on device|os error 28\b", text):
        return DiskError(f"The disk is full: {reason[-WIDTH:]}.", "`uv cache clean` empties uv's cache.", command)
    if re.search(r"\bcargo\b|crates\.io", rest):
        line = next((line for line in build if re.match("error: (?!`cargo|command)", line)), build[-1])
        hint = f"{{}}, or leave the Rust extensions out with the command below; {WITHOUT_RUST}. {where}"
        command = f"{RUST_SWITCH}=none {again}"
        if "crates.io" in rest:
            what = "crates.io, where Rust packages come from, could not be reached."
            return NetworkError(f"{what}\n    {line[:WIDTH]}", hint.format("Set https_proxy"), command)
        what = f"{reason}.\n    {line[:WIDTH]}"
        return InstallError(what, hint.format("Install a newer Rust with rustup"), command)
    kind = NetworkError if re.search(r"Failed to fetch|error sending request|dns error", text) else InstallError
    last = f"\n    {build[-1][:WIDTH]}" if build else ""
    return kind(f"{reason or f'uv failed with status {status}'}.{last}", where, command)
