"""The only room that prints: live lines on a terminal, plain lines elsewhere, annotations under GitHub Actions, JSON."""

from __future__ import annotations

import io
import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from .errors import SourcesError
from .model import Check, Outcome
from .text import annotation, clean, counted, duration, markdown, one_line, size

if TYPE_CHECKING:
    from .live import Board, Screen
    from .verification import Verification

SPOKEN = 10.0  # seconds between two lines about one transfer where nothing is drawn live
SHORT = 10  # characters of a commit id


class Report:
    """Tells people and programs what goes on; a `Listener`, to be called from many threads at once.

    `stream` (standard output) takes what is ordinary, `errors` (standard error) takes errors and warnings. `hide` is
    Invoke's: with True, "out", "stdout" or "both" only what went wrong is shown. `echo` shows commands. With `json`
    nothing but the object of `verification` goes to `stream`.
    """

    def __init__(
        self,
        *,
        stream: TextIO | None = None,
        errors: TextIO | None = None,
        hide: bool | str | None = False,
        echo: bool = False,
        json: bool = False,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._json = json
        self._results = sys.stdout if stream is None else stream
        self._errors = sys.stderr if errors is None else errors
        self._stream = self._errors if json else self._results
        self._hidden = hide in (True, "out", "stdout", "both")
        self._echo = echo
        self._github = self._environ.get("GITHUB_ACTIONS") == "true"
        self._lock = threading.RLock()
        self._screens: dict[TextIO, Screen] = {}
        self._board: Board | None = None
        self._spoken: dict[str, float] = {}
        self._annotated: set[str] = set()
        for target in (self._results, self._errors):
            if isinstance(target, io.TextIOWrapper):  # a locale's letters do not stop a message
                target.reconfigure(errors="backslashreplace")

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._board:
                self._board.clear()

    def preload(self) -> None:
        """Import everything that drawing needs, before an installer may replace it."""
        from .live import preload

        preload()

    # What goes on: the Listener

    def event(self, who: str, message: str) -> None:
        """Show that something happened to `who`, and end its live line."""
        if not self._hidden:
            self._tell(who, one_line(message))

    def warn(self, who: str, message: str) -> None:
        """Show what a user should know."""
        if self._github:
            self._annotate("warning", who, message)
        else:
            self._tell(who, one_line(message), "yellow", error=True)

    def progress(self, who: str, doing: str, done: float | None, moved: int, rate: float) -> None:
        """Change the live line of `who`; without a terminal, say a line every ten seconds. See `Listener`."""
        if self._hidden:
            return
        with self._lock:
            if self._screen().is_terminal:
                self._draw(one_line(who), one_line(doing), done, moved, rate)
                return
            now = time.monotonic()
            if now - self._spoken.setdefault(who, now) >= SPOKEN:
                self._spoken[who] = now
                figures = (f"{done:.0%}" if done is not None else "", size(moved), f"{size(rate)}/s" if rate > 0 else "")
                self._tell(who, ", ".join([one_line(doing), *filter(None, figures)]))

    def command(self, argv: Sequence[str], cwd: Path | None) -> None:
        """Show a command in a form that a shell takes, if commands are to be shown."""
        if self._echo:
            where = f"cd {shlex.quote(str(cwd))} && " if cwd and cwd != Path.cwd() else ""
            self._say((one_line(where + shlex.join(argv), limit=100_000), "bold"), wrap=False)

    def output(self, who: str, line: str) -> None:
        """Show one line of an installer; of a line that it drew over itself, the last state."""
        text = one_line(line.rstrip("\r\n").rpartition("\r")[2])
        if text and not self._hidden:
            self._tell(who, text, "dim", ends=False)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Put a heading over what is printed within, under GitHub Actions a group that folds."""
        if self._github:
            self._say((f"::group::{one_line(name)}", ""))
        elif not self._hidden:
            self._say((one_line(name), "bold cyan"))
        try:
            yield
        finally:
            with self._lock:
                if self._board:
                    self._board.clear()
            if self._github:
                self._say(("::endgroup::", ""))

    # What came of it

    def outcomes(self, task: str, outcomes: Sequence[Outcome]) -> None:
        """Print one row for each repository, and the errors with what mends them."""
        self._table([(outcome, outcome.action or "failed") for outcome in outcomes])
        self._failures([(outcome.repository, outcome.error) for outcome in outcomes if outcome.error])

    def summary(self, steps: Mapping[str, Sequence[Outcome]], checks: Sequence[Check] = ()) -> None:
        """Print for each repository what each of `steps` (by name, in order) did, and what was skipped after a failure."""
        rows, failures = [], []
        for name in dict.fromkeys(outcome.repository for outcomes in steps.values() for outcome in outcomes):
            lines, failed, total = [], "", Outcome(name, "")
            for step, outcomes in steps.items():
                here = [outcome for outcome in outcomes if outcome.repository == name]
                lines += [f"{step}: {outcome.action or 'failed'}" for outcome in here]
                if failed and not here:
                    lines.append(f"{step}: skipped, as {failed} failed")
                for outcome in here:
                    total = _joined(total, outcome)
                    failed = failed or (step if outcome.error else "")
                    failures += [(f"{name}: {step}", outcome.error)] if outcome.error else []
            mine = [check for check in checks if check.name.startswith(f"{name}: ")]
            rows.append((total, "\n".join(lines + ([f"verify: {counted(mine)}"] if mine else []))))
        self._table(rows)
        self._failures(failures)

    def checks(self, checks: Sequence[Check], strict: bool) -> None:
        """Print a doctor's report: grouped by what stands before `: ` in the names, a fix under each warning and failure.

        With `strict` the last line says that warnings count as failures.
        """
        shown = [check for check in checks if not self._hidden or check.status in ("warn", "fail")]
        names = {id(check): one_line(check.name).rpartition(": ")[2] for check in shown}
        width = min(32, max(map(len, names.values()), default=0))
        groups: dict[str, list[Check]] = {}
        for check in shown:
            groups.setdefault(one_line(check.name).partition(": ")[0], []).append(check)
        with self._lock:
            for group, members in groups.items():
                self._say((group, "bold"), error=self._hidden)
                for check in members:
                    self._screen(self._hidden).check(check.status, names[id(check)], one_line(check.detail), width)
                    if check.fix and check.status in ("warn", "fail"):
                        self._fix(check.fix, "        ", error=self._hidden)
        if not self._hidden:
            note = " (warnings fail here)" if strict and any(check.status == "warn" for check in checks) else ""
            self._say((f"{len(checks)} checks: {counted(checks)}{note}", "bold"))
        if self._github:
            self._tell_github(checks)

    def verification(self, verification: Verification) -> None:
        """Print the object of `verify --json`."""
        from json import dumps

        from .live import silence

        try:
            print(dumps(verification.to_json(), indent=2), file=self._results, flush=True)
        except BrokenPipeError:
            silence(self._results)

    def fail(self, error: SourcesError) -> None:
        """Print what happened and what mends it on standard error."""
        self._failures([("error", error)])

    # How it is printed

    def _screen(self, error: bool = False) -> Screen:
        from .live import Screen

        stream = self._errors if error else self._stream
        if stream not in self._screens:
            drawable = not self._github and self._environ.get("TERM") not in ("dumb", "unknown") and stream.isatty()
            self._screens[stream] = Screen(stream, terminal=drawable, colour=not self._environ.get("NO_COLOR"))
        return self._screens[stream]

    def _say(self, *parts: tuple[str, str], error: bool = False, wrap: bool = True) -> None:
        with self._lock:
            screen = self._screen(error)
            if self._board and screen is not self._screen():
                self._board.hide()
            screen.say(*parts, wrap=wrap)
            if self._board:
                self._board.show()

    def _tell(self, who: str, text: str, style: str = "", *, error: bool = False, ends: bool = True) -> None:
        who = one_line(who)
        with self._lock:
            if ends and self._board:
                self._board.drop(who)
            clock = "" if self._screen(error).is_terminal else time.strftime("%H:%M:%S ")
            self._say((f"{clock}{who}: " if who else clock, "bold" if ends else "dim"), (text, style), error=error)

    def _draw(self, who: str, doing: str, done: float | None, moved: int, rate: float) -> None:
        from .live import Board, Row

        self._board = self._board or Board(self._screen())
        self._board.put(who, Row(doing, done, moved, rate))

    def _fix(self, fix: str, indent: str, *, error: bool) -> None:
        for line in clean(fix).splitlines():
            self._say((indent, ""), (line, "cyan"), error=error, wrap=False)

    def _failures(self, failures: Sequence[tuple[str, SourcesError | None]]) -> None:
        for who, error in failures:
            if error and self._github:
                self._annotate("error", who, f"{error.what}\n{error.fix}".strip())
            elif error:
                first, *rest = clean(error.what).splitlines() or [""]
                with self._lock:
                    self._say((f"{one_line(who)}: ", "bold red"), (first, ""), error=True)
                    for line in rest:
                        self._say((f"    {line}", "dim"), error=True)
                    self._fix(error.fix, "  ", error=True)

    def _table(self, rows: Sequence[tuple[Outcome, str]]) -> None:
        if self._hidden or not rows:
            return
        with self._lock:
            screen = self._screen()

            def moved(before: str, after: str) -> str:
                before, after = one_line(before, limit=40), one_line(after, limit=40)
                return f"{before} {screen.arrow} {after}" if before and after and before != after else after

            done = [outcome for outcome, _ in rows]
            columns = {
                "repository": [one_line(outcome.repository) for outcome in done],
                "REF": [one_line(outcome.ref, limit=40) for outcome in done],
                "commit": [one_line(outcome.commit)[:SHORT] for outcome in done],
                "version": [moved(outcome.before_version, outcome.version) for outcome in done],
                "what happened": ["\n".join(map(one_line, text.splitlines())) for _, text in rows],
                "moved": [size(outcome.moved) for outcome in done],
                "time": [duration(outcome.seconds) if outcome.seconds else "" for outcome in done],
            }
            styles = ["red" if outcome.error else "" for outcome in done]
            drop = ("moved", "commit", "time", "REF", "version")
            screen.table(columns, wraps="what happened", drop=drop, styles=styles)

    # GitHub Actions

    def _annotate(self, level: str, title: str, message: str) -> None:
        command = annotation(level, one_line(title), clean(message))
        with self._lock:
            if command not in self._annotated:
                self._annotated.add(command)
                self._say((command, ""), error=True)

    def _tell_github(self, checks: Sequence[Check]) -> None:
        for check in checks:
            if check.status in ("warn", "fail"):
                level = "error" if check.status == "fail" else "warning"
                self._annotate(level, check.name, f"{check.detail}\n{check.fix}".strip())
        summary = self._environ.get("GITHUB_STEP_SUMMARY")
        if summary:
            try:
                with Path(summary).open("a", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(markdown(checks))
            except OSError as error:
                self.warn("GITHUB_STEP_SUMMARY", f"the table could not be written: {error.strerror}")


def _joined(total: Outcome, step: Outcome) -> Outcome:
    """Return what two steps did to a repository as one: from the first one's state to the last one's."""
    return Outcome(
        total.repository,
        "",
        ref=step.ref or total.ref,
        commit=step.commit or total.commit,
        version=step.version or total.version,
        before=total.before or step.before,
        before_version=total.before_version or step.before_version,
        moved=total.moved + step.moved,
        seconds=total.seconds + step.seconds,
        error=total.error or step.error,
    )
