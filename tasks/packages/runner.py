"""Runs one command of an installer through Invoke: live on a terminal, in a few lines elsewhere, all of it in a log."""

from __future__ import annotations

import codecs
import re
import select
import shlex
import signal
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, Popen
from typing import IO, Any, TextIO

from invoke.context import Context
from invoke.exceptions import ThreadException
from invoke.runners import Local

from .. import processes
from ..models import Reporter
from ..names import redact

SILENCE = 10.0  # seconds without a line after which one says that the work goes on
GRACE = 5.0  # seconds that an interrupted installer gets to clean up
KEPT = 400  # last lines, in which the reason of a failure is looked for
WIDTH = 120  # characters of an installer's line in the report
PHASES = re.compile(r" *(Resolved|Downloading|Prepared|Collecting|Installing collected)\b")
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07")  # ECMA-48
_DRAWN = re.compile(r"\s*[\u2800-\u28ff]|.*(-{6}|\u2501{6})")  # spinners and bars, of which only the terminal knows
_QUIET = {"PYTHONUNBUFFERED": "1", "GIT_TERMINAL_PROMPT": "0"}


class Output:
    """Where an installer's output goes: `log` gets all of it; `terminal` gets it unchanged, where there is one; without
    one the reporter gets the first line of each phase. `doing` says in words what the command is for."""

    def __init__(self, log: TextIO, terminal: IO[str] | None, who: str, doing: str, reporter: Reporter) -> None:
        self.lines: deque[str] = deque(maxlen=KEPT)
        self._log, self._terminal, self._who, self._doing, self._reporter = log, terminal, who, doing, reporter
        self._phases: set[str] = set()
        self._partial = ""
        self._began = self._shown = time.monotonic()

    def write(self, text: str) -> None:
        """Take a piece of output; called by Invoke."""
        if self._terminal:
            self._terminal.write(text)
            self._shown = time.monotonic()
        *lines, self._partial = (self._partial + text).split("\n")
        for line in lines:
            self._line(line)

    def flush(self) -> None:
        """Called by Invoke after each piece."""
        if self._terminal:
            self._terminal.flush()

    def close(self) -> None:
        """Take what is left without an end of line."""
        self._line(self._partial)
        self._log.flush()

    def say_alive(self) -> None:
        """Say that the work goes on, where nothing was shown for some time."""
        if time.monotonic() - self._shown >= SILENCE:
            last = f": {self.lines[-1].strip()}" if self.lines else ""
            self._show(f"still {self._doing}, {time.monotonic() - self._began:.0f} s{last}")

    def _line(self, line: str) -> None:
        text = redact(_CONTROL.sub("", line.rstrip("\r")).rpartition("\r")[2].rstrip())
        if not text or _DRAWN.match(text):
            return
        self._log.write(f"{text}\n")
        self.lines.append(text)
        phase = PHASES.match(text)
        if phase and phase[1] not in self._phases and not self._terminal:
            self._phases.add(phase[1])
            self._show(text.strip())

    def _show(self, text: str) -> None:
        self._shown = time.monotonic()
        self._reporter.output(self._who, text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…")


class _Group(Local):
    """Invoke's runner for local commands, in a process group of its own, so that Ctrl-C ends the children, too."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a letter may come in two pieces

    def start(self, command: str, shell: str, env: dict[str, Any]) -> None:
        if self.using_pty:
            super().start(command, shell, env)  # a terminal of its own, hence a session
        else:
            self.process = Popen(
                [shell, "-c", command], env=env, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT,
                start_new_session=True, close_fds=False,
            )  # fmt: skip

    def wait(self) -> None:
        while not (self.process_is_finished or self.has_dead_threads):
            self.streams["out"].say_alive()
            processes.wait(0.05)
        if self.has_dead_threads:
            self.kill()

    def send_interrupt(self, interrupt: KeyboardInterrupt) -> None:
        try:
            processes.end_group(self.get_pid(), signal.SIGINT)
            deadline = time.monotonic() + GRACE
            while not self.process_is_finished and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            processes.end_group(self.get_pid(), signal.SIGKILL)
        raise interrupt

    def kill(self) -> None:
        processes.end_group(self.get_pid(), signal.SIGKILL)

    def read_proc_stdout(self, num_bytes: int) -> bytes | None:
        stream: int | IO[bytes] | None = self.parent_fd if self.using_pty else self.process.stdout
        poll = select.poll()
        assert stream is not None
        poll.register(stream, select.POLLIN)
        while not poll.poll(200):
            if self.program_finished.is_set():
                return None  # a child that lives on has inherited the pipe
        return super().read_proc_stdout(num_bytes)

    def decode(self, data: bytes) -> str:
        return self._decoder.decode(data)

    def respond(self, buffer_: list[str]) -> None:
        buffer_.clear()  # nothing answers the installer, and `Output` keeps what is needed


def run(
    c: Context, argv: Sequence[str], variables: Mapping[str, str], *,
    who: str, doing: str, log: Path, reporter: Reporter,
) -> tuple[int, list[str]]:  # fmt: skip
    """Run a command with further environment variables; return its exit status (negative: the signal) and its
    last lines. `log` gets its whole output.

    Raises OSError if the log cannot be written, CommandTimedOut after Invoke's --command-timeout, KeyboardInterrupt.
    """
    shown = [redact(word) for word in with_variables(argv, variables)]
    reporter.command(shown, None)
    reporter.event(who, doing)
    terminal = reporter.terminal()
    config = c.config.clone()
    config.runners.local = _Group
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"$ {shlex.join(shown)}\n")
        output = Output(file, terminal, who, doing, reporter)
        try:
            result = Context(config).run(  # noqa: S604 - Invoke's runner always has a shell
                f"exec {shlex.join(argv)}", shell="/bin/sh",
                env={**config.run.env, **_QUIET, **variables}, encoding="utf-8", warn=True, echo=False,
                pty=terminal is not None, out_stream=output, in_stream=False,
            )  # fmt: skip
        except ThreadException as error:  # the log or the report could not be written
            raise error.exceptions[0].value from None
        finally:
            output.close()
    assert result is not None
    return result.exited, list(output.lines)


def with_variables(argv: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    """The command as a shell takes it, with its environment variables."""
    return [*(["env", *(f"{name}={value}" for name, value in variables.items())] if variables else []), *argv]
