"""One console for terminals and pipes, and the live lines at the bottom of a terminal."""

from __future__ import annotations

import io
import os
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TextIO

from rich.console import Console
from rich.text import Text

from .text import duration, size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

WIDE = 10_000  # columns without a terminal: nothing is folded
BAR = 8  # a bar takes one in so many columns
TRANSFER, STAGE = 0.7, 0.1  # the parts of what is left of a bar that a transfer, and a stage without bytes, fill
QUIET = 10.0  # seconds between two lines about one repository without a terminal


class Output(Console):
    """A console for a stream, with the colours, characters and width that it can show."""

    def __init__(self, stream: TextIO, environ: Mapping[str, str]) -> None:
        if isinstance(stream, io.TextIOWrapper):  # a message may have characters that the locale lacks
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
        """Continue without a reader, for example after `| head`."""
        self.quiet = True
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self.file.fileno())
        os.close(nothing)


class Transfer(NamedTuple):
    """One command's progress at `doing` something: `done` in 0..1, `moved` in bytes, `rate` in bytes per second."""

    doing: str = ""
    done: float = 0.0
    moved: int = 0
    rate: float = 0.0


@dataclass
class Work:
    """The transfers of a repository and its submodules, as one line. How many transfers follow is not known: each fills
    a part of what is left of the bar, so that it never runs backwards."""

    received: int = 0  # bytes of earlier transfers
    left: float = 1.0
    current: dict[str, Transfer] = field(default_factory=dict)
    task: TaskID | None = None
    shown: float = field(default_factory=time.monotonic)

    def add(self, who: str, now: Transfer) -> None:
        """Take the new state of a transfer."""
        last = self.current.get(who, Transfer())
        if last.doing != now.doing or now.done < last.done or now.moved < last.moved:  # git has begun another one
            self.received += last.moved
            last = Transfer()
        self.left *= (1 - (TRANSFER if now.moved else STAGE)) ** (now.done - last.done)
        self.current[who] = now

    def figures(self) -> list[str]:
        """Bytes so far and in all, rate, and time left, as far as they are known."""
        moving = [each for each in self.current.values() if each.moved]
        moved = self.received + sum(each.moved for each in moving)
        rate = sum(each.rate for each in moving if each.done < 1)
        figures = [size(moved), f"{size(rate)}/s" if rate else ""]
        if all(each.done for each in moving):
            expected = self.received + sum(each.moved / each.done for each in moving)
            if expected > moved:
                figures[0] += f" of ~{size(expected)}"
                figures.append(f"~{duration(max(1, (expected - moved) / rate))} left" if rate else "")
        return [text for text in figures if text]


class Live:
    """What each repository is doing: a bar for each on a terminal, else a line every `QUIET` seconds by `say`."""

    def __init__(self, console: Output, say: Callable[[str, str], None]) -> None:
        self._console, self._say = console, say
        self._works: dict[str, Work] = {}
        self._progress: Progress | None = None

    def put(self, who: str, doing: str, done: float | None, moved: int, rate: float) -> None:
        """Show what `who` does: see `Reporter.progress`."""
        repository, _, submodule = who.partition("/")
        work = self._works.setdefault(repository, Work())
        share = min(max(done or 0.0, 0.0), 1.0)
        work.add(who, Transfer(doing, share, moved, rate))
        percent = "" if done is None else f" {share:.0%}"
        parts = [f"{doing} {submodule}".strip() + percent, *work.figures()]
        if self._console.is_terminal:
            self._draw(repository, work, parts)
        elif time.monotonic() - work.shown >= QUIET:
            work.shown = time.monotonic()
            self._say(repository, ", ".join(parts))

    def hide(self, who: str) -> None:
        """Remove the line of a repository until there is more progress."""
        work = self._works.get(who)
        if work and self._progress and work.task is not None:
            self._progress.update(work.task, visible=False)
            self._progress.refresh()

    def end(self) -> None:
        """Remove all lines, so that others can use the terminal."""
        if self._progress:
            self._progress.stop()
        self._progress = None
        self._works.clear()

    def _draw(self, repository: str, work: Work, parts: list[str]) -> None:
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
