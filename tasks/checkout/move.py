"""A move of a checkout to another commit: every object is brought, then what could be lost is looked for, then it is
carried out, so that an interruption can be noticed and finished."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from .. import names
from ..errors import LocalWorkError
from ..files import write_atomic
from ..git import fetch, messages, refs, submodules
from ..git.repository import Checkout, Record
from ..models import Reporter
from . import local_work, recovery, sparse, vanish

PYPROJECT = "pyproject.toml"
AT_ONCE = 32  # downloads of one repository's submodules


@dataclass(frozen=True)
class Move:
    """A checkout that is to be at `target`, whose objects are all here. Of a submodule, `before` is the commit that its
    parent is at now, and `directories` are to be set (see `sparse.choose`)."""

    checkout: Checkout
    target: refs.Target
    before: str = ""
    directories: sparse.Directories = None
    submodules: tuple[Move, ...] = ()

    @property
    def record(self) -> Record:
        """What is kept once it is done."""
        target = self.target
        return Record(target.ref, self.checkout.repository.branch, target.kind, target.name, target.commit)

    @property
    def is_done(self) -> bool:
        """Whether this submodule is as it is to be, with its own submodules as far as they are known."""
        checkout = self.checkout
        is_there = checkout.is_linked and checkout.head == self.target.commit and self.directories is None
        return is_there and all(submodule.is_done for submodule in self.submodules)


def bring_submodules(move: Move, source: fetch.Source) -> Move:
    """Bring every object of the submodules of a commit that is here, all at once. Raises NetworkError, DiskError, and
    SourcesError for what .gitmodules declares."""
    checkout, commit = move.checkout, move.target.commit
    declared = submodules.declared(checkout, commit)
    if not declared:
        return move
    pyproject = checkout.git("cat-file", "blob", f"{commit}:{PYPROJECT}", check=False)
    before = submodules.commits_by_name(checkout, checkout.head)

    def bring(submodule: submodules.Submodule) -> Move:
        shipped = None if source.full else sparse.shipped_directories(pyproject, submodule.path)
        target = refs.Target(submodule.url, "commit", submodule.name, submodule.commit, submodule.commit)
        inner = submodules.checkout_of(checkout, submodule)
        return _bring(Move(inner, target, before.get(submodule.name, "")), shipped, source)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return replace(move, submodules=tuple(pool.map(bring, declared.values())))


def _bring(move: Move, shipped: sparse.Directories, source: fetch.Source) -> Move:
    """Bring every object of a submodule that ships these directories, and of its own submodules."""
    checkout = fetch.initialise(move.checkout)
    needed, directories = sparse.choose(checkout, shipped)
    move = replace(move, checkout=checkout, directories=directories)
    if not move.is_done or (source.full and checkout.is_shallow):
        fetch.bring(checkout, move.target, source, needed)
        move = replace(move, checkout=checkout.again())
    return bring_submodules(move, source) if needed is None else move


def problems(move: Move) -> Iterator[LocalWorkError]:
    """Everything of the user's that the move could lose, in the checkout and below it."""
    checkout, commit = move.checkout, move.target.commit
    if checkout.head:
        yield from local_work.problems(checkout, move.target.branch, [commit, move.before], rewrite=True)
        is_first = checkout.is_sparse or any(not submodule.is_done for submodule in move.submodules)
        if is_first:
            yield from local_work.in_the_way(checkout, commit, ask_git=not vanish.leaving(checkout, commit))
        yield from vanish.problems(checkout, commit)
    for submodule in move.submodules:
        if not submodule.checkout.is_linked:
            yield from _obstacle(checkout, submodule) if checkout.head else ()
        elif not submodule.is_done:
            yield from problems(submodule)


def _obstacle(parent: Checkout, submodule: Move) -> Iterator[LocalWorkError]:
    """What is in the place of a submodule whose files are not there yet."""
    path = str(submodule.checkout.path.relative_to(parent.path))
    if submodules.gitlinks(parent, parent.head, path):
        try:
            vanish.account(parent, path, submodule.before)
        except LocalWorkError as error:
            yield error
    elif strays := local_work.untracked_files(parent, "--", f":(literal){path}"):
        yield messages.overwrite_error(parent.name, parent.path, strays, untracked=True)


def carry_out(move: Move, reporter: Reporter) -> None:
    """Move a checkout of a configured repository, and record it. Raises LocalWorkError where git refuses."""
    checkout, record = move.checkout, move.checkout.record
    recovery.leave_branch(checkout, reporter, move.target.branch)
    checkout.keep_record(replace(record, moving=move.target.commit))
    try:
        _switch(move, reporter)
        if move.target.branch:
            move_branch(checkout, move.target)
    except LocalWorkError:
        checkout.keep_record(record)
        raise
    checkout.keep_record(move.record)


def _switch(move: Move, reporter: Reporter) -> None:
    """Switch submodules, then the checkout, so that a refusal leaves it as it was; HEAD is on no branch then."""
    checkout, commit = move.checkout, move.target.commit
    vanish.remove(checkout, commit)
    for submodule in move.submodules:
        if submodule.checkout.is_linked and not submodule.is_done:
            _switch(submodule, reporter)
    checkout.git("switch", "--quiet", "--no-overwrite-ignore", "--detach", commit)
    sparse.set_directories(checkout, move.directories)
    attach(move, reporter)


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


def attach(move: Move, reporter: Reporter) -> None:
    """Check out the submodules whose files are not there yet, out of the repositories that were prepared."""
    parent = move.checkout
    missing = [submodule for submodule in move.submodules if not submodule.checkout.is_linked]
    if not missing:
        return
    paths = [str(submodule.checkout.path.relative_to(parent.path)) for submodule in missing]
    parent.git("submodule", "--quiet", "init", "--", *paths)
    with ThreadPoolExecutor(len(missing)) as pool:
        for attached in [pool.submit(_attach, submodule, reporter) for submodule in missing]:
            attached.result()


def _attach(move: Move, reporter: Reporter) -> None:
    """Check out a submodule beside its repository, and rename the directory once it is complete."""
    checkout, commit = move.checkout, move.target.commit
    if (checkout.git_dir / "index").exists():
        recovery.keep(checkout, commit, move.before, reporter)  # what is staged, where only the files are gone
        (checkout.git_dir / "index").unlink()
    staged = replace(checkout, repository=replace(checkout.repository, path=checkout.git_dir / "files"))
    shutil.rmtree(staged.path, ignore_errors=True)
    staged.path.mkdir()
    for scope in ("--local", "--worktree"):
        checkout.git("config", scope, "--unset-all", "core.worktree", check=False)
    (staged.path / ".git").write_text(f"gitdir: {checkout.git_dir}\n", errors="surrogateescape")
    sparse.set_directories(staged, move.directories)
    recovery.reset(staged, commit)
    write_atomic(staged.path / ".git", f"gitdir: {os.path.relpath(checkout.git_dir, checkout.path)}\n")
    try:
        checkout.path.parent.mkdir(parents=True, exist_ok=True)
        vanish.remove_empty(checkout.path)
        staged.path.rename(checkout.path)
    except OSError:
        raise vanish.refusal(checkout, checkout.path, "holds files of yours") from None
    checkout.git("config", "--worktree", "core.worktree", os.path.relpath(checkout.path, checkout.git_dir))
    attach(replace(move, checkout=checkout.again()), reporter)
