"""Invoke tasks that set up SGLang and FlashInfer from source: clone, update, install and verify, or all with setup.

REF, in the options, is one of

  main                         a branch
  v0.5.23                      a tag
  1a2b3c4d5e                   a commit id; a short one where a branch or tag is at it
  latest                       the newest release, without pre-releases and nightlies
  matching                     for FlashInfer: the release that the checked-out SGLang requires
  refs/heads/x, refs/tags/x    a branch or tag where the name alone means something else
"""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import Task

from .settings import DEFAULTS

if TYPE_CHECKING:
    from .models import Outcome, Result, Verification

import_module(".verify", __name__)  # before the task of that name: a first import later would replace it

HELP = {
    "sglang_branch": "REF of SGLang: a branch, tag or commit id, or 'latest'",
    "flashinfer_branch": "REF of FlashInfer: the same, or 'matching': what the checked-out SGLang requires",
    "full": "fetch the full history and complete submodules",
    "only": "work on this repository alone (may be repeated)",
    "deps": "install what the packages require, too (the default)",
    "reinstall": "install again what is installed already",
    "python": "interpreter of another environment; the default is the one that runs Invoke",
    "json": "print one JSON object on standard output, and nothing else there",
    "strict": "treat warnings as failures",
    "kernels": "also run the reference tests of the trace data against FlashInfer's kernels",
    "kernel": "run only the reference tests of this definition or op type (may be repeated)",
    "junit": "write the results of the reference tests to this file, as JUnit XML",
    "locked": "use exactly the commits and versions of pylock.sources.toml",
    "verbose": "show every check, also of groups in which all passed",
}
REPEATED = ("only", "kernel")
Names = str | Sequence[str]


def clone(
    c: Context, sglang_branch: str | None = None, flashinfer_branch: str | None = None, full: bool = False,
    only: Names | None = None, json: bool = False,
) -> Sequence[Outcome]:
    """Clone the repositories that are missing; existing checkouts stay as they are.

    Returns what was done to each repository. Raises Failed.
    """
    return _run(c, "clone", locals()).steps["clone"]


def update(
    c: Context, sglang_branch: str | None = None, flashinfer_branch: str | None = None, full: bool = False,
    only: Names | None = None, json: bool = False,
) -> Sequence[Outcome]:
    """Update the checkouts to their REF on the remote; local work is never lost.

    Returns what was done to each repository. Raises Failed.
    """
    return _run(c, "update", locals()).steps["update"]


def install(
    c: Context, deps: bool = True, reinstall: bool = False, python: str | None = None, only: Names | None = None,
    json: bool = False,
) -> Sequence[Outcome]:
    """Install the packages from their checkouts, editable, with what they require.

    Returns what was done to each package. Raises Failed.
    """
    return _run(c, "install", locals()).steps["install"]


def verify(
    c: Context, strict: bool = False, kernels: bool = False, kernel: Names | None = None, junit: str | None = None,
    locked: bool = False, verbose: bool = False, python: str | None = None, only: Names | None = None,
    json: bool = False,
) -> Verification:
    """Check everything offline, changing nothing; exit status 1 if a check fails.

    Returns what was found. Raises Failed.
    """
    return _verification(_run(c, "verify", locals()))


def setup(
    c: Context, sglang_branch: str | None = None, flashinfer_branch: str | None = None, full: bool = False,
    deps: bool = True, reinstall: bool = False, strict: bool = False, kernels: bool = False,
    kernel: Names | None = None, junit: str | None = None, locked: bool = False, verbose: bool = False,
    python: str | None = None, only: Names | None = None, json: bool = False,
) -> Result:
    """Clone, update, install and verify: from nothing to a working set-up.

    Returns what was done and found. Raises Failed.
    """
    return _run(c, "setup", locals())


def status(c: Context, only: Names | None = None, json: bool = False) -> Verification:
    """Show what is here: REFs, branches, changes, versions; offline.

    Returns what was found, without checks. Raises Failed.
    """
    return _verification(_run(c, "status", locals()))


def lock(c: Context, python: str | None = None, only: Names | None = None, json: bool = False) -> Result:
    """Write this set-up to pylock.sources.toml; `setup --locked` reproduces it.

    Returns what was done. Raises Failed.
    """
    return _run(c, "lock", locals())


def _run(c: Context, task: str, arguments: dict[str, Any]) -> Result:
    """Run a task with its `arguments`; what it needs is imported now, since `invoke --list` does not need it."""
    options = {name: value for name, value in arguments.items() if name != "c"}
    for name in REPEATED:
        given = options.get(name)
        options[name] = [given] if isinstance(given, str) else given or ()  # one name is a list of one
    try:
        from .run import Options, run
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith(__name__):
            raise
        requirements = str(Path(__file__).parent / "requirements.txt")
        command = shlex.join([sys.executable, "-m", "pip", "install", "-r", requirements])
        raise Exit(f"error: {error.name} is not installed for {sys.executable}.\n  {command}", code=2) from None
    except KeyboardInterrupt:  # before `run` takes care of it
        raise Exit("Interrupted.", code=130) from None
    return run(c, task, Options(**options))


def _verification(result: Result) -> Verification:
    assert result.verification
    return result.verification


namespace = Collection()
namespace.configure({"sources": DEFAULTS})
for function in (clone, update, install, verify, setup, status, lock):  # which stay functions: tasks are not typed
    options = [name for name in inspect.signature(function).parameters if name != "c"]
    made: Task[Any] = Task(
        function,
        iterable=[name for name in REPEATED if name in options],
        auto_shortflags=False,
        help={name: HELP[name] for name in options},
    )
    namespace.add_task(made)
