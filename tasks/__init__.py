"""Invoke tasks that set up SGLang and FlashInfer from source: clone, update, install, verify, and setup for all four."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from invoke import Collection, Context, Exit, task

from .config import DEFAULTS
from .errors import SourcesError

if TYPE_CHECKING:
    from .model import Outcome, Settings
    from .report import Report
    from .session import Session

ROOT = Path(__file__).resolve().parent.parent
REF = "a branch, a tag, a commit id, `latest` (the newest release)"


class Failed(Exit):
    """A task did not reach its aim. `code` is the exit status, `outcomes` what happened to each repository."""

    def __init__(self, code: int, outcomes: Sequence[Outcome] = ()) -> None:
        super().__init__(code=code)
        self.outcomes = list(outcomes)


@task(help={
    "sglang_branch": f"What to check out of SGLang: {REF}. Default: the configured branch.",
    "flashinfer_branch": f"What to check out of FlashInfer: {REF}, or `matching` (the release that SGLang requires).",
    "full": "Fetch whole histories and whole submodules.",
})
def clone(c: Context, sglang_branch: str = "", flashinfer_branch: str = "", full: bool = False) -> list[Outcome]:
    """Clone the repositories that are missing; an existing checkout is left alone."""
    from . import checkout

    with _session(c, sglang_branch, flashinfer_branch, full) as (session, report), report.step("clone"):
        return _done("clone", checkout.each(session, checkout.clone), report)


@task(help=clone.help)
def update(c: Context, sglang_branch: str = "", flashinfer_branch: str = "", full: bool = False) -> list[Outcome]:
    """Bring the checkouts to their REF as the remote has it now; nothing of yours is lost."""
    from . import checkout

    with _session(c, sglang_branch, flashinfer_branch, full) as (session, report), report.step("update"):
        return _done("update", checkout.each(session, checkout.update), report)


def _settings(c: Context) -> Settings:
    from .config import load

    return load(c.config.get("sources", DEFAULTS), ROOT)


@contextmanager
def _session(c: Context, sglang: str, flashinfer: str, full: bool) -> Iterator[tuple[Session, Report]]:
    """The session of one task, alone in its folder. What a user can cause ends here, as one message and a status."""
    from .git import check_version
    from .lock import turn
    from .refs import check_ref
    from .report import Report
    from .session import Session

    run: dict[str, Any] = c.config.get("run", {})
    with Report(hide=run.get("hide"), echo=bool(run.get("echo"))) as report:
        try:
            settings = _settings(c)
            refs = {name: check_ref(ref) for name, ref in (("sglang", sglang), ("flashinfer", flashinfer)) if ref}
            check_version()
            with turn(settings.directory, report):
                yield Session(settings, report, refs, full), report
        except SourcesError as error:
            report.fail(error)
            raise Failed(error.status) from None


def _done(name: str, outcomes: list[Outcome], report: Report) -> list[Outcome]:
    report.outcomes(name, outcomes)
    failures = [outcome.error for outcome in outcomes if outcome.error]
    if failures:
        raise Failed(failures[0].status, outcomes)
    return outcomes


namespace = Collection(clone, update)
namespace.configure({"sources": DEFAULTS})
__all__ = ["Failed", "clone", "namespace", "update"]
_ = cast
