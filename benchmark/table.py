"""The results as a Markdown table and as a plot (SVG)."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import median

from .contestants import PROJECT
from .measure import CLONE, COMMIT, GROWTH, NOTHING, WORKTREE, Measurement

WHATS = (CLONE, WORKTREE, NOTHING, COMMIT, GROWTH)
MEGA = 1e6


def _grouped(found: Sequence[Measurement], what: str) -> dict[str, list[Measurement]]:
    groups: dict[str, list[Measurement]] = {}
    for one in found:
        if one.what == what:
            groups.setdefault(one.contestant, []).append(one)
    return groups


def _size(size: float) -> str:
    return f"{size / MEGA:.1f} MB" if size >= MEGA / 10 else f"{size / 1000:.1f} kB"


def markdown(found: Sequence[Measurement], title: str) -> str:
    """One table for each kind of run: median seconds with least and most, median bytes, requests and disk."""
    text = f"{title}\n"
    for what in WHATS:
        if not (groups := _grouped(found, what)):
            continue
        text += f"\n| {what} | seconds: median (least, most) | moved | requests | disk |\n{'| --- ' * 5}|\n"
        for name, runs in groups.items():
            seconds = [run.seconds for run in runs]
            spread = f"{median(seconds):.2f} ({min(seconds):.2f}, {max(seconds):.2f})"
            moved, requests, disk = (median(getattr(run, key) for run in runs) for key in ("sent", "requests", "disk"))
            text += f"| {name} | {spread} | {_size(moved)} | {requests:.0f} | {disk / MEGA:.0f} MB |\n"
    return text


def svg(found: Sequence[Measurement], title: str) -> str:
    """Bars of the median seconds, a line from the least to the most, and the megabytes beside it."""
    rows = [(what, name, runs) for what in WHATS for name, runs in _grouped(found, what).items()]
    longest = {what: max(run.seconds for run in found if run.what == what) for what in {run.what for run in found}}
    left, width, height, y = 260, 560, 22, 50
    parts = [f'<text x="10" y="22" font-size="14">{escape(title)}</text>']
    shown = ""
    for what, name, runs in rows:
        if what != shown:
            y, shown = y + height, what
            parts.append(f'<text x="10" y="{y - 6}" font-weight="bold">{escape(what)}, seconds</text>')
        low, middle, high = (
            left + width * value / longest[what]
            for value in (
                min(run.seconds for run in runs),
                median(run.seconds for run in runs),
                max(run.seconds for run in runs),
            )
        )
        colour = "#2a7" if name == PROJECT or what == GROWTH else "#89a"
        label = f"{median(run.seconds for run in runs):.2f} s, {_size(median(run.sent for run in runs))}"
        parts += [
            f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{left}" y="{y + 2}" width="{max(1, middle - left):.1f}" height="{height - 8}" fill="{colour}"/>',
            f'<path d="M{low:.1f} {y + 9}H{high:.1f}" stroke="#000" stroke-width="1.5"/>',
            f'<text x="{max(high, middle) + 8:.1f}" y="{y + 13}">{label}</text>',
        ]
        y += height
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 160}" height="{y + 20}" '
    return f'{head}font-family="sans-serif" font-size="12">\n' + "\n".join(parts) + "\n</svg>\n"
