"""Mistakes that Invoke finds before a task runs, on the command line or in the configuration, explained."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from invoke.exceptions import AmbiguousEnvVar, Exit, ParseError, UncastableEnvVar

if TYPE_CHECKING:
    from invoke.program import Program

AsJson = Callable[[str, str], object]  # given a task and what is wrong
Hook = Callable[[type[BaseException], BaseException, "TracebackType | None"], Any]
WRONG = 2  # the exit status for a wrong option or configuration
ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = Path(__file__).parent / "requirements.txt"
MODULES = {"gitpython": "git"}  # a library's module, where it has another name


def explain_mistakes(as_json: AsJson) -> None:
    """Have the program `invoke` suggest what was meant, and end with status 2 instead of a traceback. Where --json is
    given to a task, `as_json` prints what is wrong.

    Nothing changes where something else has loaded the collection.
    """
    from invoke.main import program

    if program.argv and not isinstance(sys.excepthook, partial):
        for step in ("parse_tasks", "parse_cleanup"):
            setattr(program, step, partial(_parse, program, as_json, getattr(program, step)))
        sys.excepthook = partial(_on_error, program, as_json, sys.excepthook)


def as_called(text: str) -> str:
    """Return the text with its commands as they are called here: in another project, `invoke sources.clone`."""
    from invoke.main import program

    collection: Any = getattr(program, "collection", None)
    for path in collection.task_names if collection else ():
        prefix, _, name = path.rpartition(".")
        if prefix and collection[path].__module__ == __package__:
            text = re.sub(rf"\binvoke {name}\b", f"invoke {path}", text)
    return text


def _parse(program: Program, as_json: AsJson, step: Callable[[], None]) -> None:
    try:
        step()
    except ParseError as error:
        _explain(program, as_json, _suggest(program, error))
        raise Exit(code=WRONG) from None


def _explain(program: Program, as_json: AsJson, message: str) -> None:
    """Print a mistake, as the task would have done that was to be run."""
    known = sys.modules[__package__ or ""].namespace.task_names
    task = next((name for word in program.argv if (name := word.rpartition(".")[2]) in known), "")
    if task and "--json" in program.argv:
        as_json(task, message)
    else:
        print(f"error: {message}", file=sys.stderr)


def _suggest(program: Program, error: ParseError) -> str:
    """What is wrong with a word on the command line, and what may have been meant."""
    tasks = {name: {*context.flags, *context.inverse_flags} for name, context in program.parser.contexts.items()}
    here = error.context
    name = here.name if here and here.name in tasks else ""
    of = f" of {name}" if name else ""
    found = re.match(r"No idea what '(.*)' is!$", str(error))
    if not found:
        lacking = re.match(r"Flag <Argument: (\w+).* needed value", str(error))
        return f"--{lacking[1].replace('_', '-')}{of} needs a value" if lacking else str(error)
    word = str(found[1])
    option = next((token.partition("=")[0] for token in program.argv if token.partition("=")[1:] == ("=", word)), "")
    if here and option in here.flags:
        return f"{option}{of} {'is given twice' if here.flags[option].takes_value else 'takes no value'}"
    if not word.startswith("-"):
        ref = f"a REF is given as --sglang-branch={word}" if "--sglang-branch" in tasks.get(name, ()) else ""
        return f"unknown task {word}; {_nearest(word, tasks) or ref or 'tasks: ' + ', '.join(tasks)}"
    if others := ", ".join(other for other, flags in tasks.items() if word in flags):
        return f"unknown option {word}{of}; it is an option of {others}"
    near = _nearest(word, [*tasks.get(name, ()), *program.initial_context.flags])
    return f"unknown option {word}{of}; {near or f'all options: invoke --help {name}'.rstrip()}"


def _nearest(word: str, known: Iterable[Any]) -> str:
    from difflib import get_close_matches

    return "".join(f"did you mean {best}?" for best in get_close_matches(word, [*known], n=1))


def _on_error(
    program: Program, as_json: AsJson, usual: Hook, kind: type[BaseException], error: BaseException,
    trace: TracebackType | None,
) -> None:  # fmt: skip
    """Stand in for `sys.excepthook`: explain what a user can cause, and show the traceback of anything else."""
    missing = isinstance(error, ModuleNotFoundError) and _missing(error)
    message = missing or _unreadable(program, error)
    if not message or program.args.debug.value:
        usual(kind, error, trace)
    if missing:
        print(f"error: {missing}", file=sys.stderr)
    elif message:
        _explain(program, as_json, message)
    if message:
        raise SystemExit(WRONG)


def _missing(error: ModuleNotFoundError) -> str:
    """Which library of this tool is missing, and how to get it; nothing where it is none of this tool's."""
    lines = REQUIREMENTS.read_text(encoding="utf-8").lower() if REQUIREMENTS.exists() else ""
    libraries = re.findall(r"^[\w-]+", lines, re.MULTILINE)
    if (error.name or "").partition(".")[0] not in [MODULES.get(name, name) for name in libraries]:
        return ""
    command = shlex.join([sys.executable, "-m", "pip", "install", "-r", str(REQUIREMENTS)])
    return f"{error.name} is not installed for {sys.executable}.\n  {command}"


def _unreadable(program: Program, error: BaseException) -> str:
    """What is wrong in which file or variable, if `error` is of a kind that Invoke raises while it reads them."""
    from invoke.config import Config
    from invoke.vendor import yaml

    kinds = (yaml.YAMLError, AmbiguousEnvVar, UncastableEnvVar, AttributeError, TypeError, ValueError)
    stems = (f"{ROOT}/invoke", Path("~/.invoke").expanduser(), "/etc/invoke")
    given = [name] if (name := program.args.config.value) else []
    files = map(Path, (*given, *(f"{stem}.{end}" for stem in stems for end in ("yaml", "yml"))))
    base = {**Config.global_defaults(), **sys.modules[__package__ or ""].namespace.configuration()}
    for file in filter(Path.is_file, files if isinstance(error, kinds) else ()):
        try:
            tree = yaml.safe_load(file.read_text(encoding="utf-8"))  # type: ignore[no-untyped-call]
        except (yaml.YAMLError, UnicodeDecodeError) as broken:
            mark = getattr(broken, "problem_mark", None)
            at = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
            return f"{file}: {at}{getattr(broken, 'problem', None) or broken}"
        if wrong := _misfit(tree or {}, base):
            return f"{file}: {wrong}"
        if isinstance(error, AmbiguousEnvVar):
            return f"{file}: two keys for INVOKE_{str(error).split()[-1]}"
    return ""


def _misfit(tree: Any, base: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """The first key below `path` that Invoke cannot merge into `base`, or cannot set from the variable for it."""
    if not isinstance(tree, dict):
        return f"{'.'.join(path) or 'the file'} must be a table of keys"
    for name, value in tree.items():
        here, known = (*path, str(name)), base.get(name, value)
        key, variable = ".".join(here), "_".join(("INVOKE", *here)).upper()
        if not isinstance(name, str):
            return f"{key}: names must be text (put numbers in quotes)"
        if isinstance(value, dict) and not isinstance(known, dict):
            return f"{key} must be a single value, not a table of keys"
        if isinstance(known, dict):
            if wrong := _misfit(value, known, here):
                return wrong
        elif variable in os.environ and not _fits(os.environ[variable], value):
            return f"{variable} must be of the same kind as {value!r}, which is configured there"
    return ""


def _fits(text: str, value: Any) -> bool:
    """Whether Invoke can convert the text to the type of `value`."""
    try:
        return value is None or isinstance(value, str | bool) or type(value)(text) != list(text)
    except ValueError:
        return False
