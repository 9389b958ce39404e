"""Text that is safe to show, streams that may end at any time, and the live lines at the bottom of a terminal."""

from __future__ import annotations

import io
import os
import re
import threading
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from ..names import redact

if TYPE_CHECKING:
    from rich.live import Live as Display
    from rich.table import Table

LIMIT = 2000  # characters of one message
WIDE = 10_000  # columns without a terminal: nothing is folded
QUIET = 10.0  # seconds between two lines about one repository without a terminal
LIKELY = 0.5  # the part of a transfer from which on the rest is estimated
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # colours, movements of the cursor (ECMA-48)


def clean(text: str) -> str:
    """Return `text` without control characters (newlines stay), colours, workflow commands and passwords.

    Text beyond `LIMIT` characters is dropped. Passwords are removed before and after, as removed characters may have
    hidden one.
    """
    text = _SEQUENCE.sub("", redact(text)).replace("\t", " ")
    text = redact("".join(filter(_is_shown, text)))
    text = re.sub(r"^(\s*):(?=:)", r"\1: ", text, flags=re.MULTILINE).replace("##[", "## [")
    return text if len(text) <= LIMIT else f"{text[:LIMIT]}..."


def _is_shown(character: str) -> bool:
    is_byte = "\udc80" <= character <= "\udcff"  # of a file's name that is not UTF-8
    return character.isprintable() or character == "\n" or is_byte


def one_line(text: str) -> str:
    """Return `clean(text)` on one line."""
    return " ".join(clean(text).split())


def size(count: float) -> str:
    """Return a number of bytes in kB, MB or GB (powers of ten), empty for 0."""
    return decimal(int(count)) if count >= 1 else ""


def duration(seconds: float) -> str:
    """Return seconds in short, such as 0.4 s or 3 min 20 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.2g} s" if seconds >= 1 else f"{seconds:.1f} s"


def progress(doing: str, done: float | None, moved: int, rate: float) -> str:
    """Return what is done, how far, how much, how fast, and how long it will take once that can be estimated."""
    parts = [doing if done is None else f"{doing} {done:.0%}", size(moved), f"{size(rate)}/s" if rate else ""]
    if done and LIKELY <= done < 1 and moved:
        parts[1] += f" of ~{size(moved / done)}"
        parts += [f"~{duration(max(1, (moved / done - moved) / rate))} left"] if rate else []
    return ", ".join(filter(None, parts))


class Output(Console):
    """A console for a stream (None: it was closed), with the colours, characters and width that it can show. Once the
    stream's reader has left, or its disk is full, the rest is dropped."""

    def __init__(self, stream: IO[str] | None) -> None:
        stream = stream or io.StringIO()
        if isinstance(stream, io.TextIOWrapper):  # a message may have characters that the locale lacks
            stream.reconfigure(errors="backslashreplace")
        drawn = stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
        super().__init__(
            file=stream, force_terminal=drawn, width=None if drawn else WIDE, markup=False, emoji=False,
            highlight=False, color_system="standard" if os.environ.get("FORCE_COLOR") else "auto",
        )  # fmt: skip

    def write(self, text: Text, indent: int) -> None:
        """Print the text: as it is, or with an `indent` folded where the terminal ends, the further lines indented."""
        if indent:
            lines = text[indent:].wrap(self, max(20, self.width - indent), overflow="fold")
            text = text[:indent] + Text("\n" + " " * indent).join(lines)
        try:
            self.print(text, soft_wrap=True)
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Let the stream lead nowhere, also for Python, which flushes its streams at its end."""
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self.file.fileno())
        os.close(nothing)


class Live:
    """What each repository and submodule is doing: a line for each on a terminal, else one every `QUIET` seconds."""

    def __init__(self, console: Output, say: Callable[[str, str], None]) -> None:
        self._console, self._say = console, say
        self._lines: dict[str, str] = {}
        self._said: dict[str, float] = {}
        self._display: Display | None = None
        self._lock = threading.Lock()

    def put(self, who: str, text: str) -> None:
        """Show what `who` does."""
        if self._console.is_terminal:
            from rich.live import Live as Display

            self._lines[who] = text
            with self._lock:
                if not self._display:
                    self._display = Display(get_renderable=self._draw, console=self._console, transient=True)
                    self._display.start()
        elif (now := time.monotonic()) - self._said.setdefault(who, now) >= QUIET:
            self._said[who] = now
            self._say(who, text)

    def hide(self, who: str) -> None:
        """Remove the lines of a repository and its submodules until there is more progress."""
        for name in [name for name in list(self._lines) if f"{name}/".startswith(f"{who}/")]:
            self._lines.pop(name, None)
        if display := self._display:
            display.refresh()

    def end(self) -> None:
        """Remove all lines, so that others can use the terminal."""
        self._lines.clear()
        with self._lock:
            if self._display:
                self._display.stop()
            self._display = None

    def _draw(self) -> Table:
        """The lines, each cut where the terminal ends."""
        from rich.table import Table

        table = Table.grid(padding=(0, 1))
        for style in ("bold", ""):
            table.add_column(style=style, no_wrap=True)
        for who, text in dict(self._lines).items():
            table.add_row(who, text)
        return table
