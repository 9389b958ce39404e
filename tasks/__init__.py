"""Invoke tasks that set up SGLang and FlashInfer from source: clone, update, install and verify, or all with setup."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import task

from .config import DEFAULTS

if TYPE_CHECKING:
    from .model import Outcome
    from .verification import Verification

_REF = "branch, tag, commit id, or `latest` for the newest release"
_OPTIONS = {
    "sglang_branch": f"What to check out of SGLang: {_REF}. Default: the configured branch.",
    "flashinfer_branch": f"What to check out of FlashInfer: {_REF}, or `matching` for the one that SGLang requires.",
    "full": "Fetch whole histories and whole submodules.",
    "deps": "Install what the two packages require, too (the default).",
    "reinstall": "Install again what is installed already.",
    "python": "The interpreter of the environment to install into; default: the one that runs Invoke.",
    "json": "Print one JSON object instead of a report.",
    "strict": "Let warnings fail, too.",
}


def _help(*names: str) -> dict[str, str]:
    return {name: _OPTIONS[name] for name in names}


@task(help=_help("sglang_branch", "flashinfer_branch", "full"))
def clone(c: Context, sglang_branch: str = "", flashinfer_branch: str = "", full: bool = False) -> list[Outcome]:
    """Clone the repositories that are missing; an existing checkout is left alone."""
    from .run import finish, run

    with run(c, {"sglang": sglang_branch, "flashinfer": flashinfer_branch}, full=full) as this:
        with this.report.step("clone"):
            this.clone()
        return finish(this, "clone")


@task(help=_help("sglang_branch", "flashinfer_branch", "full"))
def update(c: Context, sglang_branch: str = "", flashinfer_branch: str = "", full: bool = False) -> list[Outcome]:
    """Bring the checkouts to their REF as the remote has it now; nothing of yours is lost."""
    from .run import finish, run

    with run(c, {"sglang": sglang_branch, "flashinfer": flashinfer_branch}, full=full) as this:
        with this.report.step("update"):
            this.update()
        return finish(this, "update")


@task(help=_help("deps", "reinstall", "python"))
def install(c: Context, deps: bool = True, reinstall: bool = False, python: str = "") -> list[Outcome]:
    """Install both packages from their checkouts, editable, with what they require."""
    from .run import finish, run

    with run(c, {}, python=python) as this:
        with this.report.step("install"):
            this.install(deps, reinstall)
        return finish(this, "install")


@task(help=_help("json", "strict", "python"))
def verify(c: Context, json: bool = False, strict: bool = False, python: str = "") -> Verification:
    """Check everything, offline, and change nothing; the exit status is 1 if a check fails."""
    from .run import Failed, run

    with run(c, {}, python=python, quiet=json, looking=True) as this:
        found = this.verify(strict)
        if json:
            this.report.verification(found)
        else:
            this.report.checks(found.checks, strict)
    if not found.ok:
        raise Failed(1, verification=found)
    return found


@task(help=_OPTIONS)
def setup(
    c: Context, sglang_branch: str = "", flashinfer_branch: str = "", full: bool = False,
    deps: bool = True, reinstall: bool = False, json: bool = False, strict: bool = False, python: str = "",
) -> Verification:  # fmt: skip
    """Clone, update, install and verify, in that order: from nothing to a working set-up."""
    from .run import Failed, run

    refs = {"sglang": sglang_branch, "flashinfer": flashinfer_branch}
    with run(c, refs, full=full, python=python, quiet=json) as this:
        with this.report.step("clone"):
            this.clone()
        with this.report.step("update"):
            this.update()
        with this.report.step("install"):
            this.install(deps, reinstall)
        with this.report.step("verify"):
            found = this.verify(strict)
            if json:
                this.report.verification(found)
            else:
                this.report.checks(found.checks, strict)
        this.report.summary(this.steps, found.checks)
    status = this.failure.status if this.failure else 1
    if this.failure or not found.ok:
        raise Failed(status, [each for step in this.steps.values() for each in step], found)
    return found


namespace = Collection(clone, update, install, verify, setup)
namespace.configure({"sources": DEFAULTS})
__all__ = ["clone", "install", "namespace", "setup", "update", "verify"]
