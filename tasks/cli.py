"""Mistakes that Invoke finds before a task runs, on the command line or in the configuration, explained."""

from __future__ import annotations

import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from invoke.exceptions import Exit, ParseError

if TYPE_CHECKING:
    from invoke.collection import Collection
    from invoke.program import Program

Hook = Callable[[type[BaseException], BaseException, "TracebackType | None"], Any]
WRONG = 2  # the exit status for a wrong option or configuration


def explain_mistakes() -> None:
    """Have the program `invoke` suggest what was meant, and end with status 2 instead of a traceback.

    Nothing changes where something else has loaded the collection.
    """
    from invoke.main import program

    if program.argv:
        for step in ("parse_tasks", "parse_cleanup"):
            setattr(program, step, partial(_parse, program, getattr(program, step)))
        sys.excepthook = partial(_on_error, program, sys.excepthook)


def as_called(text: str) -> str:
    """The text with its commands as they are here: in another project's collection, `invoke sources.clone`."""
    if "invoke " not in text:
        return text
    from invoke.main import program

    collection: Collection | None = getattr(program, "collection", None)
    for path in collection.task_names if collection else ():
        prefix, _, name = path.rpartition(".")
        if collection and prefix and collection[path].__module__ == __package__:
            text = re.sub(rf"\binvoke {name}\b", f"invoke {path}", text)
    return text


def _parse(program: Program, step: Callable[[], None]) -> None:
    try:
        step()
    except ParseError as error:
        raise Exit(_suggest(program, error), code=WRONG) from None


def _suggest(program: Program, error: ParseError) -> str:
    """What Invoke says of a word on the command line, with what may have been meant."""
    found = re.match(r"No idea what '(.*)' is!$", str(error))
    if not found:
        lacking = re.match(r"Flag <Argument: (\w+).* needed value", str(error))
        return f"--{lacking[1].replace('_', '-')} needs a value." if lacking else str(error)
    word, here = found[1], error.context
    tasks = {name: {*context.flags, *context.inverse_flags} for name, context in program.parser.contexts.items()}
    name = here.name if here and here.name in tasks else ""
    option = next((token.partition("=")[0] for token in program.argv if token.partition("=")[1:] == ("=", word)), "")
    if here and option in here.flags:
        return f"{option} {'is given twice' if here.flags[option].takes_value else 'takes no value'}."
    if not word.startswith("-"):
        ref = f"A REF goes like this: --sglang-branch={word}" if "--sglang-branch" in tasks.get(name, ()) else ""
        return f"{word} is no task. {_nearest(word, tasks) or ref or 'Tasks: ' + ', '.join(tasks)}"
    near = _nearest(word, [*tasks.get(name, ()), *program.initial_context.flags])
    others = [other for other, flags in tasks.items() if word in flags]
    fix = f"These have it: {', '.join(others)}." if others else near
    help_ = f"All options: invoke --help {name}".rstrip()
    return " ".join(filter(None, (f"{word} is no option{f' of {name}' if name else ''}.", fix or help_)))


def _nearest(word: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    best = get_close_matches(word, [*known], n=1, cutoff=0.6)
    return f"Did you mean {best[0]}?" if best else ""


def _on_error(program: Program, usual: Hook, kind: type[BaseException], error: BaseException,
              trace: TracebackType | None) -> None:  # fmt: skip
    """What `sys.excepthook` is asked: explain what a user can cause, and show the traceback of anything else."""
    frames = [frame for frame, _ in traceback.walk_tb(trace)]
    ours = any(Path(frame.f_code.co_filename).is_relative_to(Path(__file__).parent) for frame in frames)
    told = _missing(error) if ours else _unreadable(program, error, frames)
    if not told or program.args.debug.value:
        usual(kind, error, trace)
    if told:
        print(f"error: {told}", file=sys.stderr)
        raise SystemExit(WRONG)


def _missing(error: BaseException) -> str:
    """Which library is missing, and how to get it; nothing if that is not what happened."""
    requirements = Path(__file__).parent / "requirements.txt"
    if not isinstance(error, ModuleNotFoundError) or not requirements.exists():
        return ""
    command = shlex.join([sys.executable, "-m", "pip", "install", "-r", str(requirements)])
    return f"{error.name} is not installed for {sys.executable}.\n  {command}"


def _unreadable(program: Program, error: BaseException, frames: Sequence[FrameType]) -> str:
    """What is wrong in which file or variable, if Invoke's reading of the configuration raised `error`."""
    from invoke.config import AmbiguousMergeError

    from .names import redact

    readers = [sys.modules[f"invoke.{name}"].__file__ for name in ("config", "env")]
    reading = [frame.f_locals for frame in frames if frame.f_code.co_filename in readers]
    if not reading:
        return ""
    given = {key: value for variables in reading for key, value in variables.items()}  # the innermost counts
    keys = given.get("key_path") or [found["key"] for found in reading if {"base", "key"} <= {*found}]
    variable = "INVOKE_" + "_".join(map(str, keys)).upper()
    known = [getattr(program.config, f"_{level}_path", None) for level in ("runtime", "project", "user", "system")]
    file = given.get("filepath") or given.get("path") or next(filter(None, known), "the configuration")
    why = " ".join(redact(str(error)).split())
    if isinstance(error, AmbiguousMergeError):
        table = isinstance(given.get("base", {}).get(given.get("key")), dict)
        why = "a table of keys is expected here" if table else "a single value is expected here, not a table"
    elif isinstance(error, AttributeError):
        why = "a table of keys is expected in this file"
    elif "key_path" in given and isinstance(error, TypeError):
        why = "names have to be text (put numbers in quotes)"
    elif "key_path" in given and variable in os.environ:
        return f"{variable}: {why} ({'.'.join(keys)} is configured in {file})"
    return f"{file}: {'.'.join(map(str, keys))}{': ' if keys else ''}{why}"
