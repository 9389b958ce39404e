"""Invoke tasks that set up SGLang and FlashInfer from source: clone, update, install and verify, or all with setup;
lock writes down what was set up.

REF, in the options, is one of

  main                         a branch
  v0.5.10.post1                a tag
  1a2b3c4d5e                   a commit id; a short one where a branch or tag is at it
  latest                       the newest release, without pre-releases and nightlies
  matching                     for FlashInfer: the release that the checked-out SGLang requires
  refs/heads/x, refs/tags/x    a branch or tag where the name alone means something else
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import task

from .cli import explain_mistakes
from .config import DEFAULTS

if TYPE_CHECKING:
    from .errors import SourcesError
    from .models import Check, Outcome, RepositoryState, Result, Verification
    from .run import Failed

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
    "strict": "let warnings fail, too",
    "kernels": "also run the reference tests of the trace data against FlashInfer's kernels",
    "kernel": "run those of this definition or op type alone (may be repeated)",
    "junit": "write the results of the kernels to this file, in JUnit's XML",
    "locked": "the commits and versions of pylock.sources.toml, and nothing else",
}


def _help(*options: str) -> dict[str, str]:
    return {option: HELP[option] for option in (*options, "json")}


@task(iterable=["only"], auto_shortflags=False, help=_help("sglang_branch", "flashinfer_branch", "full", "only"))
def clone(
    c: Context, sglang_branch: str = "", flashinfer_branch: str = "", full: bool = False,
    only: Sequence[str] | None = None, json: bool = False,
) -> Sequence[Outcome]:  # fmt: skip
    """Clone the repositories that are missing; existing checkouts stay as they are.

    Returns what was done to each repository. Raises Failed.
    """
    from .run import Options, clone_step, run

    options = Options(_refs(sglang_branch, flashinfer_branch), full=full, only=only, json=json)
    return run(c, "clone", [clone_step], options).steps["clone"]


@task(iterable=["only"], auto_shortflags=False, help=_help("sglang_branch", "flashinfer_branch", "full", "only"))
def update(
    c: Context, sglang_branch: str = "", flashinfer_branch: str = "", full: bool = False,
    only: Sequence[str] | None = None, json: bool = False,
) -> Sequence[Outcome]:  # fmt: skip
    """Update the checkouts to their REF on the remote; local work is never lost.

    Returns what was done to each repository. Raises Failed.
    """
    from .run import Options, run, update_step

    options = Options(_refs(sglang_branch, flashinfer_branch), full=full, only=only, json=json)
    return run(c, "update", [update_step], options).steps["update"]


@task(iterable=["only"], auto_shortflags=False, help=_help("deps", "reinstall", "python", "only"))
def install(
    c: Context, deps: bool = True, reinstall: bool = False, python: str = "", only: Sequence[str] | None = None,
    json: bool = False,
) -> Sequence[Outcome]:  # fmt: skip
    """Install the packages from their checkouts, editable, with what they require.

    Returns what was done to each package. Raises Failed.
    """
    from .run import Options, install_step, run

    options = Options(deps=deps, reinstall=reinstall, python=python, only=only, json=json)
    return run(c, "install", [install_step], options).steps["install"]


@task(
    iterable=["only", "kernel"], auto_shortflags=False,
    help=_help("strict", "kernels", "kernel", "junit", "locked", "python", "only"),
)  # fmt: skip
def verify(
    c: Context, strict: bool = False, kernels: bool = False, kernel: Sequence[str] | None = None, junit: str = "",
    locked: bool = False, python: str = "", only: Sequence[str] | None = None, json: bool = False,
) -> Verification:  # fmt: skip
    """Check everything offline, changing nothing; exit status 1 if a check fails.

    Returns what was found. Raises Failed.
    """
    from .run import Options, run, verify_step

    options = Options(
        strict=strict, kernels=_kernels(kernels, kernel), junit=junit, locked=locked, python=python, only=only,
        json=json,
    )  # fmt: skip
    return _found(run(c, "verify", [verify_step], options))


@task(
    iterable=["only", "kernel"], auto_shortflags=False,
    help=_help("sglang_branch", "flashinfer_branch", "full", "deps", "reinstall", "strict", "kernels", "kernel",
               "junit", "locked", "python", "only"),
)  # fmt: skip
def setup(
    c: Context, sglang_branch: str = "", flashinfer_branch: str = "", full: bool = False, deps: bool = True,
    reinstall: bool = False, strict: bool = False, kernels: bool = False, kernel: Sequence[str] | None = None,
    junit: str = "", locked: bool = False, python: str = "", only: Sequence[str] | None = None, json: bool = False,
) -> Result:  # fmt: skip
    """Clone, update, install and verify: from nothing to a working set-up.

    Returns what was done and found. Raises Failed.
    """
    from .run import Options, clone_step, install_step, run, update_step, verify_step

    options = Options(
        _refs(sglang_branch, flashinfer_branch), full=full, deps=deps, reinstall=reinstall, strict=strict,
        kernels=_kernels(kernels, kernel), junit=junit, locked=locked, python=python, only=only, json=json,
    )  # fmt: skip
    return run(c, "setup", [clone_step, update_step, install_step, verify_step], options)


@task(auto_shortflags=False, help=_help("python"))
def lock(c: Context, python: str = "", json: bool = False) -> Result:
    """Write this set-up to pylock.sources.toml; `setup --locked` reproduces it.

    Returns what was done. Raises Failed.
    """
    from .run import Options, lock_step, run

    return run(c, "lock", [lock_step], Options(python=python, json=json))


def _kernels(everything: bool, chosen: Sequence[str] | None) -> Sequence[str]:
    return chosen or (["all"] if everything else [])


def _refs(sglang: str, flashinfer: str) -> dict[str, str]:
    return {"sglang": sglang, "flashinfer": flashinfer}


def _found(result: Result) -> Verification:
    assert result.verification
    return result.verification


def _as_json(name: str, mistake: str) -> None:
    """Report a mistake that Invoke found before it ran the task."""
    from .errors import UsageError
    from .models import Result
    from .report import Report

    with Report(json=True) as report:
        report.finish(Result(name, UsageError.status, error=UsageError(mistake)))


namespace = Collection(clone, update, install, verify, setup, lock)
namespace.configure({"sources": DEFAULTS})
explain_mistakes(_as_json)
_LATER = {
    "Check": "models", "Failed": "run", "Outcome": "models", "RepositoryState": "models", "Result": "models",
    "SourcesError": "errors", "Verification": "models",
}  # fmt: skip
__all__ = [
    "Check", "Failed", "Outcome", "RepositoryState", "Result", "SourcesError", "Verification",
    "clone", "install", "lock", "namespace", "setup", "update", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """The values that the tasks return and raise, imported when they are asked for (PEP 562)."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LATER[name]}", __name__), name)
