"""What people and programs see of a run. Nothing else prints."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
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
ESCAPES = str.maketrans({"%": "%25", "\n": "%0A"})  # in a workflow command of GitHub Actions
TITLE = str.maketrans({"%": "%25", ":": "%3A", ",": "%2C"})


class Report:
    """Shows what happens and how it ended; a `Reporter` that many threads may call at once.

    Standard output takes what is ordinary, standard error what went wrong. `hide` is Invoke's: True, "out", "stdout"
    and "both" hide what is ordinary. `echo` shows commands, `verbose` every check. With `json` standard output takes
    the object of `finish` and nothing else. `warnings` are those so far, each beginning with whom it is about.
    """

    def __init__(
        self, *, hide: bool | str | None = False, echo: bool = False, json: bool = False, verbose: bool = False
    ) -> None:
        self._results, self._errors = Output(sys.stdout), Output(sys.stderr)
        self._console = self._errors if json else self._results
        if hide in (True, "out", "stdout", "both"):
            self._console = Output(None)
        elif self._console.is_terminal and self._errors.is_terminal:
            self._errors = self._console  # two streams, one terminal
        self._live = Live(self._console, self.event)
        self._echo, self._json, self._verbose = echo, json, verbose
        self.warnings: list[str] = []

    # While it runs: the methods of `Reporter`

    def event(self, who: str, message: str, style: str = "", *, error: bool = False) -> None:
        """Something happened to `who` (a repository, a submodule such as `flashinfer/3rdparty/cutlass`): print a line,
        without a terminal with the time, and remove the live line until there is more progress."""
        who = one_line(who)
        clock = "" if (self._errors if error else self._console).is_terminal else time.strftime("%H:%M:%S ")
        text = one_line(message).removeprefix(f"{who}: ")
        self._live.hide(who)
        self._print((f"{clock}{who}: ", "bold"), (text, style), error=error, fold=2)

    def warn(self, who: str, message: str) -> None:
        """Print on standard error what a user should know, though the work goes on, and keep it in `warnings`."""
        text = one_line(message).removeprefix(f"{who}: ")
        self.warnings.append(f"{one_line(who)}: {text}")
        self.event(who, f"warning: {text}", "yellow", error=True)

    def progress(self, who: str, doing: str, done: float | None, moved: int, rate: float) -> None:
        """Change a live line; without a terminal, print a line every ten seconds. `done` is in 0..1 or None, `moved` in
        bytes, `rate` in bytes/s; 0 is unknown."""
        self._live.put(one_line(who), progress(one_line(doing), done, moved, rate))

    def command(self, argv: Sequence[str], cwd: Path | None) -> None:
        """Print a command that is about to be run, if commands are to be shown (Invoke's --echo)."""
        if self._echo:
            directory = f"cd {shell(cwd)} && " if cwd else ""
            self._print((clean(directory + shell(*argv)), "bold"))

    def terminal(self) -> IO[str] | None:
        """Return the terminal that an installer may draw its progress on, after removing the live lines; None if there
        is none or nothing is to be shown."""
        self._live.end()
        return self._console.file if self._console.is_terminal else None

    def checked(self, group: str, checks: Sequence[Check]) -> None:
        """Print the checks of a group (`sglang`, `cuda`, `trace`) that is complete."""
        self._live.hide(group)
        if checks and not self._json:
            for line, fold in summary.check_lines(group, checks, self._verbose):
                self._print(line, fold=fold)

    # A run

    def heading(self, step: str) -> None:
        """Print what the following lines are about."""
        self._print((step, "bold cyan"))

    def finish(self, result: Result) -> None:
        """Print how a run ended: repositories, warnings, errors with what to do; or the object of `--json`."""
        self._live.end()
        if not self._json:
            self._show_repositories(result)
        if os.environ.get("GITHUB_ACTIONS") == "true":
            self._annotate(result)
        else:
            self._show_faults(result)
        if self._json:
            self._results.write(Text(json.dumps(document(result), indent=2)), 0)
        elif result.task != "status":
            self._print("")
            self._print(summary.closing(result), fold=2)

    def _show_repositories(self, result: Result) -> None:
        repositories = summary.repositories(result)
        width = max(map(len, repositories), default=0)
        if repositories:
            self._print("")
        for name, lines in repositories.items():
            for index, line in enumerate(lines):
                self._print((f"{'' if index else one_line(name):<{width}}  ", "bold"), line, fold=width + 2)

    def _show_faults(self, result: Result) -> None:
        """Print the errors of a run, or the warnings again if it succeeded."""
        errors, warnings = summary.errors(result), summary.warnings(result) if result.ok else []
        if errors or warnings:
            self._print("")
        for warning in warnings:
            self._print(("warning: ", "bold yellow"), one_line(f"{warning.name}: {warning.detail}"), fold=2)
        for error in errors:
            first, *rest = clean(error.detail.removeprefix(f"{error.name}: ")).splitlines()
            self._print((f"{one_line(error.name)}: ", "bold red"), first, error=True, fold=2)
            for line in rest:
                self._print((f"    {line.strip()}", "dim"), error=True, fold=4)
            for text, fold in summary.advice(error, 2):
                self._print(text, error=True, fold=fold)

    def _annotate(self, result: Result) -> None:
        """Print all faults as workflow commands: GitHub Actions shows annotations beside the log."""
        failed = [check for check in result.checks if check.status == "fail"]
        for fault in (*summary.errors(result), *failed, *summary.warnings(result)):
            level = "error" if fault.status == "fail" else "warning"
            message = "\n".join(filter(None, map(clean, (fault.detail, fault.hint, fault.command))))
            title = one_line(fault.name).translate(TITLE)
            self._print(f"::{level} title={title}::{message.translate(ESCAPES)}", error=True)

    def _print(self, *parts: str | Text | tuple[str, str], error: bool = False, fold: int = 0) -> None:
        """Print texts, with their styles, as one. A terminal gets prose folded, with `fold` columns before the lines
        after the first, and what is to be copied as it is."""
        (self._errors if error else self._console).write(Text.assemble(*parts), fold)


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
