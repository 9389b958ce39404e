"""Invoke tasks that set up SGLang and FlashInfer from source: clone, update, install and verify, or all with setup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import task

from .config.defaults import DEFAULTS

if TYPE_CHECKING:
    from .errors import SourcesError
    from .models import Check, Outcome, RepositoryState, Result, Verification
    from .run import Failed

import_module(".verify", __name__)  # before the task of that name: a first import later would replace it

F = TypeVar("F", bound=Callable[..., object])
_OPTIONS = {
    "sglang_branch": "The REF of SGLang to check out; without it, the configured branch.",
    "flashinfer_branch": "The REF of FlashInfer to check out; without it, the configured branch.",
    "full": "Fetch whole histories and whole submodules, now or later; it says first what that costs.",
    "deps": "Install what the two packages require, too. This is the default.",
    "reinstall": "Install again what is installed already.",
    "python": "The interpreter of the environment to install into or to check; without it, the one that runs Invoke.",
    "json": "Print one JSON object on standard output, and nothing else there.",
    "strict": "Let warnings fail, too.",
}
_WHICH = ("sglang_branch", "flashinfer_branch", "full")
_REFS = """
REF is one of
  main                         a branch
  v0.5.10.post1                a tag
  1a2b3c4d5e                   a commit id, whole, or short if a branch or tag is at it
  latest                       the newest release; pre-releases and nightlies do not count
  matching                     for FlashInfer: the release that the checked-out SGLang requires
  refs/heads/x, refs/tags/x    a branch or tag with the name of another, or of one of the two words
"""  # one line for each form


def _task(*options: str, examples: Sequence[str]) -> Callable[[F], F]:
    """Invoke's decorator, for these options; the function keeps its type."""

    def decorate(body: F) -> F:
        shown = "\n".join(f"  {line}" for line in examples)
        body.__doc__ = f"{body.__doc__}\n{_REFS if 'sglang_branch' in options else ''}\nExamples:\n{shown}"
        made: F = task(help={name: _OPTIONS[name] for name in options}, auto_shortflags=False)(body)
        return made

    return decorate


@_task(*_WHICH, examples=["invoke clone", "invoke clone --sglang-branch=latest --flashinfer-branch=matching"])
def clone(c: Context, sglang_branch: str = "", flashinfer_branch: str = "", full: bool = False) -> list[Outcome]:
    """Clone the repositories that are missing; an existing checkout is left alone."""
    from .run import run

    refs = {"sglang": sglang_branch, "flashinfer": flashinfer_branch}
    with run(c, "clone", refs, full=full) as this, this.report.step("clone"):
        this.clone()
    return this.steps["clone"]


@_task(*_WHICH, examples=["invoke update", "invoke update --flashinfer-branch=v0.6.7.post3", "invoke update --full"])
def update(c: Context, sglang_branch: str = "", flashinfer_branch: str = "", full: bool = False) -> list[Outcome]:
    """Bring the checkouts to their REF as the remote has it now; nothing of yours is lost."""
    from .run import run

    refs = {"sglang": sglang_branch, "flashinfer": flashinfer_branch}
    with run(c, "update", refs, full=full) as this, this.report.step("update"):
        this.update()
    return this.steps["update"]


@_task("deps", "reinstall", "python", examples=["invoke install", "invoke install --python ../other/bin/python"])
def install(c: Context, deps: bool = True, reinstall: bool = False, python: str = "") -> list[Outcome]:
    """Install both packages from their checkouts, editable, with what they require."""
    from .run import run

    with run(c, "install", {}, python=python) as this, this.report.step("install"):
        this.install(deps, reinstall)
    return this.steps["install"]


@_task("json", "strict", "python", examples=["invoke verify", "invoke verify --strict", "invoke verify --json"])
def verify(c: Context, json: bool = False, strict: bool = False, python: str = "") -> Verification:
    """Check everything, offline, and change nothing; the exit status is 1 if a check fails."""
    from .run import run

    with run(c, "verify", {}, python=python, quiet=json, looking=True) as this, this.report.step("verify"):
        found = this.verify(strict)
    return found


@_task(*_OPTIONS, examples=["invoke setup", "invoke setup --flashinfer-branch=matching", "invoke setup --no-deps"])
def setup(
    c: Context, sglang_branch: str = "", flashinfer_branch: str = "", full: bool = False,
    deps: bool = True, reinstall: bool = False, json: bool = False, strict: bool = False, python: str = "",
) -> Verification:  # fmt: skip
    """Clone, update, install and verify, in that order: from nothing to a working set-up."""
    from .run import run

    refs = {"sglang": sglang_branch, "flashinfer": flashinfer_branch}
    with run(c, "setup", refs, full=full, python=python, quiet=json) as this:
        with this.report.step("clone"):
            this.clone()
        with this.report.step("update"):
            this.update()
        with this.report.step("install"):
            this.install(deps, reinstall)
        with this.report.step("verify"):
            found = this.verify(strict)
        if this.dry:
            this.verification = None
    return found


namespace = Collection(clone, update, install, verify, setup)
namespace.configure({"sources": DEFAULTS})
_LATER = {
    "Check": "models", "Failed": "run", "Outcome": "models", "RepositoryState": "models", "Result": "models",
    "SourcesError": "errors", "Verification": "models",
}  # fmt: skip
__all__ = [
    "Check", "Failed", "Outcome", "RepositoryState", "Result", "SourcesError", "Verification",
    "clone", "install", "namespace", "setup", "update", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """The values that the tasks return and raise, imported when they are asked for (PEP 562)."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LATER[name]}", __name__), name)
