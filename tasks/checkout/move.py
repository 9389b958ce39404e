"""A move of a checkout to another commit: every object is brought, then what could be lost is looked for, then it is
carried out, so that an interruption can be noticed and finished."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from .. import names
from ..errors import LocalWorkError
from ..git import fetch, messages, refs, submodules
from ..git.repository import Checkout, Record
from ..models import Reporter
from . import local_work, recovery, sparse, vanish

PYPROJECT = "pyproject.toml"
AT_ONCE = 32  # submodules of one repository


@dataclass(frozen=True)
class SubmoduleMove:
    """A submodule, at any depth, that is to be at `commit`, whose objects are all here. Its `parent` is the checkout
    that it is in, which has it at `before` now; `directories` are to be checked out (None: all). It `is_done` where all
    that is so already."""

    parent: Checkout
    checkout: Checkout
    commit: str
    before: str
    directories: sparse.Directories
    is_done: bool

    @property
    def path(self) -> str:
        """Its path in its parent."""
        return str(self.checkout.path.relative_to(self.parent.path))


def record(checkout: Checkout, target: refs.Target) -> Record:
    """What is kept of a checkout that is at the target."""
    return Record(target.ref, checkout.repository.branch, target.kind, target.name, target.commit)


def bring_submodules(checkout: Checkout, commit: str, source: fetch.Source) -> list[SubmoduleMove]:
    """Bring every object of the submodules of a commit that is here, all at once, and of their own submodules. Returns
    them, each after its parent. Raises NetworkError, DiskError, and SourcesError for what .gitmodules declares."""
    declared = submodules.declared(checkout, commit)
    if not declared:
        return []
    pyproject = checkout.git("cat-file", "blob", f"{commit}:{PYPROJECT}", check=False)
    before = submodules.commits_by_name(checkout, checkout.head)

    def bring(submodule: submodules.Submodule) -> list[SubmoduleMove]:
        inner = fetch.initialise(submodules.checkout_of(checkout, submodule))
        shipped = None if source.full else sparse.shipped_directories(pyproject, submodule.path)
        directories = sparse.choose(inner, shipped)
        is_there = inner.is_linked and inner.head == submodule.commit and inner.directories == directories
        if not is_there or (source.full and inner.is_shallow):
            target = refs.Target(submodule.url, "commit", submodule.name, submodule.commit, submodule.commit)
            fetch.bring(inner, target, source, directories)
            inner = inner.again()
        was = before.get(submodule.name, "")
        move = SubmoduleMove(checkout, inner, submodule.commit, was, directories, is_done=is_there)
        return [move, *(bring_submodules(inner, submodule.commit, source) if directories is None else ())]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [move for moves in pool.map(bring, declared.values()) for move in moves]


def problems(
    checkout: Checkout, target: refs.Target, before: str, moves: Iterable[SubmoduleMove]
) -> Iterator[LocalWorkError]:
    """Everything of the user's that a move to the target could lose, in the checkout and in its submodules; `before` is
    the commit at which the remote's branch was here."""
    yield from local_work.problems(checkout, target.branch, [target.commit, before], rewrite=True)
    is_alone = all(move.is_done for move in moves) and not vanish.leaving(checkout, target.commit)
    if checkout.is_sparse or not is_alone:  # else git refuses before anything has changed
        yield from _obstacles(checkout, target.commit)
    for move in moves:
        submodule = move.checkout
        if submodule.is_linked and not move.is_done:
            yield from local_work.problems(submodule, known=[move.commit, move.before], rewrite=True)
            yield from _obstacles(submodule, move.commit)
        elif not submodule.is_linked and move.parent.is_linked:
            yield from _obstacle(move)


def _obstacles(checkout: Checkout, commit: str) -> Iterator[LocalWorkError]:
    yield from local_work.in_the_way(checkout, commit, ask_git=not vanish.leaving(checkout, commit))
    yield from vanish.problems(checkout, commit)


def _obstacle(move: SubmoduleMove) -> Iterator[LocalWorkError]:
    """What is in the place of a submodule whose files are not there yet."""
    parent, path = move.parent, move.path
    if submodules.gitlinks(parent, parent.head, path):
        try:
            vanish.check(parent, path, move.before)
        except LocalWorkError as error:
            yield error
    elif strays := local_work.untracked_files(parent, "--", f":(literal){path}"):
        yield messages.overwrite_error(parent.name, parent.path, strays, untracked=True)


def carry_out(checkout: Checkout, target: refs.Target, moves: Iterable[SubmoduleMove], reporter: Reporter) -> None:
    """Move a checkout of a configured repository, and record it; first its submodules, so that a refusal leaves it as
    it was. Raises LocalWorkError where git refuses."""
    was = checkout.record
    recovery.leave_branch(checkout, reporter, target.branch)
    checkout.keep_record(replace(was, moving=target.commit))
    try:
        for move in moves:
            if move.checkout.is_linked and not move.is_done:
                _switch(move.checkout, move.commit)
                sparse.set_directories(move.checkout, move.directories)
        _switch(checkout, target.commit)
        attach(moves, reporter)
        if target.branch:
            move_branch(checkout, target)
    except LocalWorkError:
        checkout.keep_record(was)
        raise
    checkout.keep_record(record(checkout, target))


def _switch(checkout: Checkout, commit: str) -> None:
    vanish.remove(checkout, commit)
    checkout.switch(commit)


def move_branch(checkout: Checkout, target: refs.Target) -> None:
    """Move the branch of the target to the commit that is checked out, and HEAD onto the branch. Raises LocalWorkError
    where somebody has committed meanwhile; the commit stays where it is."""
    branch = target.branch
    old = checkout.refs.get(f"{names.HEADS}{branch}")
    try:
        checkout.git("update-ref", f"{names.HEADS}{branch}", target.commit, old.object if old else "0" * 40)
    except (messages.GitError, LocalWorkError):
        checkout.git("switch", "--quiet", branch)
        what = f"{checkout.name}: a commit was made in {checkout.path} while the update ran."
        raise LocalWorkError(what, "Nothing is lost. Run the same command again:", "invoke update") from None
    checkout.git("symbolic-ref", "-m", f"update: {branch}", "HEAD", f"{names.HEADS}{branch}")
    if not old:
        follow(checkout, branch)


def follow(checkout: Checkout, branch: str) -> None:
    """Let `git fetch` and `git pull` of the user follow the branch."""
    remote = checkout.remote
    refspecs = checkout.git("config", "--get-all", f"remote.{remote}.fetch", check=False).split("\n")
    wanted = {f"+refs/heads/{name}:refs/remotes/{remote}/{name}" for name in (branch, "*")}
    if not wanted.intersection(refspecs):
        checkout.git("remote", "set-branches", "--add", remote, branch)
    checkout.git("branch", "--quiet", f"--set-upstream-to={remote}/{branch}", branch)


def attach(moves: Iterable[SubmoduleMove], reporter: Reporter) -> None:
    """Check out the submodules whose files are not there yet, out of the repositories that were prepared
    (git-submodule(1)); the parents first."""
    missing: dict[Checkout, list[SubmoduleMove]] = {}
    for move in moves:
        if not move.checkout.is_linked:
            missing.setdefault(move.parent, []).append(move)
    for parent, inside in missing.items():
        parent.git("submodule", "--quiet", "init", "--", *[move.path for move in inside])
        with ThreadPoolExecutor(len(inside)) as pool:
            for attached in [pool.submit(_attach, move, reporter) for move in inside]:
                attached.result()


def _attach(move: SubmoduleMove, reporter: Reporter) -> None:
    checkout = move.checkout
    index = checkout.git_dir / "index"
    if index.exists():
        recovery.keep(checkout, move.commit, move.before, reporter)  # what is staged, without the files
        index.unlink()
    checkout.git("config", "--worktree", "--unset-all", "core.worktree", check=False)  # the place that it had
    sparse.set_directories(checkout, move.directories)
    vanish.remove_empty(checkout.path)
    if checkout.path.exists():  # meanwhile
        raise vanish.refusal(move.parent, checkout.path, "holds files of yours")
    move.parent.git("submodule", "--quiet", "update", "--no-fetch", "--checkout", "--", move.path)
