"""What people and programs see of a run. Nothing else prints."""

from __future__ import annotations

import json
import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO

from rich.text import Text

from ..models import Check, Result
from .closing import closing
from .console import Live, Output
from .document import document
from .github import annotation, markdown
from .tables import BAD, cells, check_lines, counted, draw, grouped
from .text import advice, clean, one_line

WIDEST = 20  # columns of the names of checks; a longer name does not widen them


class Report:
    """Shows what happens and how it ended; a `Reporter` that many threads may call at once.

    Standard output (`stream`) takes what is ordinary, standard error (`errors`) what went wrong. `hide` is Invoke's:
    True, "out", "stdout" and "both" hide what is ordinary. `echo` shows commands, `verbose` every check. With `json`
    standard output takes the object of `finish` and nothing else. `environ` says what the streams can show, and whether
    GitHub Actions reads them. `seconds` is the wall time of each step so far.
    """

    def __init__(
        self, *, hide: bool | str | None = False, echo: bool = False, json: bool = False,
        verbose: bool = False,
        stream: TextIO | None = None, errors: TextIO | None = None, environ: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._environ = os.environ if environ is None else environ
        self._results = Output(stream or sys.stdout, self._environ)
        self._errors = Output(errors or sys.stderr, self._environ)
        self._console = self._errors if json else self._results
        if self._console.is_terminal and self._errors.is_terminal:
            self._errors = self._console  # two streams, one terminal
        self._live = Live(self._console, self.event)
        self._lock = threading.RLock()
        self._github = self._environ.get("GITHUB_ACTIONS") == "true"
        self._hidden, self._echo, self._json = hide in (True, "out", "stdout", "both"), echo, json
        self._verbose = verbose
        self._heading = ""
        self._warnings: list[tuple[str, str]] = []
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._live.end()

    # While it runs: the methods of `Reporter`

    def event(self, who: str, message: str) -> None:
        """Print a line, and remove the live line of `who` until there is more progress."""
        if not self._hidden:
            self._line(who, message)

    def warn(self, who: str, message: str) -> None:
        """Print a line on standard error, and keep it for `take_warnings`."""
        who = one_line(who)
        text = one_line(message).removeprefix(f"{who}: ")
        with self._lock:
            self._warnings.append((who, text))
        if self._github:
            self._annotate("warning", who, message.removeprefix(f"{who}: "))
        else:
            self._line(who, f"warning: {text}", "yellow", error=True)

    def progress(self, who: str, doing: str, done: float | None, moved: int, rate: float) -> None:
        """Change a live line; without a terminal, print a line every ten seconds."""
        if not self._hidden:
            with self._lock:
                self._live.put(one_line(who), one_line(doing), done, moved, rate)

    def command(self, argv: Sequence[str], cwd: Path | None) -> None:
        """Print a command as a shell takes it, if commands are to be shown."""
        if self._echo:
            directory = f"cd {shlex.quote(clean(str(cwd)))} && " if cwd else ""
            self._print((directory + shlex.join(clean(word) for word in argv), "bold"))

    def output(self, who: str, line: str) -> None:
        """Print an installer's line; if the line was drawn over itself, its last state."""
        text = line.rstrip("\r\n").rpartition("\r")[2]
        if not self._hidden and text.strip():
            self._line(who, text, "dim")

    def terminal(self) -> IO[str] | None:
        """Return the terminal that an installer may draw on, after removing the live lines; None without one."""
        with self._lock:
            if self._hidden or not self._console.is_terminal:
                return None
            self._live.end()
            return self._console.file

    def checked(self, group: str, checks: Sequence[Check]) -> None:
        """The checks of a group are complete."""

    # A run

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a step, and print a heading above its lines; under GitHub Actions they can be folded."""
        began, self._heading = time.monotonic(), name
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began
            with self._lock:
                self._live.end()
                if self._github and not self._heading:
                    self._print("::endgroup::")
                self._heading = ""

    def take_warnings(self, repository: str = "") -> tuple[str, ...]:
        """Return the warnings about a repository and its submodules since the last call, or all that are left."""
        with self._lock:
            mine = [each for each in self._warnings if not repository or f"{each[0]}/".startswith(f"{repository}/")]
            self._warnings = [each for each in self._warnings if each not in mine]
        return tuple(text if who == repository else f"{who}: {text}" for who, text in mine)

    def finish(self, result: Result) -> None:
        """Print how a run ended: checks, table, warnings, errors and one closing line; or the object of `--json`."""
        end = closing(result, self._environ)
        columns = cells(result, "→" if self._console.unicode else "->")
        with self._lock:
            self._live.end()
            self._heading = ""
            if not self._json:
                self._tables(result, columns)
            self._warnings_and_errors(result)
            if self._json:
                self._results.out(json.dumps(document(result), indent=2), highlight=False)
            elif not self._hidden:
                self._print((f"\n{clean(end)}", "bold green" if result.ok else "bold red"))
            if self._github:
                self._publish(result, markdown(result, columns, end))

    # The parts of the end

    def _tables(self, result: Result, columns: Mapping[str, Sequence[str]]) -> None:
        """Print the checks, those with a fault alone where the rest is hidden, and the table of outcomes."""
        groups = grouped(check for check in result.checks if not self._hidden or check.status in BAD)
        lengths = [len(check.name) for checks in groups.values() for check in checks if check.detail]
        width = max((length for length in lengths if length <= WIDEST), default=0)
        for group, checks in groups.items():
            self._print((f"\n{group}", "bold"))
            for check in checks:
                self._console.print(check_lines(self._console, check, width), soft_wrap=True)
        if self._hidden:
            return
        if result.verification:
            self._print((f"\n{len(result.checks)} checks: {counted(result.checks)}", "bold"))
        if columns:
            self._print("")
            self._console.print(draw(self._console, columns))

    def _warnings_and_errors(self, result: Result) -> None:
        """Print the warnings of a run again, and its errors, an error of several repositories once."""
        warnings = [] if self._github or self._hidden else [*dict.fromkeys(result.all_warnings)]
        errors: dict[tuple[str, ...], list[str]] = {}
        for step, rows in result.steps.items():
            for row in rows:
                if row.error:
                    what = row.error.what.removeprefix(f"{row.repository}: ").removeprefix(f"{step}: ")
                    key = (step if len(result.steps) > 1 else "", what, row.error.hint, row.error.command)
                    errors.setdefault(key, []).append(row.repository)
        if result.outcomes and (warnings or errors or result.error) and not self._hidden and not self._json:
            self._print("")
        for text in warnings:
            self._print(("warning: ", "bold yellow"), one_line(text), fold=True)
        for (step, *lines), names in errors.items():
            self._error(": ".join(filter(None, (", ".join(names), step))), *lines)
        if error := result.error:
            self._error("error", error.what, error.hint, error.command)

    def _error(self, who: str, what: str, hint: str, command: str) -> None:
        if self._github:
            self._annotate("error", who, what, hint, command)
            return
        first, _, rest = clean(what).partition("\n")
        self._print((f"{one_line(who)}: ", "bold red"), first, error=True, fold=True)
        for line in rest.splitlines():
            self._print((f"    {line}", "dim"), error=True)
        for line in advice(hint, command):
            self._print((f"  {line}", "cyan"), error=True)

    def _publish(self, result: Result, summary: str) -> None:
        """Give GitHub Actions the faults that `verify` found as annotations, and the summary."""
        for check in result.checks:
            if check.status in BAD:
                level = "error" if check.status == "fail" else "warning"
                self._annotate(level, check.name, check.detail, check.hint, check.command)
        try:
            if path := self._environ.get("GITHUB_STEP_SUMMARY"):
                with Path(path).open("a", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(summary)
        except OSError as error:
            self.warn("GITHUB_STEP_SUMMARY", f"could not be written: {error.strerror}")

    def _annotate(self, level: str, title: str, *lines: str) -> None:
        message = "\n".join(filter(None, (clean(line).strip() for line in lines)))
        self._print(annotation(level, one_line(title), message), error=True)

    def _line(self, who: str, message: str, style: str = "", *, error: bool = False) -> None:
        """Print what happened to `who` below the heading of its step; without a terminal, with the time."""
        who = one_line(who)
        with self._lock:
            self._live.hide(who)
            if heading := one_line(self._heading):
                self._print(f"::group::{heading}" if self._github else (heading, "bold cyan"))
            self._heading = ""
            clock = "" if (self._errors if error else self._console).is_terminal else time.strftime("%H:%M:%S ")
            text = one_line(message).removeprefix(f"{who}: ")
            self._print((f"{clock}{who}: ", "dim" if style == "dim" else "bold"), (text, style), error=error, fold=True)

    def _print(self, *parts: str | tuple[str, str], error: bool = False, fold: bool = False) -> None:
        """Print texts, with their styles, as one; a terminal gets prose folded, and what is to be copied as it is."""
        console = self._errors if error else self._console
        text = Text.assemble(*parts)
        with self._lock:
            console.print(console.fold(text) if fold else text, soft_wrap=True)
