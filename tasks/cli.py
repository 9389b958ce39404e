"""Mistakes that Invoke finds before a task runs, on the command line or in the configuration, explained."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

from invoke.config import AmbiguousMergeError, Config, copy_dict, merge_dicts
from invoke.exceptions import AmbiguousEnvVar, Exit, ParseError, UncastableEnvVar
from invoke.vendor import yaml

if TYPE_CHECKING:
    from invoke.program import Program

AsJson = Callable[[str, str], object]  # takes the name of a task and what is wrong
WRONG = 2  # the exit status for a wrong option or configuration
ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = Path(__file__).parent / "requirements.txt"
MODULES = {"gitpython": "git"}  # modules that are not named like their distribution
READING = (yaml.YAMLError, AmbiguousEnvVar, UncastableEnvVar, AttributeError, TypeError, ValueError)  # configuration


def explain_mistakes(as_json: AsJson) -> None:
    """Have the program `invoke` suggest what was meant, and exit with status 2 instead of a traceback.

    If the task was given --json, `as_json` prints what is wrong. Nothing changes if another program has loaded the
    collection.
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
    """Print a mistake as the task that was called would have done."""
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


def _on_error(program: Program, as_json: AsJson, usual: Callable[..., Any], *raised: Any) -> None:
    """Replace `sys.excepthook`: explain what a user can cause, and show the traceback of anything else."""
    _, error, trace = raised
    missing = _missing(error)
    message = missing or _unreadable(program, error, trace)
    if not message or program.args.debug.value:
        usual(*raised)
    if missing:  # --json may need the same library
        print(f"error: {missing}", file=sys.stderr)
    elif message:
        _explain(program, as_json, message)
    if message:
        raise SystemExit(WRONG)


def _missing(error: BaseException) -> str:
    """Which library of this tool is missing, and how to get it; empty if the error has another cause."""
    module = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    libraries = re.findall(r"^[\w-]+", REQUIREMENTS.read_text(encoding="utf-8").lower(), re.MULTILINE)
    if module not in [MODULES.get(name, name) for name in libraries]:
        return ""
    command = shlex.join([sys.executable, "-m", "pip", "install", "-r", str(REQUIREMENTS)])
    return f"{module} is not installed for {sys.executable}.\n  {command}"


def _unreadable(program: Program, error: BaseException, trace: Any) -> str:
    """Which configuration file or variable is wrong, and why; empty if the error has another cause."""
    if not isinstance(error, READING):
        return ""
    from .names import redact

    stems = (ROOT / "invoke", Path("~/.invoke").expanduser(), "/etc/invoke")
    names = [program.args.config.value, *(f"{stem}.{end}" for stem in stems for end in ("yaml", "yml"))]
    for file in (Path(name) for name in names if name and Path(name).is_file()):
        if wrong := _wrong_in(file):
            return f"{file}: {wrong}"
    variables = ", ".join(name for name in os.environ if name.startswith("INVOKE_"))
    functions = [frame.f_code.co_name for frame, _ in walk_tb(trace)]
    return f"{variables}: {redact(str(error))}" if variables and "load_shell_env" in functions else ""


def _wrong_in(file: Path) -> str:
    """What is wrong with one configuration file; empty if nothing is."""
    from .config import DEFAULTS, load
    from .errors import UsageError

    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8")) or {}  # type: ignore[no-untyped-call]
        if not isinstance(tree, dict):
            return "the file must be a table of keys"
        load(tree, ROOT)
        merge_dicts(copy_dict({**Config.global_defaults(), "sources": DEFAULTS}), tree)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return f"{where}{getattr(error, 'problem', None) or error}"
    except UsageError as error:
        return error.what
    except AmbiguousMergeError:
        return "a value, or nothing, where a table of keys belongs (`{}` is an empty one)"
    return ""
