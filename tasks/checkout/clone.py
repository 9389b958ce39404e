"""Cloning what is missing: a checkout is complete or absent."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from .. import names
from ..errors import UsageError
from ..git import fetch, refs
from ..git.repository import Checkout
from ..models import Outcome, Repository
from . import directory, plan, recovery, state, switch
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
    try:
        _fill(session, checkout, target)
    except UsageError:  # nothing that the next run could continue
        _remove(checkout.path)
        raise
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
        _remove(staging)
    staging.mkdir(exist_ok=True)
    fetch.initialise(checkout)
    return checkout.again()


def _fill(session: Session, checkout: Checkout, target: refs.Target) -> None:
    """Bring every object and check out the files; those of the superproject while its submodules are brought."""
    source = fetch.Source(session.network, session.full)
    fetch.bring(checkout, target, source)
    if target.branch:
        checkout.git("symbolic-ref", "HEAD", f"{names.HEADS}{target.branch}")
        checkout.git("update-ref", f"{names.HEADS}{target.branch}", target.commit)
        switch.follow(checkout, target.branch)
    else:
        checkout.git("update-ref", "--no-deref", "HEAD", target.commit)
    move = plan.Move(checkout.again(), target)
    with ThreadPoolExecutor(1) as pool:
        files = pool.submit(checkout.git, "reset", "--quiet", "--hard", target.commit)
        move = plan.bring_submodules(move, source)
        files.result()
    missing = [submodule for submodule in move.submodules if not submodule.is_done]
    for submodule in missing:
        _remove(submodule.checkout.path)  # of an interrupted run
    switch.attach(missing, checkout, session.reporter)
    checkout.keep_record(move.record)
    fetch.bring_tag(checkout.again(), target, source)
    fetch.bring_release_tag(checkout.again(), session.advertised(checkout.repository), source)


def _existing(session: Session, checkout: Checkout, strict: bool) -> Outcome:
    repository, record, head = checkout.repository, checkout.record, checkout.head
    given = session.refs.get(repository.name)
    at = f"{record.shown or checkout.branch or 'a detached HEAD'} ({head[:10] or 'no commit yet'})"
    is_elsewhere = strict and given and (given != record.ref or head != record.commit)
    if is_elsewhere and given and session.target(repository).commit != head:
        command = names.shell("invoke", "update", f"--{repository.name}-branch={given}")
        raise UsageError(f"{repository.name} is already cloned at {at}, not at {given}.", command=command)
    interrupted = "; an update was interrupted, `invoke update` finishes it" if recovery.interrupted(checkout) else ""
    session.reporter.event(repository.name, f"already cloned at {at}{interrupted}")
    resolved = record.name if record.shown != record.ref else ""
    origin = state.kept_ref(repository, record)[1]
    version = session.version(checkout)
    return Outcome(repository.name, "already cloned", record.ref, head, version, ref_source=origin, resolved=resolved)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
