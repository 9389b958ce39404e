"""What people and programs see of a run. Nothing else prints."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from rich.text import Text

from ..errors import SourcesError
from ..models import VERSION, Check, Result
from ..names import redact, shell
from . import summary
from .screen import Live, Output, clean, one_line, progress

SCHEMA_VERSION = 2  # of --json; increased when a key changes its meaning or disappears; CHANGELOG says what changed
MESSAGE = str.maketrans({"%": "%25", "\n": "%0A"})  # in a workflow command of GitHub Actions
TITLE = str.maketrans({"%": "%25", ":": "%3A", ",": "%2C"})


class Report:
    """Shows what happens and how it ended; a `Reporter` that many threads may call at once.

    Standard output takes what is ordinary, standard error what went wrong. `hide` is Invoke's: True, "out", "stdout"
    and "both" hide what is ordinary. `echo` shows commands, `verbose` every check. With `json` standard output takes
    the object of `finish` and nothing else. `seconds` is the wall time of each step so far.
    """

    def __init__(
        self, *, hide: bool | str | None = False, echo: bool = False, json: bool = False, verbose: bool = False
    ) -> None:
        self._results, self._errors = Output(sys.stdout), Output(sys.stderr)
        self._console = self._errors if json else self._results
        if self._console.is_terminal and self._errors.is_terminal:
            self._errors = self._console  # two streams, one terminal
        self._live = Live(self._console, self.event)
        self._lock = threading.RLock()
        self._github = os.environ.get("GITHUB_ACTIONS") == "true"
        self._hidden, self._echo, self._json = hide in (True, "out", "stdout", "both"), echo, json
        self._verbose = verbose
        self._heading = ""
        self._checked: set[str] = set()
        self._warnings: list[tuple[str, str]] = []
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._live.end()

    # While it runs: the methods of `Reporter`

    def event(self, who: str, message: str) -> None:
        """Something happened to `who` (a repository, a submodule such as `flashinfer/3rdparty/cutlass`): print a line,
        and remove the live line until there is more progress."""
        if not self._hidden:
            self._line(who, message)

    def warn(self, who: str, message: str) -> None:
        """Print on standard error what a user should know, though the work goes on, and keep it for `take_warnings`."""
        who = one_line(who)
        text = one_line(message).removeprefix(f"{who}: ")
        with self._lock:
            self._warnings.append((who, text))
        if self._github:
            self._annotate("warning", who, text)
        else:
            self._line(who, f"warning: {text}", "yellow", error=True)

    def progress(self, who: str, doing: str, done: float | None, moved: int, rate: float) -> None:
        """Change a live line; without a terminal, print a line every ten seconds. `done` is in 0..1 or None, `moved` in
        bytes, `rate` in bytes/s; 0 is unknown."""
        if not self._hidden:
            with self._lock:
                self._live.put(one_line(who), progress(one_line(doing), done, moved, rate))

    def command(self, argv: Sequence[str], cwd: Path | None) -> None:
        """Print a command that is about to be run, if commands are to be shown (Invoke's --echo)."""
        if self._echo:
            directory = f"cd {shell(cwd)} && " if cwd else ""
            self._print((clean(directory + shell(*argv)), "bold"))

    def output(self, who: str, line: str) -> None:
        """Print an installer's line; if the line was drawn over itself, its last state."""
        text = line.rstrip("\r\n").rpartition("\r")[2]
        if not self._hidden and text.strip():
            self._line(who, text, "dim")

    def terminal(self) -> IO[str] | None:
        """Return the terminal that an installer may draw its progress on, after removing the live lines; None if there
        is none or nothing is to be shown."""
        with self._lock:
            if self._hidden or not self._console.is_terminal:
                return None
            self._live.end()
            return self._console.file

    def checked(self, group: str, checks: Sequence[Check]) -> None:
        """Print the checks of a group (`sglang`, `cuda`, `trace`) that is complete, where the rest is hidden only those
        that failed or warned."""
        bad = any(check.status in summary.BAD for check in checks)
        with self._lock:
            if group not in self._checked and checks and not self._json and (bad or not self._hidden):
                self._live.hide(group)
                self._show_heading()
                for line, indent in summary.check_lines(group, checks, self._verbose):
                    self._print(line, fold=indent)
            self._checked.add(group)

    # A run

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a step, and print a heading above its lines."""
        began, self._heading = time.monotonic(), name
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began
            with self._lock:
                self._live.end()
                self._heading = ""

    def take_warnings(self, repository: str = "") -> tuple[str, ...]:
        """Return the warnings about a repository and its submodules since the last call, or all that are left."""
        with self._lock:
            mine = [pair for pair in self._warnings if not repository or f"{pair[0]}/".startswith(f"{repository}/")]
            self._warnings = [pair for pair in self._warnings if pair not in mine]
        return tuple(text if who == repository else f"{who}: {text}" for who, text in mine)

    def finish(self, result: Result) -> None:
        """Print how a run ended: checks, repositories, warnings, errors and what to do next; or the object of
        `--json`."""
        with self._lock:
            self._live.end()
            if not self._json:
                for group, checks in summary.grouped(result.checks).items():
                    self.checked(group, checks)
                if not self._hidden:
                    self._show_repositories(result)
            self._show_faults(result)
            if self._json:
                self._results.print(json.dumps(document(result), indent=2), soft_wrap=True)
            elif not self._hidden:
                self._close(result)

    # The parts of the end

    def _show_repositories(self, result: Result) -> None:
        repositories = summary.repositories(result)
        width = max(map(len, repositories), default=0)
        for number, (name, lines) in enumerate(repositories.items()):
            if number == 0:
                self._print("")
            for index, line in enumerate(lines):
                text = Text(line)
                text.highlight_regex(r"(^|: )(failed|skipped .*|not cloned)", "red")
                self._print((f"{'' if index else one_line(name):<{width}}  ", "bold"), text, fold=width + 2)

    def _show_faults(self, result: Result) -> None:
        """Print the warnings of a run again, and its errors, one of several repositories once. GitHub Actions gets the
        faults that `verify` found, too: it shows annotations beside the log."""
        texts = [] if self._github or self._hidden else summary.warnings(result)
        errors: dict[SourcesError, list[str]] = {}
        for row in result.outcomes:
            if row.error:
                errors.setdefault(row.error, []).append(row.repository)
        if result.outcomes and (texts or errors or result.error) and not self._hidden and not self._json:
            self._print("")
        for text in texts:
            self._print(("warning: ", "bold yellow"), one_line(text), fold=2)
        for error, repositories in errors.items():
            self._error(", ".join(repositories), error)
        if result.error:
            self._error("error", result.error)
        for check in result.checks if self._github else ():
            if check.status in summary.BAD:
                level = "error" if check.status == "fail" else "warning"
                self._annotate(level, check.name, check.detail, check.hint, check.command)

    def _error(self, who: str, error: SourcesError) -> None:
        what = clean(error.what.removeprefix(f"{who}: "))
        if self._github:
            self._annotate("error", who, what, error.hint, error.command)
            return
        first, _, rest = what.partition("\n")
        self._print((f"{one_line(who)}: ", "bold red"), first, error=True, fold=2)
        for line in rest.splitlines():
            self._print((f"    {line}", "dim"), error=True)
        for line in summary.advice(error.hint, error.command):
            self._print((f"  {line}", "cyan"), error=True)

    def _annotate(self, level: str, title: str, *lines: str) -> None:
        """Print a workflow command: an annotation; `level` is error or warning."""
        message = "\n".join(filter(None, (clean(line).strip() for line in lines)))
        name = one_line(title).translate(TITLE)
        self._print(f"::{level} title={name}::{message.translate(MESSAGE)}", error=True)

    def _close(self, result: Result) -> None:
        ended, following, style = summary.closing(result)
        if ended or following:
            self._print("")
        if ended:
            self._print((clean(ended), style), fold=2)
        if following:
            self._print(("Next: ", "bold"), (clean(following), style))

    def _show_heading(self) -> None:
        if self._heading:
            self._print((one_line(self._heading), "bold cyan"))
        self._heading = ""

    def _line(self, who: str, message: str, style: str = "", *, error: bool = False) -> None:
        """Print what happened to `who` below the heading of its step; without a terminal, with the time."""
        who = one_line(who)
        with self._lock:
            self._live.hide(who)
            self._show_heading()
            clock = "" if (self._errors if error else self._console).is_terminal else time.strftime("%H:%M:%S ")
            text = one_line(message).removeprefix(f"{who}: ")
            self._print((f"{clock}{who}: ", "dim" if style == "dim" else "bold"), (text, style), error=error, fold=2)

    def _print(self, *parts: str | Text | tuple[str, str], error: bool = False, fold: int = 0) -> None:
        """Print texts, with their styles, as one. A terminal gets prose folded, with `fold` columns before the lines
        after the first, and what is to be copied as it is."""
        console = self._errors if error else self._console
        with self._lock:
            console.print(console.fold(Text.assemble(*parts), fold), soft_wrap=True)


def document(result: Result) -> dict[str, Any]:
    """Return the object that `--json` prints, of dicts, lists, strings and numbers: see result.schema.json of `verify`.
    None means unknown, or that there is nothing to say. It holds no password."""
    tree = {"schema_version": SCHEMA_VERSION, "version": VERSION, **asdict(result), "ok": result.ok}
    tree["steps"] = [{"task": step, **asdict(row)} for step, rows in result.steps.items() for row in rows]
    if found := tree.pop("verification"):
        shown = ("repositories", "packages") if result.task == "status" else (*found.keys() - {"ok"},)
        tree |= {key: found[key] for key in shown}
    return {key: _plain(value) for key, value in tree.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, SourcesError):
        return _plain({"code": value.code, "what": value.what, "hint": value.hint, "command": value.command})
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 3)
    return redact(str(value)) or None if isinstance(value, str | Path) else value
