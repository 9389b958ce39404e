"""The only room that prints: live on a terminal, plain lines elsewhere, annotations under GitHub Actions, JSON."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ..errors import SourcesError
from ..models import Check, Outcome, Result, Verification
from .document import document
from .github import markdown
from .plain import silence
from .printer import Printer
from .tables import DROPPABLE, PROSE, columns, counted, grouped, summarised
from .text import clean, one_line, size

SPOKEN = 10.0  # seconds between two lines about one transfer where nothing is drawn live
WIDEST = 32  # columns of a check's name
BAD = ("warn", "fail")


class Report:
    """Tells people and programs what goes on; a `Reporter` that many threads may call at once.

    `stream` (standard output) takes what is ordinary, `errors` (standard error) what went wrong. `hide` is Invoke's:
    True, "out", "stdout" and "both" hide what is ordinary. `echo` shows commands. With `json` nothing but the object
    of `verification` goes to `stream`.
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
        self._results, errors = stream or sys.stdout, errors or sys.stderr
        self._printer = Printer(errors if json else self._results, errors, self._environ)
        self._hidden = hide in (True, "out", "stdout", "both")
        self._echo = echo
        self._spoken: dict[str, float] = {}

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_: object) -> None:
        self._printer.end_live()

    def preload(self) -> None:
        """Import everything that drawing needs, before an installer may replace it."""
        if any(self._printer.screen(error).is_terminal for error in (False, True)):
            from .live import preload

            preload()

    # What goes on: the methods of `Reporter`

    def event(self, who: str, message: str) -> None:
        """Show a line, and take away the live lines of `who`."""
        if not self._hidden:
            self._printer.tell(who, message)

    def warn(self, who: str, message: str) -> None:
        """Show a line among the errors."""
        if self._printer.github:
            self._printer.annotate("warning", who, message)
        else:
            self._printer.tell(who, message, "yellow", error=True)

    def progress(self, who: str, doing: str, done: float | None, moved: int, rate: float) -> None:
        """Change a live line or, where nothing is drawn live, say a line every ten seconds."""
        if self._hidden:
            return
        who, doing, done = one_line(who), one_line(doing), None if done is None else min(max(done, 0.0), 1.0)
        with self._printer.lock:
            if self._printer.screen().is_terminal:
                self._printer.screen().put(who, doing, done, moved, rate)
            elif (now := time.monotonic()) - self._spoken.setdefault(who, now) >= SPOKEN:
                self._spoken[who] = now
                figures = ("" if done is None else f"{done:.0%}", size(moved), f"{size(rate)}/s" if rate > 0 else "")
                self._printer.tell(who, ", ".join(filter(None, (doing, *figures))))

    def command(self, argv: Sequence[str], cwd: Path | None) -> None:
        """Show a command as a shell takes it, if commands are to be shown."""
        if self._echo:
            folder = f"cd {shlex.quote(clean(str(cwd)))} && " if cwd else ""
            self._printer.say((folder + shlex.join(clean(word) for word in argv), "bold"), wrap=False)

    def output(self, who: str, line: str) -> None:
        """Show an installer's line; of one that it drew over itself, the last state."""
        text = line.rstrip("\r\n").rpartition("\r")[2]
        if not self._hidden and text.strip():
            self._printer.tell(who, text, "dim", ends=False)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Put a heading over what is printed within; under GitHub Actions it folds."""
        if self._printer.github:
            self._printer.say((f"::group::{one_line(name)}", ""))
        elif not self._hidden:
            self._printer.say((one_line(name), "bold cyan"))
        try:
            yield
        finally:
            self._printer.end_live()
            if self._printer.github:
                self._printer.say(("::endgroup::", ""))

    # What came of it

    def outcomes(self, task: str, outcomes: Sequence[Outcome]) -> None:
        """Print one row for each repository, and the errors with what mends them."""
        self._table([(outcome, outcome.action or "failed") for outcome in outcomes])
        self._failures([("", outcome) for outcome in outcomes])

    def summary(self, steps: Mapping[str, Sequence[Outcome]], checks: Sequence[Check] = ()) -> None:
        """Print for each repository what each of `steps` (by name, in order) did, and what a failure left undone."""
        self._table(summarised(steps, checks))
        self._failures([(f": {step}", outcome) for step, found in steps.items() for outcome in found])

    def checks(self, checks: Sequence[Check], strict: bool) -> None:
        """Print a doctor's report, a fix under each warning and failure; with `strict` it says that warnings fail."""
        shown = grouped([check for check in checks if not self._hidden or check.status in BAD])
        width = min(WIDEST, max((len(name) for members in shown.values() for name, _ in members), default=0))
        for group, members in shown.items():
            self._printer.say((f"\n{group}", "bold"))
            for name, check in members:
                fix = clean(f"{check.hint}\n{check.command}").strip().splitlines() if check.status in BAD else []
                with self._printer.lock:
                    self._printer.screen().check(check.status, name, one_line(check.detail), fix, width)
        if not self._hidden:
            note = " (warnings fail here)" if strict and any(check.status == "warn" for check in checks) else ""
            self._printer.say((f"\n{len(checks)} checks: {counted(checks)}{note}", "bold"))
        if self._printer.github:
            self._publish(checks)

    def verification(self, verification: Verification) -> None:
        """Print the object of `verify --json`."""
        from json import dumps

        try:
            print(
                dumps(document(Result("verify", 0 if verification.ok else 1, verification=verification)), indent=2),
                file=self._results,
                flush=True,
            )
        except BrokenPipeError:
            silence(self._results)

    def fail(self, error: SourcesError) -> None:
        """Print what happened and what mends it on standard error."""
        self._failure("error", error.what, f"{error.hint}\n{error.command}".strip())

    def _failures(self, outcomes: Sequence[tuple[str, Outcome]]) -> None:
        """Print the errors of outcomes, each under its repository and what stands behind; a shared one once."""
        shared: dict[tuple[str, str, str], list[str]] = {}
        for behind, outcome in outcomes:
            if error := outcome.error:
                what = error.what.removeprefix(f"{outcome.repository}: ").removeprefix(f"{behind[2:]}: ")
                shared.setdefault((behind, what, f"{error.hint}\n{error.command}".strip()), []).append(
                    outcome.repository
                )
        for (behind, what, fix), repositories in shared.items():
            self._failure(", ".join(repositories) + behind, what, fix)

    def _failure(self, who: str, what: str, fix: str) -> None:
        if self._printer.github:
            self._printer.annotate("error", who, f"{what}\n{fix}")
            return
        first, _, rest = clean(what).partition("\n")
        with self._printer.lock:
            self._printer.say((f"{one_line(who)}: ", "bold red"), (first, ""), error=True)
            for line in rest.splitlines():
                self._printer.say((f"    {line}", "dim"), error=True)
            for line in clean(fix).splitlines():
                self._printer.say((f"  {line}", "cyan"), error=True, wrap=False)

    def _table(self, rows: Sequence[tuple[Outcome, str]]) -> None:
        if self._hidden or not rows:
            return
        with self._printer.lock:
            self._printer.say(("", ""))
            styles = ["red" if outcome.error else "" for outcome, _ in rows]
            self._printer.screen().table(columns(rows, self._printer.screen().arrow), PROSE, DROPPABLE, styles)

    def _publish(self, checks: Sequence[Check]) -> None:
        for check in checks:
            if check.status in BAD:
                level = "error" if check.status == "fail" else "warning"
                self._printer.annotate(level, check.name, f"{check.detail}\n{check.hint or check.command}")
        summary = self._environ.get("GITHUB_STEP_SUMMARY")
        try:
            if summary:
                with Path(summary).open("a", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(markdown(checks))
        except OSError as error:
            self.warn("GITHUB_STEP_SUMMARY", f"could not be written: {error.strerror}")
