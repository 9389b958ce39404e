"""What is drawn with rich. Imported late, so that a run that shows nothing does not wait for it."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TextIO, cast

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.measure import Measurement
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from .plain import silence
from .text import duration, size

WIDE = 10_000  # columns: nothing is folded there
PROSE = 30  # columns that text is given before it is folded
STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}
MARKS = {"pass": "✓", "warn": "!", "fail": "✗", "skip": "-"}


class _Row(NamedTuple):
    doing: str
    done: float | None
    moved: int
    rate: float
    since: float


class Screen(Console):
    """A stream with its width, colours and letters, and the live lines at its foot. For one thread at a time."""

    def __init__(self, stream: TextIO, *, colour: bool) -> None:
        super().__init__(
            file=stream,
            force_terminal=True,
            no_color=not colour,
            markup=False,
            emoji=False,
            highlight=False,
        )
        self.unicode = self.encoding.startswith("utf")
        self.arrow = "→" if self.unicode else "->"
        self._spinner = Spinner("dots" if self.unicode else "line", style="cyan")
        self._rows: dict[str, _Row] = {}
        self._live: Live | None = None

    def on_broken_pipe(self) -> None:
        """Go on without a reader, such as one that was `head`."""
        self.quiet = True
        silence(cast(TextIO, self.file))

    def say(self, *parts: tuple[str, str], wrap: bool = True) -> None:
        """Print texts with their styles on one line. What is to be copied is left to the terminal to `wrap`."""
        self.print(Text.assemble(*parts), soft_wrap=not wrap)
        if self._rows:
            self._show()

    def check(self, status: str, name: str, detail: str, fix: Sequence[str], width: int) -> None:
        """Print a check, the name `width` columns wide and the detail beside it or, if need be, below; then the fix."""
        mark = MARKS[status] if self.unicode else status
        head, beside = f"  {mark}  ", self.width - width >= 2 * PROSE
        if not beside:
            self.say((head, STYLES[status]), (name, "bold"))
            self.print(Padding(Text(detail), (0, 0, 0, len(head)), expand=False)) if detail else None
        else:
            grid = Table.grid(padding=(0, 2, 0, 0))
            grid.add_column(width=len(head) - 2)
            grid.add_column(width=width)
            grid.add_column(overflow="fold")
            grid.add_row(Text(f"  {mark}", STYLES[status]), Text(name), Text(detail))
            self.print(grid)
        for line in fix:
            self.say((" " * len(head), ""), (line, "cyan"), wrap=False)

    def table(
        self, columns: Mapping[str, Sequence[str]], prose: str, drop: Sequence[str], styles: Sequence[str]
    ) -> None:
        """Print columns of cells under their titles, without empty columns; only the column `prose` is ever folded.

        What a narrow terminal has no room for goes in the order of `drop`. `styles` are those of the rows' prose.
        """
        kept = {title: cells for title, cells in columns.items() if any(cells)}
        for dropped in (*drop, ""):
            table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
            for title, cells in kept.items():
                width = max(cell_len(line) for cell in (title, *cells) for line in cell.split("\n"))
                least = width if title != prose else min(width, PROSE) if dropped else None
                table.add_column(title, no_wrap=title != prose, min_width=least, overflow="fold")
            for style, *row in zip(styles, *kept.values(), strict=True):
                table.add_row(*(Text(cell, style * (title == prose)) for title, cell in zip(kept, row, strict=True)))
            if Measurement.get(self, self.options.update(max_width=WIDE), table).minimum <= self.width:
                break
            kept.pop(dropped, None)
        self.print(table)

    def put(self, who: str, doing: str, done: float | None, moved: int, rate: float) -> None:
        """Show or change the live line of `who`: see `Reporter.progress`. Its time counts from the start of `doing`."""
        old = self._rows.get(who)
        since = old.since if old and old.doing == doing else time.monotonic()
        self._rows[who] = _Row(doing, done, moved, rate, since)
        self._show()

    def drop(self, who: str = "") -> None:
        """Take away the live lines of `who` and its submodules, or all."""
        self._rows = {name: row for name, row in self._rows.items() if who and not f"{name}/".startswith(f"{who}/")}
        if not self._rows:
            self.pause()

    def pause(self) -> None:
        """Leave the terminal to others, until the next line."""
        if self._live:
            self._live.stop()
            self._live = None

    def _show(self) -> None:
        if not self._live:  # a new one each time: a stopped one would draw over the lines above
            self._live = Live(
                console=self,
                get_renderable=self._lines,
                transient=True,
                refresh_per_second=8,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def _lines(self) -> Table:
        """Return the live lines as they are now; rich's own thread calls this, so it works on a copy."""
        rows = dict(self._rows)
        doing, rate, bar = (width * (self.width >= least) for width, least in ((18, 45), (10, 60), (20, 100)))
        room = self.width - sum(width + 2 for width in (1, doing, bar, 4, 8, rate))
        grid = Table.grid(padding=(0, 2, 0, 0))
        for width in (1, None, doing, bar):
            grid.add_column(width=width, no_wrap=True, overflow="crop")
        for width in (4, 8, rate):
            grid.add_column(width=width, no_wrap=True, justify="right")
        for who, row in sorted(rows.items()):
            repository, _, submodule = who.partition("/")
            name = f"  {submodule}" if submodule and repository in rows else who
            waits = duration(int(time.monotonic() - row.since)) if row.done is None else ""
            grid.add_row(
                Text("✓" if self.unicode else "+", "green") if row.done == 1 else self._spinner,
                Text(name if len(name) <= room else f"..{name[2 - room :]}", "" if submodule else "bold"),
                Text(row.doing, "dim") if doing else "",
                ProgressBar(1, row.done, width=20) if bar and row.done is not None else "",
                "" if row.done is None else f"{row.done:.0%}",
                size(row.moved) or waits,
                Text(f"{size(row.rate)}/s", "dim") if rate and row.rate > 0 else "",
            )
        return grid


def preload() -> None:
    """Make rich import all that it imports late: an installer may replace it while this program runs."""
    screen = Screen(io.StringIO(), colour=True)
    screen.put("a/b", "receiving", 0.5, 1, 1.0)
    screen.say(("✓", "bold red"))
    screen.check("fail", "name", "detail", ("fix",), 4)
    screen.table({"a": ["✓"]}, "a", (), ("red",))
    screen.drop()
