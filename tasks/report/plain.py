"""What is printed where nothing is drawn: pipes, files, CI. `live.Screen` does the same on a terminal."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TextIO


class Plain:
    """A stream of lines without colours, and as wide as they are. For one thread at a time."""

    is_terminal = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.arrow = "→" if (stream.encoding or "utf-8").lower().startswith("utf") else "->"

    def say(self, *parts: tuple[str, str], wrap: bool = True) -> None:
        """Print texts on one line; their styles, and whether to `wrap`, are for terminals."""
        try:
            print("".join(text for text, _ in parts), file=self._stream, flush=True)
        except BrokenPipeError:
            silence(self._stream)

    def check(self, status: str, name: str, detail: str, fix: Sequence[str], width: int) -> None:
        """Print a check, the name `width` columns wide and the detail beside it; then the fix."""
        self.say((f"  {status}  {name:<{width}}  {detail}", ""))
        for line in fix:
            self.say((f"        {line}", ""))

    def table(
        self, columns: Mapping[str, Sequence[str]], prose: str, drop: Sequence[str], styles: Sequence[str]
    ) -> None:
        """Print columns of cells under their titles, without empty columns. All have room here: nothing is dropped."""
        kept = {title: cells for title, cells in columns.items() if any(cells)}
        rows = [*zip(*([title, *cells] for title, cells in kept.items()), strict=True)]
        lines = [line for row in rows for line in zip_longest(*(cell.split("\n") for cell in row), fillvalue="")]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            padded = (f"{part:<{width}}" for part, width in zip(line, widths, strict=True))
            self.say(("  ".join(padded).rstrip(), ""))

    def put(self, who: str, doing: str, done: float | None, moved: int, rate: float) -> None:
        """Live lines are for terminals."""

    def drop(self, who: str = "") -> None:
        """Live lines are for terminals."""

    def pause(self) -> None:
        """Live lines are for terminals."""


def silence(stream: TextIO) -> None:
    """Point a stream at nothing, after its reader has gone."""
    with Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), stream.fileno())
