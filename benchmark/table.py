"""The results as Markdown tables and as a plot (SVG)."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import median

from .contestants import PROJECT
from .measure import CLONE, COMMIT, NOTHING, WORKTREE, Measurement

WHATS = (CLONE, NOTHING, COMMIT, WORKTREE)
MEGA = 1e6
LIGHT, DARK = (f"text{{fill:{colour}}}path{{stroke:{colour}}}" for colour in ("#24292f", "#d0d7de"))


def _grouped(measured: Sequence[Measurement], what: str) -> dict[str, list[Measurement]]:
    groups: dict[str, list[Measurement]] = {}
    for run in measured:
        if run.what == what:
            groups.setdefault(run.contestant, []).append(run)
    return groups


def _size(size: float) -> str:
    return f"{size / MEGA:.1f} MB" if size >= MEGA / 10 else f"{size / 1000:.1f} kB"


def markdown(measured: Sequence[Measurement], title: str) -> str:
    """One table for each kind of run: median seconds with least and most, median bytes, requests and disk."""
    text = f"{title}\n"
    for what in WHATS:
        if not (groups := _grouped(measured, what)):
            continue
        text += f"\n| {what} | seconds: median (least, most) | downloaded | requests | disk |\n{'| --- ' * 5}|\n"
        for name, runs in groups.items():
            seconds = [run.seconds for run in runs]
            spread = f"{median(seconds):.2f} ({min(seconds):.2f}, {max(seconds):.2f})"
            sent, requests, disk = (median(getattr(run, key) for run in runs) for key in ("sent", "requests", "disk"))
            text += f"| {name} | {spread} | {_size(sent)} | {requests:.0f} | {disk / MEGA:.0f} MB |\n"
    return text


def svg(measured: Sequence[Measurement], title: str) -> str:
    """Bars of the median seconds, a line from the least to the most, and the bytes beside it."""
    left, width, height, y = 220, 420, 22, 30
    style = f"<style>{LIGHT}@media(prefers-color-scheme:dark){{{DARK}}}</style>"
    parts = [style, f'<text x="10" y="20">{escape(title)}</text>']
    for what in WHATS:
        groups = _grouped(measured, what)
        if not groups:
            continue
        y += height
        parts.append(f'<text x="10" y="{y - 4}" font-weight="bold">{escape(what)}</text>')
        longest = max(run.seconds for runs in groups.values() for run in runs)
        for name, runs in groups.items():
            seconds = [run.seconds for run in runs]
            low, middle, high = (width * value / longest for value in (min(seconds), median(seconds), max(seconds)))
            label = f"{median(seconds):.2f} s, {_size(median(run.sent for run in runs))}"
            colour = "#2da44e" if name == PROJECT else "#8c959f"
            parts += [
                f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>',
                f'<rect x="{left}" y="{y + 2}" width="{max(1, middle):.1f}" height="{height - 8}" fill="{colour}"/>',
                f'<path d="M{left + low:.1f} {y + 9}H{left + high:.1f}" stroke-width="1.5"/>',
                f'<text x="{left + high + 8:.1f}" y="{y + 13}">{label}</text>',
            ]
            y += height
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 140} {y + 14}" '
    return f'{head}font-family="sans-serif" font-size="12">\n' + "\n".join(parts) + "\n</svg>\n"
