"""Updating a checkout to what its REF is on the remote now, or leaving it as it is where that would lose something."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import LocalWorkError
from ..git import (
    GITLINK,
    Advertised,
    LocalRepository,
    Target,
    head_of,
    is_full,
    linked_git_dir,
    move_aside,
    read_tree,
    release,
    run,
)
from ..models import Outcome, Repository
from .download import Commit, Download
from .local_work import (
    check_branch,
    check_commits,
    check_conflicts,
    check_local_work,
    check_operation,
    check_submodule_work,
    check_untracked,
    read_changes,
)
from .recovery import make_consistent
from .session import Session
from .space import check_space, cost, in_words
from .state import Checkout, Record, read_checkout, read_record, require_checkout, write_record
from .switch import (
    check_out,
    check_out_submodules,
    check_removal,
    move_branch,
    remove_submodule,
    set_branch,
    set_tags,
    switch,
)


def update(session: Session, repository: Repository) -> Outcome:
    """Move the checkout to what its REF is on the remote now.

    Only objects are downloaded until nothing is left that could fail but the disk; in a dry run only the remote is
    asked. Raises LocalWorkError where something would be lost, UsageError for a REF that the remote does not have,
    NetworkError, DiskError.
    """
    checkout = require_checkout(repository)
    local = session.local(repository)
    if not session.dry and (checkout.record.moving or _interrupted_submodules(local)):
        checkout = _finish(session, local, checkout)
    ref, source = session.ref(repository)
    advertised, target = session.advertised(repository), session.target(repository, ref)
    version = session.version(repository, checkout.head, checkout.tags)
    done = Outcome(
        repository.name, "up to date", ref, checkout.head, version, ref_source=source, resolved=target.resolved
    )
    if is_current(session, local, checkout, target, advertised):
        record = Record(ref, repository.branch, target.kind, target.name, target.commit)
        if not session.dry:
            write_record(local.git_dir, record)
        session.reporter.event(repository.name, f"up to date: {record.shown} ({checkout.head[:10]})")
        return done
    done = replace(done, commit=target.commit, before_commit=checkout.head, before_ref=checkout.record.ref)
    full = session.full or is_full(local)
    check_cost(session, repository)
    check_branch(local, target.branch, checkout.now.branches)
    known = [checkout.record.commit, *advertised.heads.values(), *advertised.tags.values()]
    check_local_work(local, target.branch, known)
    if session.dry:
        session.reporter.event(repository.name, f"would update {checkout.head[:10]} → {target.commit[:10]}")
        return replace(done, action="would update", version="")
    download = Download(session.settings.cache, full)
    commit = download.commit(local, target, advertised, [checkout.head])
    commit = download.rest(commit, advertised, checkout.now.refs)
    for submodule in commit.submodules:
        _check_submodule(submodule)
    check_local_work(local, target.branch, known)  # again: the user may have worked while that took its time
    check_untracked(local, commit.tree)
    for path in _submodules_to_remove(local, checkout.head, commit):
        remove_submodule(local, path)
    check_out(commit)
    set_tags(local, checkout.now.refs, target, advertised)
    set_branch(local, checkout.now.refs, target)
    if target.branch:
        move_branch(local, target, checkout.now.branches.get(target.branch, ""))
    check_out_submodules(commit)
    write_record(local.git_dir, replace(commit.record, configured=repository.branch))
    shown = f"{checkout.record.shown} → {commit.record.shown}"
    named = shown if checkout.record.shown not in ("", commit.record.shown) else commit.record.shown
    session.reporter.event(repository.name, f"updated: {named} ({checkout.head[:10]} → {target.commit[:10]})")
    after = session.version(repository, target.commit, {**checkout.tags, **advertised.releases})
    return replace(done, action="updated", version=after, before_version=version, bytes=commit.bytes)


def is_current(
    session: Session, local: LocalRepository, checkout: Checkout, target: Target, advertised: Advertised
) -> bool:
    """Whether nothing is to be done: the commit, its branch, the version tags and all submodules are there."""
    refs = checkout.now.refs
    tags = all(refs.get(f"refs/tags/{tag}", ("",))[0] == oid for tag, oid in advertised.tags.items() if release(tag))
    if (checkout.head, checkout.now.branch) != (target.commit, target.branch) or not tags or checkout.record.moving:
        return False
    if session.full and not is_full(local):
        return False
    return all(head_of(local.path / path) == oid for path, oid in gitlinks(local.path, checkout.head).items())


def gitlinks(path: Path, commit: str) -> dict[str, str]:
    """Path -> commit of the submodules of a commit in the checkout at `path`."""
    return {name: entry.oid for name, entry in read_tree(path, commit).items() if entry.mode == GITLINK}


def check_cost(session: Session, repository: Repository) -> None:
    """Say what a full history costs where one is asked for. Raises DiskFullError where too little space is free."""
    costs = cost(repository.name)
    if session.full:
        moved, disk = in_words(costs.full_moved), in_words(costs.full_disk)
        session.reporter.event(repository.name, f"the full history moves about {moved} and takes {disk} (an estimate)")
    check_space(session.settings, costs.full_disk if session.full else costs.slim_disk, repository.name)


def _finish(session: Session, local: LocalRepository, checkout: Checkout) -> Checkout:
    """Finish an interrupted switch with what is here. Raises LocalWorkError where the user's work is in the way."""
    session.reporter.event(local.who, "finishing an interrupted update")
    record = checkout.record
    for commit in filter(None, (checkout.head, record.moving)):
        for path in gitlinks(local.path, commit):  # a link that git had begun to write stops every command
            link, git_dir = local.path / path / ".git", linked_git_dir(local.path / path)
            if link.is_file() and not link.is_symlink() and git_dir and not (git_dir / "HEAD").exists():
                link.unlink() if not link.read_bytes().endswith(b"\n") else None
    if record.moving:
        _resume(local, checkout.head, record.moving)
        write_record(local.git_dir, replace(record, commit=record.moving, moving=""))
    for submodule in _interrupted_submodules(local):
        moving = read_record(submodule.git_dir).moving
        _resume(submodule, head_of(submodule.path), moving)
        write_record(submodule.git_dir, replace(read_record(submodule.git_dir), commit=moving, moving=""))
    return read_checkout(checkout.repository)


def _resume(local: LocalRepository, head: str, moving: str) -> None:
    check_commits(local, "", [read_record(local.git_dir).commit, moving])
    check_operation(local)
    check_conflicts(local, read_changes(local.path))
    make_consistent(local, head, moving)
    switch(local, moving)


def _interrupted_submodules(local: LocalRepository) -> list[LocalRepository]:
    """The submodules, also of submodules, whose files are there and whose switch was interrupted."""
    found = []
    for record in (local.git_dir / "modules").rglob("sources.json"):
        if read_record(record.parent).moving:
            worktree = run(record.parent, "config", "core.worktree", check=False)
            place = (record.parent / worktree).resolve()
            if linked_git_dir(place) == record.parent.resolve():
                who = f"{local.who}/{place.relative_to(local.path.resolve())}"
                found.append(replace(local, path=place, git_dir=record.parent, who=who))
    return found


def _check_submodule(commit: Commit) -> None:
    """Raise LocalWorkError where checking out this submodule would lose something."""
    repository = commit.repository
    if not commit.is_checked_out:
        if head_of(repository.path):
            check_submodule_work(repository)
            check_untracked(repository, commit.tree)
            if branch := repository.git("symbolic-ref", "--quiet", "--short", "HEAD", check=False):
                repository.network.reporter.event(repository.who, f"HEAD leaves the branch {branch}, which stays")
        elif linked_git_dir(repository.path):
            what = f"{repository.who}: {repository.path} is a repository without a commit."
            raise LocalWorkError(what, command=move_aside(repository.path))
        else:
            known = [read_record(repository.git_dir).commit]
            check_commits(replace(repository, path=repository.git_dir), "", known)
    for each in commit.submodules:
        _check_submodule(each)


def _submodules_to_remove(local: LocalRepository, head: str, commit: Commit) -> list[str]:
    """The paths of submodules that the new commit does not have and that hold nothing of the user's. Raises
    LocalWorkError for one that does where its files or its repository are in the way."""
    links = {path for path, entry in commit.tree.items() if entry.mode == GITLINK}
    needed = {each.repository.git_dir.resolve() for each in commit.submodules}
    found = []
    for path in gitlinks(local.path, head).keys() - links:
        try:
            check_removal(local, path)
            found.append(path)
        except LocalWorkError as error:
            in_the_way = any(each == path or each.startswith(f"{path}/") for each in commit.tree)
            if in_the_way or linked_git_dir(local.path / path) in needed:
                raise
            local.network.reporter.warn(local.who, error.what)
    return found
