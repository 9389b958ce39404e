"""Updates checkouts: each is moved, or left alone where going on would lose something."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from ..errors import NetworkError, SourcesError, UsageError
from ..git.command import run
from ..git.fetch import Entry, Remote, close_history, read_tree
from ..git.packs import read_shallow
from ..git.revisions import Advertised, Target, release
from ..git.submodules import GITLINK, declared, head_of
from ..models import Outcome, Repository
from .download import Bringer, Brought
from .local_work import check_changes, check_commits, check_names, check_place, check_room, clear_left_overs, vacated
from .record import read_record, write_record
from .session import Session
from .state import Checkout, read_checkout
from .switch import check_unfinished, move
from .work import check_cost, not_cloned, outcome_of, planned, set_refs, show


def update(session: Session, repository: Repository) -> Outcome:
    """Move the checkout to what its REF is on the remote now, or leave it as it is.

    Raises LocalWorkError where something would be lost, and what `clone` raises. Only objects have come until nothing
    is left that could fail but the disk; a move that was cut off is finished by the next update.
    """
    if not (here := check_place(repository)):
        raise not_cloned(repository)
    remote = _remote(session, here)
    clear_left_overs(remote)
    try:
        return _update(session, repository, remote, here)
    except SourcesError:
        show(session, here)
        raise


def _update(session: Session, repository: Repository, remote: Remote, here: Checkout) -> Outcome:
    target, advertised = session.target(repository), session.advertised(repository)
    if _is_current(session, here, target, advertised):
        show(session, here)
        write_record(remote.git_dir, replace(here.record, ref=target.ref, configured=repository.branch))
        session.reporter.event(repository.name, f"is up to date at {here.head[:10]}")
        return outcome_of(here, "up to date", target.ref)
    old = outcome_of(here, "", "")
    was_full = _is_full(here)
    full = session.full or was_full
    if read_shallow(remote.git_dir):
        close_history(remote, {*advertised.heads.values(), *map(advertised.commit, advertised.tags)})
    check_cost(session, repository, full=was_full)
    before = read_tree(remote, here.head) if here.head else {}
    if here.record.moving:
        before = {**read_tree(remote, here.record.moving), **before}  # some of its files may be here
    with ThreadPoolExecutor(1) as pool:
        own = pool.submit(_check_own_work, remote, here, target, advertised)
        if full:  # no need to wait for a history that is then of no use
            own.result()

        def check(tree: Mapping[str, Entry]) -> None:
            own.result()
            check_room(remote, before, tree)

        metadata = partial(session.show, repository.name)
        bringer = Bringer(session.settings.cache, full, metadata, check)
        try:
            brought = bringer.bring(remote, target, advertised, [here.head] if here.head else [])
        except (NetworkError, UsageError):
            own.result()  # what is in the way comes first, in the order of work
            raise
    for submodule in brought.below():
        _check_submodule(submodule)
    room = vacated(remote, before, brought.tree)
    _check_commits(remote, here, target, advertised)  # again: one may have been made while all that came
    set_refs(remote, here.refs, target, advertised)
    move(brought, repository.branch, room)
    now = read_checkout(repository)
    moved_to = f"{here.head[:10]} → {now.head[:10]}{_between(remote, here.head, now.head)}"
    session.reporter.event(
        repository.name, moved_to if now.head != here.head else f"is complete now at {now.head[:10]}"
    )
    outcome = outcome_of(now, "updated", target.ref)
    return replace(outcome, moved=brought.moved, before=old.commit, before_version=old.version)


def plan_update(session: Session, repository: Repository) -> Outcome:
    """What `update` would do; asks the remote and changes nothing. Raises what it raises, as far as can be told."""
    if not (here := check_place(repository)):
        raise not_cloned(repository)
    show(session, here)
    plan = planned(session, repository, "would update")
    if not plan.commit:
        return plan
    target = session.target(repository)
    advertised = session.advertised(repository)
    if _is_current(session, here, target, advertised):
        return outcome_of(here, "up to date", target.ref)
    _check_own_work(_remote(session, here), here, target, advertised)
    session.reporter.event(repository.name, f"{here.head[:10]} → {target.commit[:10]}")
    return plan


def _is_current(session: Session, here: Checkout, target: Target, advertised: Advertised) -> bool:
    placed = here.head == target.commit and here.branch == (target.name if target.kind == "branch" else "")
    tags = all(here.tags.get(tag, ("",))[0] == oid for tag, oid in advertised.tags.items() if release(tag))
    if not placed or not tags or here.record.moving or (session.full and not _is_full(here)):
        return False
    tree = read_tree(_remote(session, here), here.head)
    links = {path: tree[path].oid for path in declared(here.path, tree) if path in tree and tree[path].mode == GITLINK}
    return all(head_of(here.path / path) == oid for path, oid in links.items())


def _check_own_work(remote: Remote, here: Checkout, target: Target, advertised: Advertised) -> None:
    if here.record.moving:
        check_unfinished(remote, here.record.moving)
    else:
        check_changes(remote)
    _check_commits(remote, here, target, advertised)
    if target.kind == "branch":
        check_names(here, target.name)


def _check_commits(remote: Remote, here: Checkout, target: Target, advertised: Advertised) -> None:
    known = [here.record.commit, here.record.moving, *advertised.heads.values(), *advertised.tags.values()]
    check_commits(remote, target.name if target.kind == "branch" else "", known)


def _check_submodule(brought: Brought) -> None:
    """Raise LocalWorkError where moving this submodule would lose something."""
    remote, record = brought.remote, read_record(brought.remote.git_dir)
    if brought.settled:
        return
    head = head_of(remote.path)
    if not head:  # its files are gone, its commits are not
        return check_commits(replace(remote, path=remote.git_dir), "", [record.commit, record.moving])
    before = read_tree(remote, head)
    if record.moving:
        check_unfinished(remote, record.moving, brought.folders)
        before = {**read_tree(remote, record.moving), **before}
    else:
        check_changes(remote)
    check_commits(remote, "", [record.commit, record.moving])
    check_room(remote, before, brought.tree)


def _between(remote: Remote, old: str, new: str) -> str:
    if read_shallow(remote.git_dir) or not old:
        return ""
    count = run(remote.path, "rev-list", "--count", f"{old}..{new}", check=False)
    return f", {count} commits later" if count else ""


def _remote(session: Session, here: Checkout) -> Remote:
    return Remote(here.path, here.git_dir, here.repository.name, here.repository.url, session.network)


def _is_full(here: Checkout) -> bool:
    return bool(here.head) and not read_shallow(here.git_dir)
