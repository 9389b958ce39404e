"""Switching checkouts to a commit whose objects are all here, so that an interruption can be noticed and finished."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import takewhile

from .. import names
from ..errors import LocalWorkError
from ..files import write_atomic
from ..git import fetch, messages, refs
from ..git.repository import Checkout, Record
from ..models import Reporter
from . import local_work, plan, recovery, sparse, vanish

FAST_FORWARD = ("merge", "--ff-only", "--no-overwrite-ignore", "--no-autostash", "--no-verify-signatures", "--quiet")


def carry_out(move: plan.Move, reporter: Reporter) -> None:
    """Switch a checkout and its submodules: submodules first, so that a refusal leaves the superproject as it was.

    Raises LocalWorkError where git refuses.
    """
    checkout, commit = move.checkout, move.target.commit
    before = checkout.record
    if checkout.branch not in ("", move.target.branch, before.branch):
        back = names.shell("git", "-C", checkout.path, "switch", checkout.branch)
        reporter.event(checkout.name, f"HEAD leaves the branch {checkout.branch}, which stays ({back})")
    checkout.keep_record(replace(before, moving=commit))
    try:
        for account in vanish.accounts(checkout, commit) if checkout.head else ():
            local_work.refuse(account.problems)
            vanish.remove(account)
        for submodule in move.submodules:
            if submodule.checkout.is_linked and not submodule.is_done:
                carry_out(submodule, reporter)
        try:
            switch(checkout, move.target, before, reporter)
        except LocalWorkError:
            if not local_work.write_again(checkout):
                raise
            switch(checkout, move.target, before, reporter)
    except LocalWorkError:
        checkout.keep_record(before)
        raise
    sparse.set_directories(checkout, move.directories)
    attach([submodule for submodule in move.submodules if not submodule.checkout.is_linked], checkout, reporter)
    checkout.keep_record(move.record)


def switch(checkout: Checkout, target: refs.Target, before: Record, reporter: Reporter) -> None:
    """Switch the working tree, and the branch of the target with it, unless git refuses: LocalWorkError, nothing is
    changed then."""
    branch, old = target.branch, checkout.refs.get(f"{names.HEADS}{target.branch}")
    if branch and checkout.branch == branch:
        base = checkout.git("merge-base", "HEAD", target.commit, check=False)
        if base == checkout.head:
            checkout.git(*FAST_FORWARD, target.commit)
            return
    checkout.git("switch", "--quiet", "--no-overwrite-ignore", "--detach", target.commit)
    try:
        if branch:
            move_branch(checkout, target, old.commit if old else "")
    finally:
        keep_new_commits(checkout, [checkout.head, before.commit, target.commit], reporter)


def keep_new_commits(checkout: Checkout, known: Sequence[str], reporter: Reporter) -> None:
    """Keep the commits that were made while HEAD moved, and that no ref leads to, below refs/rescue/: the reflog has
    what HEAD was at since the last look."""
    log = checkout.git("rev-list", "--walk-reflogs", "--max-count=10", "HEAD", check=False).split()
    since = [commit for commit in takewhile(lambda commit: commit != checkout.head, log) if commit not in known]
    for commit in local_work.commits_without_ref(checkout, since, known)[:1]:
        ref = f"{fetch.RESCUE}{commit[:12]}"
        checkout.git("update-ref", ref, commit)
        reporter.warn(checkout.name, f"a commit was made in {checkout.path} meanwhile; it is kept as {ref}")


def move_branch(checkout: Checkout, target: refs.Target, old: str) -> None:
    """Move the branch of the target from the commit `old` (empty: create it) to the one that is checked out, and HEAD
    onto the branch. Raises LocalWorkError where somebody has committed meanwhile; the commit stays where it is."""
    ref, branch = f"{names.HEADS}{target.branch}", target.branch
    try:
        checkout.git("update-ref", ref, target.commit, old or "0" * len(target.commit))
    except messages.GitError:
        what = f"{checkout.name}: a commit was made in {checkout.path} while the update ran."
        raise LocalWorkError(what, "Nothing is lost. Run the same command again:", "invoke update") from None
    checkout.git("switch", "--quiet", "--no-overwrite-ignore", branch)
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


def attach(moves: Sequence[plan.Move], parent: Checkout, reporter: Reporter) -> None:
    """Check out submodules whose files are not there yet, out of the repositories that were prepared."""
    if not moves:
        return
    paths = [str(move.checkout.path.relative_to(parent.path)) for move in moves]
    parent.git("submodule", "--quiet", "init", "--", *paths)
    with ThreadPoolExecutor(len(moves)) as pool:
        for done in [pool.submit(_attach, move, reporter) for move in moves]:
            done.result()


def _attach(move: plan.Move, reporter: Reporter) -> None:
    checkout = move.checkout
    if checkout.path.is_symlink() or (checkout.path.exists() and any(checkout.path.iterdir())):
        raise vanish.refusal(checkout, checkout.path, "holds files of yours")
    checkout.keep_record(replace(checkout.record, moving=move.target.commit))
    if (checkout.git_dir / "index").exists():
        recovery.keep(checkout, move.target.commit, reporter)  # what is staged, where only the files are gone
        (checkout.git_dir / "index").unlink()
    checkout.path.mkdir(parents=True, exist_ok=True)
    checkout.git("config", "--worktree", "core.worktree", os.path.relpath(checkout.path, checkout.git_dir))
    write_atomic(checkout.path / ".git", f"gitdir: {os.path.relpath(checkout.git_dir, checkout.path)}\n")
    checkout = checkout.again()
    sparse.set_directories(checkout, move.directories)
    recovery.reset(checkout, move.target.commit)
    attach(move.submodules, checkout, reporter)
    checkout.keep_record(move.record)
