"""Updating a checkout to what its REF is on the remote now, or leaving it as it is where that would lose something."""

from __future__ import annotations

from dataclasses import replace

from .. import names
from ..errors import LocalWorkError
from ..git import fetch, refs
from ..git.repository import Checkout
from ..models import Outcome, Repository
from . import local_work, move, recovery, state
from .session import Session


def update(session: Session, repository: Repository) -> Outcome:
    """Move the checkout to what its REF is on the remote now.

    A branch of the user's own is left as it is, unless the REF is given as an option. Only objects are downloaded until
    nothing is left that could fail but the disk; in a dry run only the remote is asked. Raises LocalWorkError where
    something would be lost, UsageError for a REF that the remote does not have, NetworkError, DiskError.
    """
    checkout = state.require(repository)
    is_interrupted = bool(checkout.record.moving)
    if is_interrupted and not session.dry:
        session.reporter.event(repository.name, "finishing an interrupted update")
        checkout = recovery.finish(checkout, session.reporter)
    packed, version = fetch.packed_bytes(checkout.git_dir), session.version(checkout)
    ref, origin = session.ref(repository)
    target = session.target(repository)
    outcome = Outcome(repository.name, "up to date", ref, checkout.head, ref_source=origin, resolved=target.resolved)
    if origin not in ("option", "lock file") and state.is_users_branch(checkout, target.branch):
        outcome = _keep_branch(session, checkout, target, outcome)
    elif not is_interrupted and _is_current(session, checkout, target):
        record = move.record(checkout, target)
        if not session.dry:
            checkout.keep_record(record)
        session.reporter.event(checkout.name, f"up to date: {record.shown} ({checkout.head[:10]})")
    else:
        outcome = _move(session, checkout, target, outcome)
    if session.dry:
        return replace(outcome, version=version if outcome.action == "up to date" else "")
    session.bring_tags(checkout.again(), target)
    moved = fetch.packed_bytes(checkout.git_dir) - packed
    is_same = not moved and outcome.action != "updated"
    after = version if is_same else session.version(checkout.again())
    return replace(outcome, bytes=moved, version=after, before_version="" if is_same else version)


def _is_current(session: Session, checkout: Checkout, target: refs.Target) -> bool:
    """Whether nothing is to be done: the commit, its branch and all submodules are there."""
    if (checkout.head, checkout.branch) != (target.commit, target.branch):
        return False
    if session.full and not state.is_full(checkout):
        return False
    return not state.submodule_faults(checkout, files=False)


def _keep_branch(session: Session, checkout: Checkout, target: refs.Target, outcome: Outcome) -> Outcome:
    """Fetch, leave the user's branch as it is, and say where the REF is."""
    if not session.dry:
        fetch.bring(checkout, target, session.source(checkout))
    name = f"{checkout.remote}/{target.branch}" if target.branch else target.name or target.commit
    rebase = names.shell("git", "-C", checkout.path, "rebase", name)
    shown = move.record(checkout, target).shown
    text = f"kept: your branch {checkout.branch}; {shown} is at {target.commit[:10]} ({rebase})"
    session.reporter.event(checkout.name, text)
    return replace(outcome, action="kept")


def _move(session: Session, checkout: Checkout, target: refs.Target, outcome: Outcome) -> Outcome:
    """Bring every object, then move the checkout; before and after it is looked for what could be lost."""
    if not checkout.head:
        what = f"{checkout.name}: the branch {checkout.branch} in {checkout.path} has no commit yet."
        raise LocalWorkError(what, "Commit something, or move the directory away.", label="no commit yet")
    outcome = replace(outcome, commit=target.commit, before_commit=checkout.head, before_ref=checkout.record.ref)
    was, tracked = checkout.record, checkout.refs.get(checkout.tracking(target.branch))
    before = tracked.commit if tracked else ""
    problems = local_work.problems(checkout, target.branch, [target.commit])
    if problems:  # those of submodules come together with them
        problems += state.problems_of_submodules(checkout)
    local_work.refuse(problems)
    if session.dry:
        session.reporter.event(checkout.name, f"would update {checkout.head[:10]} → {target.commit[:10]}")
        return replace(outcome, action="would update")
    source = session.source(checkout)
    fetch.bring(checkout, target, source)
    moving = checkout.again()
    moves = move.bring_submodules(moving, target.commit, source)
    local_work.refuse([*move.problems(moving, target, before, moves)])
    move.carry_out(moving, target, moves, session.reporter)
    shown = move.record(checkout, target).shown
    shown = f"{was.shown} → {shown}" if was.shown not in ("", shown) else shown
    commits = dict.fromkeys((checkout.head[:10], target.commit[:10]))  # one where only submodules have moved
    session.reporter.event(checkout.name, f"updated: {shown} ({' → '.join(commits)})")
    return replace(outcome, action="updated")
