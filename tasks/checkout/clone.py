"""Clones what is missing: each checkout is whole or absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..git.fetch import Remote, initialise
from ..git.packs import Cache
from ..models import Outcome, Repository
from .download import Bringer
from .local_work import check_place
from .session import Session
from .state import read_checkout
from .switch import move, place, settle
from .work import check_cost, outcome_of, planned, set_refs, show


def clone(session: Session, repository: Repository) -> Outcome:
    """Clone the repository if there is nothing at its path, which then holds a whole checkout or still nothing.

    Raises UsageError for a REF that the remote does not have, NetworkError, DiskError, LocalWorkError for what is there
    and is no checkout of the repository.
    """
    if here := check_place(repository):
        show(session, here)
        interrupted = " (an update was cut off; `invoke update` finishes it)" if here.record.moving else ""
        session.reporter.event(repository.name, f"is there already{interrupted}")
        return outcome_of(here, "present", here.record.ref)
    target, advertised = session.target(repository), session.advertised(repository)
    check_cost(session, repository, full=False)
    staging = session.settings.directory / f".{repository.name}.partial"
    if staging.exists():  # of a run that was killed; what it brought is good
        Cache(session.settings.cache, repository.url).give(staging / ".git")
        _remove(staging)
    try:
        initialise(staging, repository.url)
        remote = Remote(staging, staging / ".git", repository.name, repository.url, session.network)

        def check_out(submodules: Iterable[str]) -> None:
            for path in submodules:  # git may find one there or not, but not while it comes
                (staging / path).mkdir(parents=True, exist_ok=True)
            set_refs(remote, {}, target, advertised)
            place(remote, target, None)

        metadata = partial(session.show, repository.name)
        bringer = Bringer(session.settings.cache, session.full, metadata, complete=check_out, arrived=move)
        brought = bringer.bring(remote, target, advertised, ())
        settle(brought, repository.branch)
        for each in (brought, *brought.below()):  # nobody else wrote here, so git need not read again what it wrote
            os.utime(each.remote.git_dir / "index")  # within the second before it (gitformat-index(5), racy entries)
        staging.rename(repository.path)
    except BaseException:
        _remove(staging)
        raise
    session.reporter.event(repository.name, f"cloned {target.ref} at {target.commit[:10]}")
    return replace(outcome_of(read_checkout(repository), "cloned", target.ref), moved=brought.moved)


def plan_clone(session: Session, repository: Repository) -> Outcome:
    """What `clone` would do; asks the remote and changes nothing. Raises what it raises."""
    if here := check_place(repository):
        show(session, here)
        return outcome_of(here, "present", here.record.ref)
    return planned(session, repository, "would clone")


def _remove(folder: Path) -> None:
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
