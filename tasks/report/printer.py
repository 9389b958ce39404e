"""Where lines go: a terminal, with live lines at its foot; a pipe, with the time; GitHub Actions, with annotations."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO

from .github import annotation
from .plain import Plain
from .text import clean, one_line

if TYPE_CHECKING:
    from .live import Screen


class Printer:
    """The two outputs of one run, for many threads; `environ` says what they can show."""

    def __init__(self, stream: TextIO, errors: TextIO, environ: Mapping[str, str]) -> None:
        self.lock = threading.RLock()
        self.github = environ.get("GITHUB_ACTIONS") == "true"
        self._stream, self._errors = stream, errors
        self._drawable = not self.github and environ.get("TERM") not in ("dumb", "unknown")
        self._colour = not environ.get("NO_COLOR")
        self._screens: dict[TextIO, Screen | Plain] = {}
        self._annotated: set[tuple[str, str]] = set()
        for target in (stream, errors):
            if isinstance(target, io.TextIOWrapper):  # letters that the locale lacks do not stop a message
                target.reconfigure(errors="backslashreplace")

    def screen(self, error: bool = False) -> Screen | Plain:
        """Return what draws on one of the two streams; hold the lock while using it."""
        stream = self._errors if error else self._stream
        if stream not in self._screens:
            self._screens[stream] = self._open(stream) if self._drawable and stream.isatty() else Plain(stream)
        return self._screens[stream]

    def _open(self, stream: TextIO) -> Screen:
        from .live import Screen

        return Screen(stream, colour=self._colour)

    def end_live(self) -> None:
        """Take all live lines away."""
        with self.lock:
            for screen in self._screens.values():
                screen.drop()

    def say(self, *parts: tuple[str, str], error: bool = False, wrap: bool = True) -> None:
        """Print a line of texts with their styles; what is to be copied is not to be folded by `wrap`."""
        with self.lock:
            if error:
                self.screen().pause()  # two streams, one terminal
            self.screen(error).say(*parts, wrap=wrap)

    def tell(self, who: str, message: str, style: str = "", *, error: bool = False, ends: bool = True) -> None:
        """Print what happened to `who`, with the time where that is no terminal; it `ends` their live lines."""
        who = one_line(who)
        message = one_line(message).removeprefix(f"{who}: ")
        with self.lock:
            if ends:
                self.screen().drop(who)
            clock = "" if self.screen(error).is_terminal else time.strftime("%H:%M:%S ")
            self.say((f"{clock}{who}: ", "bold" if ends else "dim"), (message, style), error=error)

    def annotate(self, level: str, title: str, message: str) -> None:
        """Print an annotation, unless it has been before: a summary repeats what its steps said."""
        title, message = one_line(title), clean(message).strip()
        with self.lock:
            if (title.partition(": ")[0], message) not in self._annotated:
                self._annotated.add((title.partition(": ")[0], message))
                self.say((annotation(level, title, message), ""), error=True)
