"""Clones and updates checkouts: each whole or absent, each left alone where going on would lose something."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from .bring import Bringer, Brought
from .errors import DiskError, LocalWorkError, NetworkError, SourcesError, UsageError
from .fetch import Entry, Remote, close_history, initialise, read_tree
from .git import begin, cancel, run
from .layouts import cost
from .model import Outcome, Repository
from .move import check_unfinished, move, place, settle
from .objects import Cache, read_shallow
from .protect import check_changes, check_commits, check_names, check_place, check_room, clear_left_overs, vacated
from .record import read_record, write_record
from .refs import TAGS, Advertised, Target, release, same_place
from .session import Session
from .space import DiskFullError, check_space, in_words, removable
from .state import Checkout, read_checkout
from .submodules import GITLINK, declared, head_of

Task = Callable[[Session, Repository], Outcome]


def each(session: Session, task: Task) -> list[Outcome]:
    """Do the task to all repositories at once. What fails for one becomes its outcome and does not stop the others."""

    def guarded(repository: Repository) -> Outcome:
        started = time.monotonic()
        try:
            outcome = task(session, repository)
        except (SourcesError, OSError) as caught:
            error = caught if isinstance(caught, SourcesError) else _disk_error(repository, caught)
            if isinstance(error, DiskFullError):
                error = error.counted(
                    session.settings.directory, _needed(session, repository), removable(session.settings)
                )
            action = "left alone" if isinstance(error, LocalWorkError) else "failed"
            outcome = Outcome(repository.name, action, session.ref(repository), error=error)
        finally:
            session.give_up(repository.name, SourcesError(f"{repository.name} could not be read."))
        return replace(outcome, seconds=time.monotonic() - started)

    begin()
    session.begin()
    with ThreadPoolExecutor(max(1, len(session.settings.repositories))) as pool:
        futures = [pool.submit(guarded, repository) for repository in session.settings.repositories]
        try:
            return [future.result() for future in futures]
        except BaseException:
            cancel()
            raise


def not_cloned(repository: Repository) -> SourcesError:
    """What to raise where a checkout is needed and there is none."""
    return SourcesError(f"{repository.name} is not cloned.", "invoke clone")


def clone(session: Session, repository: Repository) -> Outcome:
    """Clone the repository if there is nothing at its path, which then holds a whole checkout or still nothing.

    Raises UsageError for a REF that the remote does not have, NetworkError, DiskError, LocalWorkError for what is there
    and is no checkout of the repository.
    """
    if here := check_place(repository):
        _show(session, here)
        interrupted = " (an update was cut off; `invoke update` finishes it)" if here.record.moving else ""
        session.listener.event(repository.name, f"is there already{interrupted}")
        return _outcome(here, "present", here.record.ref)
    target, advertised = session.target(repository), session.advertised(repository)
    _check_cost(session, repository, full=False)
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
            _set_refs(remote, {}, target, advertised)
            place(remote, target, None)

        show = partial(session.show, repository.name)
        bringer = Bringer(session.settings.cache, session.full, show, lambda tree: None, check_out, move)
        brought = bringer.bring(remote, target, advertised, ())
        settle(brought, repository.branch)
        staging.rename(repository.path)
    except BaseException:
        _remove(staging)
        raise
    session.listener.event(repository.name, f"cloned {target.ref} at {target.commit[:10]}")
    return replace(_outcome(read_checkout(repository), "cloned", target.ref), moved=brought.moved)


def plan_clone(session: Session, repository: Repository) -> Outcome:
    """What `clone` would do; asks the remote and changes nothing. Raises what it raises."""
    if here := check_place(repository):
        _show(session, here)
        return _outcome(here, "present", here.record.ref)
    return _plan(session, repository, "would clone")


def plan_update(session: Session, repository: Repository) -> Outcome:
    """What `update` would do; asks the remote and changes nothing. Raises what it raises, as far as can be told."""
    if not (here := check_place(repository)):
        raise not_cloned(repository)
    _show(session, here)
    planned = _plan(session, repository, "would update")
    if not planned.commit:
        return planned
    target = session.target(repository)
    advertised = session.advertised(repository)
    if _is_current(session, here, target, advertised):
        return _outcome(here, "up to date", target.ref)
    _check_own_work(_remote(session, here), here, target, advertised)
    session.listener.event(repository.name, f"{here.head[:10]} → {target.commit[:10]}")
    return planned


def _plan(session: Session, repository: Repository, action: str) -> Outcome:
    try:
        target = session.target(repository)
    except LocalWorkError:  # what `matching` is cannot be known before SGLang is cloned
        return Outcome(repository.name, action, session.ref(repository))
    return Outcome(repository.name, action, target.ref, target.commit)


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
        _show(session, here)
        raise


def _update(session: Session, repository: Repository, remote: Remote, here: Checkout) -> Outcome:
    target, advertised = session.target(repository), session.advertised(repository)
    if _is_current(session, here, target, advertised):
        _show(session, here)
        write_record(remote.git_dir, replace(here.record, ref=target.ref, configured=repository.branch))
        session.listener.event(repository.name, f"is up to date at {here.head[:10]}")
        return _outcome(here, "up to date", target.ref)
    old = _outcome(here, "", "")
    full = session.full or _is_full(here)
    if read_shallow(remote.git_dir):
        close_history(remote, {*advertised.heads.values(), *advertised.tags.values(), *advertised.peeled.values()})
    _check_cost(session, repository, full=_is_full(here))
    before = read_tree(remote, here.head) if here.head else {}
    if here.record.moving:
        before = {**read_tree(remote, here.record.moving), **before}  # some of its files may be here
    with ThreadPoolExecutor(1) as pool:
        own = pool.submit(_check_own_work, remote, here, target, advertised)

        def check(tree: Mapping[str, Entry]) -> None:
            own.result()
            check_room(remote, before, tree)

        show = partial(session.show, repository.name)
        bringer = Bringer(session.settings.cache, full, show, check, lambda paths: None, lambda submodule: None)
        try:
            brought = bringer.bring(remote, target, advertised, [here.head] if here.head else [])
        except (NetworkError, UsageError):
            own.result()  # what is in the way comes first, in the order of work
            raise
    for submodule in brought.below():
        _check_submodule(submodule)
    room = vacated(remote, before, brought.tree)
    _set_refs(remote, here.refs, target, advertised)
    move(brought, repository.branch, room)
    now = read_checkout(repository)
    moved_to = f"{here.head[:10]} → {now.head[:10]}{_between(remote, here.head, now.head)}"
    session.listener.event(
        repository.name, moved_to if now.head != here.head else f"is complete now at {now.head[:10]}"
    )
    outcome = _outcome(now, "updated", target.ref)
    return replace(outcome, moved=brought.moved, before=old.commit, before_version=old.version)


def _remote(session: Session, here: Checkout) -> Remote:
    return Remote(here.path, here.git_dir, here.repository.name, here.repository.url, session.network)


def _is_full(here: Checkout) -> bool:
    return bool(here.head) and not read_shallow(here.git_dir)


def _show(session: Session, here: Checkout) -> None:
    try:
        session.show(repository_name := here.repository.name, [*here.layout.markers, *here.files], here.files)
    except SourcesError as error:
        session.give_up(repository_name, error)


def _is_current(session: Session, here: Checkout, target: Target, advertised: Advertised) -> bool:
    placed = here.head == target.commit and here.branch == (target.name if target.kind == "branch" else "")
    tags = all(here.tags.get(tag, ("",))[0] == oid for tag, oid in advertised.tags.items() if release(tag))
    if not placed or not tags or here.record.moving or (session.full and not _is_full(here)):
        return False
    tree = read_tree(_remote(session, here), here.head)
    links = {path: tree[path].oid for path in declared(here.path, tree) if path in tree and tree[path].mode == GITLINK}
    return all(head_of(here.path / path) == oid for path, oid in links.items())


def _check_own_work(remote: Remote, here: Checkout, target: Target, advertised: Advertised) -> None:
    record, branch = here.record, target.name if target.kind == "branch" else ""
    if record.moving:
        check_unfinished(remote, record.moving)
    else:
        check_changes(remote)
    check_commits(remote, branch, [record.commit, record.moving, *advertised.heads.values(), *advertised.tags.values()])
    if branch:
        check_names(here, branch)


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


def _set_refs(remote: Remote, here: Mapping[str, tuple[str, str]], target: Target, advertised: Advertised) -> None:
    """Have the remote's version tags and its branch, and keep the commit of a tag that was moved under refs/previous/.

    `here` are the refs there are.
    """
    tags = {f"{TAGS}{tag}": oid for tag, oid in advertised.tags.items() if release(tag)}
    if target.kind == "tag":
        tags[f"{TAGS}{target.name}"] = target.object
    old = {ref: here[ref][0] for ref, oid in tags.items() if ref in here and here[ref][0] != oid}
    lines = [f"update refs/previous/{ref.removeprefix('refs/')}/{oid[:12]} {oid}" for ref, oid in old.items()]
    lines += [f"update {ref} {oid}" for ref, oid in tags.items() if ref not in here or ref in old]
    if target.kind == "branch":
        origin = "refs/remotes/origin/"
        for gone in same_place([ref for ref in here if ref.startswith(origin)], f"{origin}{target.name}"):
            run(remote.path, "update-ref", "-d", gone)
        lines.append(f"update {origin}{target.name} {target.commit}")
    run(remote.path, "update-ref", "--stdin", stdin="".join(f"{line}\n" for line in lines))


def _between(remote: Remote, old: str, new: str) -> str:
    if read_shallow(remote.git_dir) or not old:
        return ""
    count = run(remote.path, "rev-list", "--count", f"{old}..{new}", check=False)
    return f", {count} commits later" if count else ""


def _check_cost(session: Session, repository: Repository, *, full: bool) -> None:
    costs = cost(repository.name)
    if session.full and not full:
        moved, disk = in_words(costs.full_moved), in_words(costs.full_disk)
        session.listener.event(repository.name, f"the whole history moves about {moved} and takes {disk}")
    check_space(session.settings.directory, _needed(session, repository), repository.name, removable(session.settings))


def _needed(session: Session, repository: Repository) -> int:
    costs = cost(repository.name)
    return costs.full_disk if session.full else costs.slim_disk


def _outcome(here: Checkout, action: str, ref: str) -> Outcome:
    try:
        version = here.version
    except SourcesError:
        version = ""
    return Outcome(here.repository.name, action, ref, here.head, version)


def _disk_error(repository: Repository, error: OSError) -> SourcesError:
    what = f"{repository.name}: {error.strerror or error} ({error.filename or repository.path})."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(what)
    return DiskError(what, "See who may write there.")


def _remove(folder: Path) -> None:
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
