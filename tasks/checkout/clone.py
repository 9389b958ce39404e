"""Cloning what is missing: a checkout is complete or absent."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from .. import names
from ..errors import UsageError
from ..git import fetch, refs
from ..git.repository import Checkout
from ..models import Outcome, Repository
from . import directory, local_work, move, state
from .session import Session


def clone(session: Session, repository: Repository, *, strict: bool = True) -> Outcome:
    """Clone the repository if there is nothing at its path, which then holds a complete checkout or still nothing.

    With `strict` an existing checkout that is not at the REF given as an option is an error. In a dry run only the
    remote is asked. Raises UsageError for a REF that the remote does not have, NetworkError, DiskError, LocalWorkError
    for anything else at the path.
    """
    if checkout := state.find(repository):
        return _existing(session, checkout, strict)
    ref, origin = session.ref(repository)
    target = session.target(repository)
    directory.check_space(session.settings.directory, repository.name)
    commit = target.commit
    outcome = Outcome(repository.name, "would clone", ref, commit, ref_source=origin, resolved=target.resolved)
    if session.dry:
        session.reporter.event(repository.name, f"would clone {ref} ({commit[:10]})")
        return outcome
    checkout = _stage(session, repository)
    _fill(session, checkout, target)
    text = f"cloned: {checkout.record.shown} ({commit[:10]})"
    checkout.path.rename(repository.path)
    history = "" if session.full else "; its history begins here (--full has all of it)"
    session.reporter.event(repository.name, f"{text}{history}")
    cloned = Checkout(repository, repository.path / ".git")
    packed = fetch.packed_bytes(cloned.git_dir)
    return replace(outcome, action="cloned", version=session.version(cloned), bytes=packed)


def _stage(session: Session, repository: Repository) -> Checkout:
    """The staging directory of a clone; what an interrupted run has fetched into it is good."""
    staging = session.settings.directory / f".{repository.name}.partial"
    checkout = Checkout(replace(repository, path=staging), staging / ".git")
    if staging.exists() and not (checkout.is_linked and checkout.remote):
        shutil.rmtree(staging)
    staging.mkdir(exist_ok=True)
    for entry in staging.iterdir():  # files of another commit, perhaps; its objects are what counts
        if entry.is_dir() and not entry.is_symlink() and entry.name != ".git":
            shutil.rmtree(entry)
        elif entry.name != ".git":
            entry.unlink()
    return fetch.initialise(checkout)


def _fill(session: Session, checkout: Checkout, target: refs.Target) -> None:
    """Bring every object and check out the files; those of the superproject while its submodules are brought."""
    source = fetch.Source(session.network, session.full)
    try:
        fetch.bring(checkout, target, source)
    except UsageError:  # nothing that the next run could continue
        shutil.rmtree(checkout.path)
        raise
    if target.branch:
        checkout.git("symbolic-ref", "HEAD", f"{names.HEADS}{target.branch}")
        checkout.git("update-ref", f"{names.HEADS}{target.branch}", target.commit)
        move.follow(checkout, target.branch)
    else:
        checkout.git("update-ref", "--no-deref", "HEAD", target.commit)
    checkout = checkout.again()
    with ThreadPoolExecutor(1) as pool:
        files = pool.submit(checkout.git, "reset", "--quiet", "--hard", target.commit)
        moves = move.bring_submodules(checkout, target.commit, source)
        files.result()
    move.attach(moves, session.reporter)
    checkout.keep_record(move.record(checkout, target))
    session.bring_tags(checkout.again(), target)
    for written in (checkout, *(submodule.checkout for submodule in moves)):
        local_work.refresh(written)  # git does not trust an index as old as its files


def _existing(session: Session, checkout: Checkout, strict: bool) -> Outcome:
    repository, record, head = checkout.repository, checkout.record, checkout.head
    given = session.refs.get(repository.name)
    at = f"{record.shown or checkout.branch or 'a detached HEAD'} ({head[:10] or 'no commit yet'})"
    if strict and given not in (None, record.ref) and session.target(repository).commit != head:
        command = names.shell("invoke", "update", f"--{repository.name}-branch={given}")
        raise UsageError(f"{repository.name} is already cloned at {at}, not at {given}.", command=command)
    interrupted = "; an update was interrupted, `invoke update` finishes it" if record.moving else ""
    session.reporter.event(repository.name, f"already cloned at {at}{interrupted}")
    resolved = record.name if record.shown != record.ref else ""
    origin = state.kept_ref(repository, record)[1]
    version = session.version(checkout)
    return Outcome(repository.name, "already cloned", record.ref, head, version, ref_source=origin, resolved=resolved)
