"""An installer's output: live on a terminal, a few lines elsewhere, all of it in a log; and why an installer failed."""

from __future__ import annotations

import codecs
import re
import select
import signal
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, Popen
from typing import IO, Any, TextIO

from invoke.context import Context
from invoke.runners import Local

from .. import processes
from ..errors import DiskError, InstallError, NetworkError, SourcesError
from ..models import Reporter
from ..names import redact

SILENCE = 10.0  # seconds without output until a line says that the command is still running
GRACE = 5.0  # seconds that an interrupted installer gets to clean up
KEPT = 400  # last lines, which are searched for the reason of a failure
SHOWN = 15  # last lines of a failed installer's output
WIDTH = 120  # characters of an installer's line in the report
PHASES = re.compile(r" *(Resolved|Downloading|Prepared|Collecting|Installing collected)\b")
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07")  # ECMA-48
_DRAWN = re.compile(r"\s*[\u2800-\u28ff]|.*(-{6}|\u2501{6})")  # spinners and bars, for the terminal only

_UNREACHABLE = (
    r"(?:Failed to fetch|error sending request|dns error|NewConnectionError|ConnectTimeoutError|Read timed out"
    r"|Connection (?:refused|reset)|ProxyError|Max retries exceeded)"
)
# The first that matches counts; the text that its groups matched is inserted into the sentence.
_REASONS: tuple[tuple[type[SourcesError], str, str], ...] = (
    (DiskError, "the disk is full", r"No space left on device|os error 28\b"),
    (NetworkError, "crates.io, where Rust packages come from, could not be reached",
     r"(?i:failed to (?:download|get) (?:.*\n)*?.*|unable to update registry `|spurious network.*)crates[.-]io"),
    (InstallError, "the build needs the CUDA toolkit (nvcc)", r"CUDA_HOME environment variable is not set"),
    (NetworkError, "the package index {} could not be reached",
     rf"{_UNREACHABLE}[^\n]*?[`(<]?(https?://[^\s`)>]+?)/?(?:simple/[^\s`)>]*)?[`)>\s]"),
    (NetworkError, "one of the package indexes could not be reached: {}",
     rf"Looking in indexes: (.+)\n(?:.*\n)*?.*{_UNREACHABLE}"),
    (NetworkError, "the package index could not be reached", _UNREACHABLE),
    (InstallError, "no release of {} was found on the package index",
     r"Because (\S+) was not found in|No matching distribution found for (.+)"),
    (InstallError, "these requirements cannot be met together: {}",
     r"conflict is caused by:\n((?:.+\n)+)|No solution found when resolving.*\n((?:.+\n)+)"),
    (InstallError, "the build needs Rust (cargo)", r"(?i)can't find rust compiler|cargo.*not (?:found|installed)"),
    (InstallError, "the compiler {} failed or is missing",
     r"command '(\S+)' failed|No such file or directory: '([^']*(?:cc|\+\+|clang|ninja|cmake|nvcc))'"),
    (InstallError, "{} cannot be written", r"(?i)permission denied: '([^']+)'"),
    (InstallError, "the build raised {}", r"(?s:.*)\n\s*(\w+(?:Error|Exception): .+)"),  # the last one
)  # fmt: skip


def explain(who: str, status: int, lines: Sequence[str], log: Path, command: str) -> SourcesError:
    """The error for an installer that ended with `status` (negative: the signal) after printing `lines`.

    Its `command` repeats the installation by hand, and its hint names the log. NetworkError if an index could not be
    reached, DiskError if the disk is full, else InstallError.
    """
    text = "\n" + "\n".join(lines) + "\n"
    last = "".join(f"\n    {line}" for line in [line for line in lines if line.strip()][-SHOWN:])
    kind: type[SourcesError] = InstallError
    reason = f"the installer ended with status {status}"
    if status < 0:
        memory = " (out of memory?)" if status == -signal.SIGKILL else ""
        reason = f"the installer was ended by signal {-status}{memory}"
    for error, sentence, pattern in _REASONS:
        if found := re.search(pattern, text):
            matched = next(filter(None, found.groups()), "").splitlines()
            kind = error
            reason = sentence.format("; ".join(re.sub(r"[\s│╰▶─]+", " ", line).strip(" .") for line in matched))
            break
    return kind(f"{who}: {reason}.{last}", f"The full output is in {log}.", command)


@dataclass
class Output:
    """Where an installer's output goes: `log` gets all of it, `terminal` gets it unchanged, and without a terminal the
    reporter gets the first line of each phase. `doing` is the purpose of the command in words."""

    who: str
    doing: str
    log: TextIO
    terminal: IO[str] | None
    reporter: Reporter
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT))

    def __post_init__(self) -> None:
        self._phases: set[str] = set()
        self._partial = ""
        self._began = self._shown = time.monotonic()

    def write(self, text: str) -> None:
        """Take a piece of output; called by Invoke."""
        if self.terminal:
            self.terminal.write(text)
            self._shown = time.monotonic()
        *lines, self._partial = (self._partial + text).split("\n")
        for line in lines:
            self._line(line)

    def flush(self) -> None:
        """Called by Invoke after each piece."""
        if self.terminal:
            self.terminal.flush()

    def close(self) -> None:
        """Take the last line if it has no end."""
        self._line(self._partial)
        self.log.flush()

    def say_alive(self) -> None:
        """Report that the command is still running, if nothing was shown for some time."""
        if time.monotonic() - self._shown >= SILENCE:
            last = f": {self.lines[-1].strip()}" if self.lines else ""
            self._show(f"still {self.doing}, {time.monotonic() - self._began:.0f} s{last}")

    def _line(self, line: str) -> None:
        text = redact(_CONTROL.sub("", line.rstrip("\r")).rpartition("\r")[2].rstrip())
        if not text or _DRAWN.match(text):
            return
        self.log.write(f"{text}\n")
        self.lines.append(text)
        phase = PHASES.match(text)
        if phase and phase[1] not in self._phases and not self.terminal:
            self._phases.add(phase[1])
            self._show(text.strip())

    def _show(self, text: str) -> None:
        self._shown = time.monotonic()
        self.reporter.output(self.who, text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…")


class Group(Local):
    """Invoke's runner for local commands, in a process group of its own, so that Ctrl-C ends its children, too."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may be split between two reads

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
            self.kill()
        raise interrupt

    def kill(self) -> None:
        processes.end_group(self.get_pid(), signal.SIGKILL)

    def read_proc_stdout(self, num_bytes: int) -> bytes | None:
        stream: Any = self.parent_fd if self.using_pty else self.process.stdout
        while not select.select([stream], [], [], 0.2)[0]:
            if self.program_finished.is_set():
                return None  # a child that is still running has inherited the pipe
        return super().read_proc_stdout(num_bytes)

    def decode(self, data: bytes) -> str:
        return self._decoder.decode(data)

    def respond(self, buffer_: list[str]) -> None:
        buffer_.clear()  # no watcher reads it, and `Output` keeps what is needed
