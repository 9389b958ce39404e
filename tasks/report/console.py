"""One console for terminals and pipes, and the live lines at its foot."""

from __future__ import annotations

import io
import os
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.text import Text

from .text import duration, size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

WIDE = 10_000  # columns of what is no terminal: nothing is folded there
BAR = 8  # a bar fills this part of the columns
TRANSFER, STAGE = 0.7, 0.1  # the parts of what is left of a bar that a transfer, and a stage without bytes, fill
QUIET = 10.0  # seconds between two lines about one repository where nothing is drawn


class Output(Console):
    """A stream as it can be drawn on: with colours and letters, or without."""

    def __init__(self, stream: TextIO, environ: Mapping[str, str]) -> None:
        if isinstance(stream, io.TextIOWrapper):  # letters that the locale lacks do not stop a message
            stream.reconfigure(errors="backslashreplace")
        terminal = stream.isatty() and environ.get("TERM") not in ("dumb", "unknown")
        drawn = terminal and environ.get("GITHUB_ACTIONS") != "true"
        super().__init__(
            file=stream, force_terminal=drawn, width=None if drawn else WIDE, no_color=bool(environ.get("NO_COLOR")),
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

    def on_broken_pipe(self) -> None:
        """Go on without a reader, such as one that was `head`."""
        self.quiet = True
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self.file.fileno())
        os.close(nothing)


@dataclass
class _Work:
    """The transfers of one repository and its submodules, as one line. How many transfers follow is not known: each
    fills a part of what was left of the bar, so that it never runs backwards."""

    received: int = 0  # bytes of transfers that are over
    left: float = 1.0
    current: dict[str, tuple[str, float, int, float]] = field(default_factory=dict)
    task: TaskID | None = None
    shown: float = field(default_factory=time.monotonic)

    def add(self, who: str, doing: str, done: float, moved: int, rate: float) -> None:
        before, share, bytes_, _ = self.current.get(who, ("", 0.0, 0, 0.0))
        if before != doing or done < share or moved < bytes_:  # git counts anew for each thing that it does
            self.received += bytes_
            share = 0.0
        self.left *= (1 - (TRANSFER if moved else STAGE)) ** (done - share)
        self.current[who] = (doing, done, moved, rate)

    def figures(self) -> list[str]:
        """Bytes so far and in all, rate, and time left, as far as they are known."""
        moving = [each for each in self.current.values() if each[2]]
        moved = self.received + sum(each[2] for each in moving)
        rate = sum(each[3] for each in moving if each[1] < 1)
        known = all(each[1] for each in moving)
        expected = self.received + sum(each[2] / each[1] for each in moving) if known else 0
        total = f" of ~{size(expected)}" if expected > moved else ""
        left = f"~{duration(max(1, (expected - moved) / rate))} left" if total and rate else ""
        return [text for text in (f"{size(moved)}{total}", f"{size(rate)}/s" if rate else "", left) if text]


class Live:
    """What each repository is doing: one bar each on a terminal, elsewhere a line every `QUIET` seconds by `say`."""

    def __init__(self, console: Output, say: Callable[[str, str], None]) -> None:
        self._console, self._say = console, say
        self._works: dict[str, _Work] = {}
        self._progress: Progress | None = None

    def put(self, who: str, doing: str, done: float | None, moved: int, rate: float) -> None:
        """Show what `who` does: see `Reporter.progress`."""
        repository, _, submodule = who.partition("/")
        work = self._works.setdefault(repository, _Work())
        share = min(max(done or 0.0, 0.0), 1.0)
        work.add(who, doing, share, moved, rate)
        percent = "" if done is None else f" {share:.0%}"
        parts = [f"{doing} {submodule}".strip() + percent, *work.figures()]
        if self._console.is_terminal:
            self._draw(repository, work, parts)
        elif time.monotonic() - work.shown >= QUIET:
            work.shown = time.monotonic()
            self._say(repository, ", ".join(parts))

    def hide(self, who: str) -> None:
        """Take the line of a repository away until it does more."""
        work = self._works.get(who)
        if work and self._progress and work.task is not None:
            self._progress.update(work.task, visible=False)
            self._progress.refresh()

    def end(self) -> None:
        """Take all lines away, and leave the terminal to others."""
        if self._progress:
            self._progress.stop()
        self._progress = None
        self._works.clear()

    def _draw(self, repository: str, work: _Work, parts: list[str]) -> None:
        if not self._progress:  # a new one each time: a stopped one would draw over the lines above
            self._progress = _bars(self._console)
            self._progress.start()
        width = self._console.width
        room = max(3, width - width // BAR - max(map(len, self._works)) - 6)
        while len(parts) > 1 and len(", ".join(parts)) > room:
            parts.pop()
        doing = textwrap.shorten(", ".join(parts), room, placeholder=" ...")
        if work.task is None:
            work.task = self._progress.add_task(repository, total=1.0, doing=doing)
        self._progress.update(work.task, visible=True, completed=1 - work.left, doing=doing)


def _bars(console: Output) -> Progress:
    """Rich's display: for each repository a name, a bar and what it does."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    return Progress(
        SpinnerColumn("dots" if console.unicode else "line", style="cyan"),
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(bar_width=console.width // BAR),
        TextColumn("{task.fields[doing]}", markup=False),
        console=console, transient=True, refresh_per_second=8, redirect_stdout=False, redirect_stderr=False,
    )  # fmt: skip
