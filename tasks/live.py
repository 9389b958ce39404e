"""What is drawn with rich. Imported late, so that a run that shows nothing does not wait for it."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.measure import Measurement
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from .text import duration, size

WIDE = 10_000  # columns of what is no terminal: nothing is wrapped or cut there
STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}


def silence(stream: TextIO) -> None:
    """Point `stream` at nothing, after its reader has gone; the work goes on."""
    with open(os.devnull, "w") as nothing:  # noqa: PTH123 - a device, not a path
        os.dup2(nothing.fileno(), stream.fileno())


class Screen(Console):
    """A stream with its width, colours and letters. Markup in texts is not obeyed."""

    def __init__(self, stream: TextIO, *, terminal: bool, colour: bool) -> None:
        super().__init__(
            file=stream,
            force_terminal=terminal,
            color_system="auto" if terminal else None,
            no_color=not colour,
            width=None if terminal else WIDE,
            markup=False,
            emoji=False,
            highlight=False,
        )
        self.unicode = (self.encoding or "").lower().startswith("utf")
        self.arrow = "→" if self.unicode else "->"
        self.marks = {name: name for name in STYLES}
        if terminal and self.unicode:
            self.marks = {"pass": "✓", "warn": "!", "fail": "✗", "skip": "-"}

    def on_broken_pipe(self) -> None:
        """Go on without a reader, such as one that was `head`."""
        self.quiet = True
        silence(self.file)  # type: ignore[arg-type]

    def say(self, *parts: tuple[str, str], wrap: bool = True) -> None:
        """Print texts with their styles on one line; without `wrap` the terminal folds it, so it can be copied whole."""
        self.print(Text.assemble(*parts), soft_wrap=not (wrap and self.is_terminal))

    def check(self, status: str, name: str, detail: str, width: int) -> None:
        """Print one line of a doctor's report: the name `width` columns wide, the detail beside it or, if narrow, below."""
        mark = self.marks[status]
        if not self.is_terminal:
            self.say((f"  {mark:4}  {name:{width}}  {detail}".rstrip(), ""))
            return
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column()
        if self.width - width < 36:
            name, detail = "", f"{name}\n{detail}".rstrip()
        else:
            grid.add_column(width=width)
        grid.add_column(overflow="fold")
        grid.add_row(*(Text(cell, style) for cell, style in ((mark, STYLES[status]), (name, ""), (detail, "")) if cell))
        self.print(Padding(grid, (0, 0, 0, 2), expand=False))

    def table(self, columns: Mapping[str, Sequence[str]], *, wraps: str, drop: Sequence[str], styles: Sequence[str]) -> None:
        """Print columns of cells, without the empty ones and, where the terminal is narrow, without those in `drop`.

        Only the column `wraps` is ever folded. `styles` holds one for each row.
        """
        kept = {title: cells for title, cells in columns.items() if any(cells)}
        for title in (*drop, ""):
            table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
            for name, cells in kept.items():
                least = None if name == wraps else max(cell_len(cell) for cell in (name, *cells))
                table.add_column(Text(name), no_wrap=bool(least), min_width=least, overflow="fold")
            for style, *row in zip(styles, *kept.values(), strict=True):
                table.add_row(*(Text(cell, style if name == wraps else "") for name, cell in zip(kept, row, strict=True)))
            if Measurement.get(self, self.options.update(max_width=WIDE), table).minimum <= self.width:
                break
            kept.pop(title, None)
        with self.capture() as drawn:
            self.print(table)
        for line in drawn.get().splitlines():
            self.file.write(f"{line.rstrip()}\n")
        self.file.flush()


@dataclass
class Row:
    """What one repository or submodule is doing: `done` in 0..1 or None, bytes, bytes per second."""

    doing: str
    done: float | None
    moved: int
    rate: float
    since: float = field(default_factory=time.monotonic)


class Board:
    """The live lines at the foot of a terminal. Its caller sees to it that one thread at a time calls it."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._rows: dict[str, Row] = {}
        self._live: Live | None = None
        self._spinner = Spinner("dots" if screen.unicode else "line", style="cyan")

    def put(self, who: str, row: Row) -> None:
        """Show or change the line of `who`; its time counts from its first `doing`."""
        old = self._rows.get(who)
        if old and old.doing == row.doing:
            row.since = old.since
        self._rows[who] = row
        self.show()

    def show(self) -> None:
        """Draw the lines, if there are any."""
        if self._rows and self._live is None:
            self._live = Live(
                self, console=self._screen, transient=True, refresh_per_second=8, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()

    def drop(self, who: str) -> None:
        """Take away the lines of `who` and its submodules."""
        for name in [name for name in self._rows if name == who or name.startswith(f"{who}/")]:
            del self._rows[name]
        if not self._rows:
            self.hide()

    def clear(self) -> None:
        """Take away all lines."""
        self._rows.clear()
        self.hide()

    def hide(self) -> None:
        """Leave the terminal to others, until `show`."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __rich__(self) -> Table:
        """Return the lines as they are now; called by rich's own thread, so it works on a copy."""
        rows, width = dict(self._rows), self._screen.width
        grid = Table.grid(padding=(0, 2, 0, 0))
        for justify in ("left", "left", "left", "left", "right", "right", "right"):
            grid.add_column(justify=justify, no_wrap=True, overflow="ellipsis" if self._screen.unicode else "crop")
        for who, row in sorted(rows.items()):
            repository, _, submodule = who.partition("/")
            complete = row.done is not None and row.done >= 1
            percent = "" if row.done is None else f"{min(row.done, 1):4.0%}"
            waiting = duration(int(time.monotonic() - row.since)) if row.done is None and not row.moved else ""
            cells = {
                "mark": Text(self._screen.marks["pass"][:1], "green") if complete else self._spinner,
                "who": Text(f"  {submodule}" if submodule and repository in rows else who, "bold" if not submodule else ""),
                "doing": Text(row.doing, "dim") if width >= 45 else None,
                "bar": ProgressBar(1.0, row.done or 0.0, width=20) if width >= 100 and row.done is not None else None,
                "percent": Text(percent),
                "moved": Text(size(row.moved) or waiting),
                "rate": Text(f"{size(row.rate)}/s", "dim") if width >= 60 and row.rate > 0 else None,
            }
            grid.add_row(*(cell or "" for cell in cells.values()))
        return grid


def preload() -> None:
    """Import all that rich imports late: an installer may replace rich while this program runs."""
    screen = Screen(io.StringIO(), terminal=True, colour=True)
    board = Board(screen)
    board.put("a/b", Row("receiving", 0.5, 1, 1.0))
    screen.say(("→", "bold red"))
    screen.check("fail", "name", "detail", 4)
    screen.table({"a": ["1"]}, wraps="a", drop=(), styles=("red",))
    board.clear()
