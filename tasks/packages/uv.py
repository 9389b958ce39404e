"""Running uv: what pip's configuration tells it, what is shown of its output without secrets, and why it failed."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TextIO

from invoke.context import Context
from invoke.exceptions import CommandTimedOut, ThreadException
from uv import find_uv_bin

from ..errors import DiskError, InstallError, NetworkError, SourcesError
from ..models import Reporter, Settings
from ..names import redact
from .environment import Environment

WHO = "install"  # stands in events for several packages at once
WIDTH = 200  # characters of uv's output in a message
CACHE_HINT = "`uv cache clean` empties uv's cache; UV_CACHE_DIR names another directory for it."
RUST_SWITCH = "SGLANG_BUILD_RUST_EXTS"  # "none" makes SGLang's build leave its Rust extensions out
WITHOUT_RUST = "SGLang's native gRPC server and multimodal preprocessing are missing then"
# What contradicts our own options, or would change how every package is built
DROPPED = (
    "UV_NO_BUILD_ISOLATION", "UV_NO_BUILD_ISOLATION_PACKAGE", "UV_REQUIRE_HASHES", "UV_NO_EDITABLE", "UV_TARGET",
    "UV_PREFIX", "UV_SYSTEM_PYTHON", "UV_OVERRIDE", "UV_EXCLUDE", "UV_NO_DEPS", "UV_CONFIG_SETTINGS", "PIP_TARGET",
    "PIP_PREFIX", "PIP_USER", "SETUPTOOLS_SCM_PRETEND_VERSION",
)  # fmt: skip
# FlashInfer's build hook downloads CUDA wheels and compiles nixl into an environment that is thrown away; here it does
# so only where the user sets one of these
HOOKS = ("BUILD_NVEP", "BUILD_NIXL_EP", "BUILD_NCCL_EP", "FLASHINFER_BUILD_NO_PIP")
WITHOUT_HOOK = {"BUILD_NVEP": "0", "FLASHINFER_BUILD_NO_PIP": "1"}
# A setting, as `pip config list` shows it: what separates several for uv, uv's variable, and others that say the same
VARIABLES = {
    "index-url": (" ", "UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "extra-index-url": (" ", "UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "constraint": (" ", "UV_CONSTRAINT"),
    "find-links": (",", "UV_FIND_LINKS"),
    "cert": (" ", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    "trusted-host": (" ", "UV_INSECURE_HOST"),
}
INDEXES = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07")  # ECMA-48
_DRAWN = re.compile(r"\s*[\u2800-\u28ff]|.*(-{6}|\u2501{6})")  # spinners and bars, for the terminal only
_FAILED = re.compile(r"(?:^|(?<=  ))error:|  \u00d7")  # perhaps after a line that fills the terminal
_MARKS = re.compile(r"^[\s\u2502\u251c\u2570\u2500\u25b6\u00d7]*(error: |cause: )?")  # before the sentences of an error
_SHOWN = re.compile(r" *((Resolved|Prepared|Building|Installed|-) .*|Downloading .*(GiB|\d\d\.\d+ ?MiB)\))$")
_UNREACHABLE = re.compile(r"Failed to fetch|error sending request|dns error|failed to download from")  # uv's, cargo's


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
    def variables(self) -> dict[str, str]:
        """The environment variables for uv and the builds that it starts."""
        given = {name: value for name, value in os.environ.items() if name not in DROPPED}
        defaults = {} if any(hook in given for hook in HOOKS) else WITHOUT_HOOK
        environ = {"GIT_TERMINAL_PROMPT": "0", **defaults, **from_pip(given), **given}
        if self.settings.indexes:
            environ["UV_INDEX"] = " ".join([*self.settings.indexes, environ.get("UV_INDEX", "")]).strip()
        return environ

    def cache(self) -> Path:
        """The directory of uv's cache, which need not exist."""
        argv = [find_uv_bin(), "cache", "dir"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=self.variables)
        return Path(done.stdout.strip())

    def run(self, doing: str, arguments: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        """Run `uv pip ARGUMENTS` in the environment, with additional variables; `doing` is its purpose in words.

        Raises NetworkError, DiskError or InstallError with the reason and the command to repeat, KeyboardInterrupt, and
        OSError if the log cannot be written.
        """
        environ = {**self.variables, **(variables or {})}
        argv = [find_uv_bin(), "pip", *arguments, "--python", str(self.environment.python)]
        changed = [f"{name}={value}" for name, value in environ.items() if os.environ.get(name) != value]
        dropped = [f"--unset={name}" for name in DROPPED if name in os.environ]
        command = mask(shlex.join(["env", *dropped, *changed, *argv]), environ)
        self.reporter.command([mask(word, environ) for word in argv], None)
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
        if result.exited in (-signal.SIGINT, 130):
            raise KeyboardInterrupt
        if result.exited:
            raise explain(result.exited, output.failure, self.log, command, self.again)


def from_pip(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that tell uv what pip's files and variables say, except for those that the user has set."""
    pip = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(pip, capture_output=True, text=True, timeout=60, check=False, env=environ).stdout
    found = dict[str, str]()
    for section in ("global", "install", ":env:"):  # pip lets the later ones win
        for key, value in re.findall(rf"^{section}\.([\w-]+)=(.+)$", listed, re.MULTILINE):
            separator, *names = VARIABLES.get(key, ("",))
            if names and not any(name in environ for name in names):
                found[names[0]] = separator.join(str(ast.literal_eval(value)).split())
    return found


def mask(text: str, environ: Mapping[str, str]) -> str:
    """The text without passwords in URLs, and with `https://host/…` for all URLs of the hosts of the indexes in
    `environ`, whose paths may hold tokens."""
    text = redact(text)
    urls = redact(" ".join(environ.get(name, "") for name in INDEXES))
    for host in re.findall(r"https?://(?:\*\*\*@)?([^/\s]+)", urls):
        url = rf"(https?://)(?:\*\*\*@)?{re.escape(host)}/(?:\S*[^\s'\"`),.:;])?"  # a token may have quotes in it
        text = re.sub(url, rf"\g<1>{host}/…", text)
    return text


def write(file: Path, lines: Sequence[str]) -> str:
    """Write a file for uv, which is kept, so that the command can be repeated by hand; return its path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(file)


class Output:
    """Where uv's output goes, without secrets: all of it to the log; to a terminal as uv draws it, or else a few lines
    to the reporter. What uv says of a failure is kept in `failure`."""

    def __init__(self, log: TextIO, terminal: IO[str] | None, reporter: Reporter, environ: Mapping[str, str]) -> None:
        self._log, self._terminal, self._reporter, self._environ = log, terminal, reporter, environ
        self._held = ""  # until its end has come: a secret may be in two pieces
        self._line = ""
        self.failure: list[str] = []

    def write(self, text: str) -> None:
        """Take a piece of output; called by Invoke."""
        *complete, self._held = re.split(r"(?<=[\r\n])", self._held + text)
        for piece in complete:
            shown = mask(piece, self._environ)
            if self._terminal:
                self._terminal.write(shown)
            self._line = _CONTROL.sub("", shown).rstrip() or self._line  # a line may be drawn several times
            if piece.endswith("\n"):
                self._take(self._line)
                self._line = ""

    def flush(self) -> None:
        """Called by Invoke after each piece."""
        if self._terminal:
            self._terminal.flush()

    def close(self) -> None:
        """Take the last line if it has no end."""
        if self._held:
            self.write("\n")

    def _take(self, line: str) -> None:
        """Take a line, without what controls the terminal."""
        if _DRAWN.match(line):
            return
        self._log.write(f"{line}\n")
        failed = _FAILED.search(line)
        if self.failure or failed:
            self.failure.append(line if self.failure or not failed else line[failed.start() :])
        elif _SHOWN.match(line) and not self._terminal:
            self._reporter.event(WHO, line.strip())


def explain(status: int, lines: Sequence[str], log: Path, command: str, again: str) -> SourcesError:
    """The error for a uv that ended with `status` (negative: the signal), and printed `lines` of its failure.

    Its `command` repeats the installation by hand, and its hint names the log. NetworkError if an index could not be
    reached, DiskError if a disk is full or cannot be written, else InstallError. `again` is the command of the user,
    which is suggested without Rust where cargo failed.
    """
    text = "\n".join(lines)
    head, _, rest = text.partition("\n\n")
    reason = ": ".join(_MARKS.sub("", line).rstrip(".:") for line in head.splitlines())
    if "No space left on device" in text or re.search(r"os error (13|20|28|30)\b", head):
        return DiskError(f"uv cannot write: {reason[-WIDTH:]}.", CACHE_HINT, command)
    if status < 0:
        memory = " (out of memory?)" if status == -signal.SIGKILL else ""
        reason = f"uv was ended by signal {-status}{memory}"
    kind = NetworkError if _UNREACHABLE.search(text) else InstallError
    hint = f"The full output is in {log}."
    if re.search(r"\bcargo\b|crates\.io", rest):
        unreachable = "crates.io could not be reached. Set https_proxy"
        way_out = unreachable if kind is NetworkError else "Install a newer Rust with rustup"
        hint = f"{way_out}, or leave the Rust extensions out with the command below; {WITHOUT_RUST}. {hint}"
        command = f"{RUST_SWITCH}=none {again}"
    build = rest.partition("\n\nhint: ")[0].strip().splitlines()
    causes = re.findall(r"Caused by:\n(.*(?:\n(?!\s*error\b).+)*)", rest)  # uv folds lines on a terminal
    told = causes or re.findall(r"^.*[Ee]rror: .*", rest, re.MULTILINE) or build
    last = f"\n    {' '.join(told[-1].split())[:WIDTH]}" if told else ""
    return kind(f"{reason or f'uv failed with status {status}'}.{last}", hint, command)
