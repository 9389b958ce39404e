"""Text that is safe to show, streams that may end at any time, and the live lines at the bottom of a terminal."""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from ..names import redact

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

WIDE = 10_000  # columns without a terminal: nothing is folded
QUIET = 10.0  # seconds between two lines about one repository without a terminal
LIKELY = 0.5  # the part of a transfer from which on the rest is estimated
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # control sequences: colours, cursor (ECMA-48)
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"  # titles, links, device strings
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROLS = re.compile(  # also characters that change the writing direction or are invisible
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)


def clean(text: str, *, limit: int = 2000) -> str:
    """Return `text` without control characters (newlines stay), escape sequences, workflow commands and passwords.

    Text beyond `limit` characters is dropped. Passwords are removed before and after, as removed characters may have
    hidden one.
    """
    text = re.sub(r"\r\n?", "\n", redact(text)).replace("\t", " ")
    text = redact(_CONTROLS.sub("", _ESCAPES.sub("", text)))
    text = re.sub(r"^(\s*):(?=:)", r"\1: ", text, flags=re.MULTILINE).replace("##[", "## [")
    return text if len(text) <= limit else f"{text[:limit]}..."


def one_line(text: str, *, limit: int = 2000) -> str:
    """Return `clean(text)` on one line."""
    return " ".join(clean(text, limit=limit).split())


def size(count: float) -> str:
    """Return a number of bytes in kB, MB or GB (powers of ten), empty for 0."""
    return decimal(int(count)) if count >= 1 else ""


def duration(seconds: float) -> str:
    """Return seconds in short, such as 0.4 s or 3 min 20 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.2g} s" if seconds >= 1 else f"{seconds:.1f} s"


class Stream:
    """A text stream of which the rest is dropped once its reader has left, or its disk is full."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        """Write as `TextIO.write` does."""
        self._guarded(lambda: self._stream.write(text))

    def flush(self) -> None:
        """Flush as `TextIO.flush` does."""
        self._guarded(self._stream.flush)

    def _guarded(self, act: Callable[[], object]) -> None:
        try:
            act()
        except OSError:
            nothing = os.open(os.devnull, os.O_WRONLY)  # also for Python, which flushes its streams at its end
            os.dup2(nothing, self._stream.fileno())
            os.close(nothing)


class Output(Console):
    """A console for a stream (None: it was closed), with the colours, characters and width that it can show."""

    def __init__(self, stream: IO[str] | None, environ: Mapping[str, str]) -> None:
        stream = stream or io.StringIO()
        if isinstance(stream, io.TextIOWrapper):  # a message may have characters that the locale lacks
            stream.reconfigure(errors="backslashreplace")
        drawn = stream.isatty() and environ.get("TERM") not in ("dumb", "unknown")
        drawn = drawn and environ.get("GITHUB_ACTIONS") != "true"
        super().__init__(
            file=cast(IO[str], Stream(stream)), force_terminal=drawn, width=None if drawn else WIDE,
            no_color=bool(environ.get("NO_COLOR")), color_system="standard" if environ.get("FORCE_COLOR") else "auto",
            markup=False, emoji=False, highlight=False, _environ=environ,
        )  # fmt: skip
        self.unicode = self.encoding.startswith("utf")

    def fold(self, text: Text, indent: int = 2) -> Text:
        """Return the text in lines for which a terminal has room, all but the first indented; elsewhere unchanged."""
        if not self.is_terminal:
            return text
        lines = text.wrap(self, max(10, self.width - indent), overflow="fold")
        for line in lines:
            line.rstrip()
        return Text("\n" + " " * indent).join(lines)


def progress(doing: str, done: float | None, moved: int, rate: float) -> str:
    """Return what is done, how far, how much, how fast, and how long it will take once that can be estimated."""
    parts = [doing if done is None else f"{doing} {done:.0%}", size(moved), f"{size(rate)}/s" if rate else ""]
    if done and LIKELY <= done < 1 and moved:
        parts[1] += f" of ~{size(moved / done)}"
        parts += [f"~{duration(max(1, (moved / done - moved) / rate))} left"] if rate else []
    return ", ".join(filter(None, parts))


class Live:
    """What each repository and submodule is doing: a line for each on a terminal, else one every `QUIET` seconds."""

    def __init__(self, console: Output, say: Callable[[str, str], None]) -> None:
        self._console, self._say = console, say
        self._lines: dict[str, TaskID] = {}
        self._shown: dict[str, float] = {}
        self._display: Progress | None = None

    def put(self, who: str, text: str) -> None:
        """Show what `who` does."""
        if self._console.is_terminal:
            if not self._display:  # a new one each time: a stopped one would draw over the lines above
                self._display = _display(self._console)
                self._display.start()
            if who not in self._lines:
                self._lines[who] = self._display.add_task(who, total=None, text=text)
            self._display.update(self._lines[who], visible=True, text=text)
        elif (now := time.monotonic()) - self._shown.setdefault(who, now) >= QUIET:
            self._shown[who] = now
            self._say(who, text)

    def hide(self, who: str) -> None:
        """Remove the lines of a repository and its submodules until there is more progress."""
        for name, line in self._lines.items():
            if self._display and f"{name}/".startswith(f"{who}/"):
                self._display.update(line, visible=False)
                self._display.refresh()

    def end(self) -> None:
        """Remove all lines, so that others can use the terminal."""
        if self._display:
            self._display.stop()
        self._display = None
        self._lines.clear()


def _display(console: Output) -> Progress:
    """Rich's display: for each repository its name and what it does, cut where the terminal ends."""
    from rich.progress import Progress, SpinnerColumn, TextColumn
    from rich.table import Column

    return Progress(
        SpinnerColumn("dots" if console.unicode else "line", style="cyan"),
        TextColumn("{task.description}", style="bold", markup=False),
        TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
        console=console, transient=True, refresh_per_second=8, redirect_stdout=False, redirect_stderr=False,
    )  # fmt: skip
