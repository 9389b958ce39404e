"""Record a command in a terminal as an animated SVG: `python docs/record.py FILE COMMAND [ARGUMENT ...]`.

Everything in the picture comes from that run, but waits are cut to a second. It plays again and again; where SVG is not
animated, the last screen is shown.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import pyte

COLUMNS, ROWS = 100, 30
WIDTH, HEIGHT = 7.83, 17  # of a character, in pixels
HOLD = 1.0  # seconds that a screen is shown at least, and a wait takes at most
LIVE = re.compile(r"[\u2800-\u28ff\u2501]|-{6}|\(\d+/\d+\)|\d%|waiting for the server|checking")  # what moves
END = 6.0  # seconds that the last screen is shown before it begins again
COLOURS = {
    "black": "#484f58", "red": "#ff7b72", "green": "#3fb950", "brown": "#d29922", "blue": "#58a6ff",
    "magenta": "#bc8cff", "cyan": "#39c5cf", "white": "#e6edf3", "default": "#c9d1d9",
}  # fmt: skip

Run = tuple[int, str, str, bool]  # column, text, colour, bold
Row = tuple[Run, ...]
Screen = tuple[Row, ...]


def play(command: Sequence[str]) -> Iterator[tuple[float, bytes]]:
    """Run the command in a terminal; yield what it writes, with the seconds since its start."""
    terminal, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    began = time.monotonic()
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
    process = subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=environ)
    os.close(inner)
    while True:
        try:
            block = os.read(terminal, 65536)
        except OSError:  # Linux reports the end of a terminal as an input/output error
            break
        if not block:
            break
        yield time.monotonic() - began, block
    os.close(terminal)
    if status := process.wait():
        raise SystemExit(status)


def screens(command: Sequence[str], title: str) -> list[tuple[float, Screen]]:
    """Return the distinct screens of a run of the command with the second that each appears at."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    stream.feed(f"$ {title}\r\n".encode())
    seen = [(0.0, _read(screen))]
    moment, waited, last = 0.0, 0.0, None
    for seconds, block in play(command):
        stream.feed(block)
        now = _read(screen)
        pause = min(seconds - last, HOLD) if last is not None else 0.0
        if _lasting(now) == _lasting(seen[-1][1]):
            pause = min(pause, HOLD - waited)
            waited += pause
        else:
            waited = 0.0
        moment, last = moment + pause, seconds
        if now == seen[-1][1]:
            continue
        if moment - seen[-1][0] < HOLD and len(seen) > 1:
            seen[-1] = (seen[-1][0], now)
        else:
            seen.append((moment, now))
    return seen


def _lasting(screen: Screen) -> list[Row]:
    """The lines of a screen without those that live lines and progress bars have changed."""
    texts = {row: "".join(run[1] for run in row) for row in screen}
    return [row for row in screen if not LIVE.search(texts[row])]


def _read(screen: pyte.Screen) -> Screen:
    rows = []
    for line in range(ROWS):
        runs = list[Run]()
        for column in range(COLUMNS):
            cell = screen.buffer[line][column]
            style = (COLOURS.get(cell.fg, COLOURS["default"]), cell.bold)
            if runs and runs[-1][2:] == style:
                runs[-1] = (runs[-1][0], runs[-1][1] + cell.data, *style)
            else:
                runs.append((column, cell.data, *style))
        rows.append(tuple(run for run in runs if run[1].strip()))
    return tuple(rows)


def draw(seen: Sequence[tuple[float, Screen]]) -> str:
    """Return the SVG: each line of text once, visible while it was on the screen."""
    parts, last = [], len(seen)
    for row in range(ROWS):
        first = 0
        for number in range(1, last + 1):
            if number == last or seen[number][1][row] != seen[first][1][row]:
                begin, end = seen[first][0], seen[number][0] if number < last else None
                parts += [_text(row, run, begin, end) for run in seen[first][1][row]]
                first = number
    used = max(row + 1 for _, screen in seen for row in range(ROWS) if screen[row])
    size = f'width="{COLUMNS * WIDTH + 24:.0f}" height="{used * HEIGHT + 24}"'
    style = "text { font: 13px ui-monospace, Menlo, Consolas, monospace; white-space: pre }"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{style}</style>\n'
    length = seen[-1][0] + END
    loop = f'<animate id="loop" attributeName="x" from="0" to="0" dur="{length:.2f}s" begin="0s;loop.end"/>'
    parts = [f'<rect width="0" height="0">{loop}</rect>', *parts]
    return f'{head}<rect width="100%" height="100%" rx="8" fill="#0d1117"/>\n' + "\n".join(parts) + "\n</svg>\n"


def _text(row: int, run: Run, begin: float, end: float | None) -> str:
    column, text, colour, bold = run
    text = text.rstrip()
    place = f'x="{12 + column * WIDTH:.1f}" y="{12 + (row + 0.8) * HEIGHT:.1f}" textLength="{len(text) * WIDTH:.1f}"'
    weight = ' font-weight="bold"' if bold else ""
    moment = '<set attributeName="visibility" to="{}" begin="loop.begin+{:.2f}s" dur="{:.2f}s"/>'
    if end is not None:
        hidden, change = ' visibility="hidden"', moment.format("visible", begin, end - begin)
    else:
        hidden, change = "", moment.format("hidden", 0, begin) if begin else ""
    return f'<text {place} fill="{colour}"{weight}{hidden}>{escape(text, quote=False)}{change}</text>'


def main() -> None:
    """Read the options, run the command, write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--title", default="", help="the command as it is shown (default: as it is run)")
    parser.add_argument("file", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if not options.command:
        parser.error("a command is needed")
    seen = screens(options.command, options.title or " ".join(options.command))
    options.file.write_text(draw(seen), encoding="utf-8")
    print(f"{options.file}: {len(seen)} screens, {seen[-1][0]:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
