"""Finishing a switch that was interrupted: what was found is kept, then the switch is finished."""

from __future__ import annotations

import os
import time
from dataclasses import replace

from .. import names
from ..errors import LocalWorkError, counted, examples
from ..git import command, fetch, messages, submodules
from ..git.repository import RECORD, Checkout, read_record
from ..models import Reporter
from . import local_work, vanish

IDENTITY = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "flashinfer-sources"), ("EMAIL", "flashinfer-sources@localhost"))
}


def interrupted(checkout: Checkout) -> list[Checkout]:
    """The submodules, also of submodules, whose files are there and whose switch was interrupted; then the checkout
    itself, if its own was."""
    unfinished = []
    for file in sorted((checkout.git_dir / "modules").rglob(RECORD)):
        git_dir, record = file.parent, read_record(file.parent)
        if record.moving:
            worktree = (git_dir / command.git(git_dir, "config", "core.worktree", check=False)).resolve()
            path = os.path.relpath(worktree, checkout.path.resolve())
            submodule = submodules.checkout_at(checkout, path, git_dir, record.ref)
            unfinished += [submodule] if submodule.is_linked else []
    return [*unfinished, checkout] if checkout.record.moving else unfinished


def finish(checkout: Checkout, reporter: Reporter) -> Checkout:
    """Finish the interrupted switches of a checkout and of its submodules. Working tree and index as they were found
    stay below refs/rescue/, as commits on top of HEAD, and are named. Raises LocalWorkError where a merge or the like
    is in progress, or where something cannot be kept; nothing has changed then."""
    accounted: list[tuple[Checkout, list[vanish.Account]]] = []
    for switched in interrupted(checkout):
        accounts = vanish.accounts(switched, switched.record.moving) if switched.head else []
        problems = [problem for account in accounts for problem in account.problems]
        local_work.refuse([*local_work.operation(switched), *problems, *_own_repositories(switched)])
        accounted.append((switched, accounts))
    for switched, accounts in accounted:
        moving = switched.record.moving
        keep(switched, moving, reporter)
        for account in accounts:
            vanish.remove(account)
        reset(switched, moving)
        switched.keep_record(replace(switched.record, moving=""))  # its `commit` is where the branch may still be
    return checkout.again()


def keep(checkout: Checkout, moving: str, reporter: Reporter) -> None:
    """Keep the working tree and the index as they are below refs/rescue/; say so where they are not HEAD's."""
    index = checkout.git("write-tree", "--missing-ok", check=False)
    files = _files_as_found(checkout, moving) if checkout.is_linked else index
    trees = list(dict.fromkeys(filter(None, (index, files))))
    head = checkout.git("rev-parse", "--quiet", "--verify", "HEAD^{tree}", check=False)
    if not trees or trees == [head]:
        return
    commit = checkout.head
    for tree in trees:
        below = ["-p", commit] if commit else []
        commit = checkout.git("commit-tree", tree, "-m", "As found after an interrupted update", *below, env=IDENTITY)
    ref = f"{fetch.RESCUE}{time.strftime('%Y%m%d-%H%M%S')}-{commit[:7]}"
    checkout.git("update-ref", ref, commit)
    show = names.shell("git", "-C", checkout.path, "log", "--patch", f"-{len(trees)}", ref)
    reporter.warn(checkout.name, f"an update was interrupted; its files as they were found are kept as {ref} ({show})")


def reset(checkout: Checkout, commit: str) -> None:
    """Let HEAD, index and files be those of the commit, on no branch: what was there has been kept."""
    checkout.git("update-ref", "--no-deref", "HEAD", commit, *([checkout.head] if checkout.head else []))
    checkout.git("reset", "--hard", commit)


def _files_as_found(checkout: Checkout, moving: str) -> str:
    """A tree of all files in the working tree, of the ignored ones those that the next commit has."""
    with local_work.own_index(checkout) as index:
        checkout.git("add", "--all", "--sparse", "--ignore-errors", env=index, check=False)
        others = checkout.git("ls-files", "--others", "--exclude-standard", "-z", env=index).split("\0")
        if left_out := [path for path in others if path and not path.endswith("/")]:
            what = f"{checkout.name}: {counted(len(left_out), 'file')} ({examples(left_out)}) cannot be kept."
            raise LocalWorkError(what, messages.KEEP_IT)
        ignored = local_work.untracked_files(checkout, "--ignored", "--exclude-standard")
        given = "".join(f"{path}\0" for path in local_work.overlapping(checkout, ignored, moving))
        checkout.git("update-index", "--add", "--remove", "-z", "--stdin", stdin=given, env=index)
        return checkout.git("write-tree", "--missing-ok", env=index)


def _own_repositories(checkout: Checkout) -> list[LocalWorkError]:
    """Repositories of the user's in the way: they cannot be kept as a tree."""
    own = [path.rstrip("/") for path in local_work.untracked_files(checkout) if path.endswith("/")]
    places = [checkout.path / path for path in local_work.overlapping(checkout, own, checkout.record.moving)]
    return [vanish.refusal(checkout, place, "is a repository of your own") for place in places]
