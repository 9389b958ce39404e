"""Finishing a switch that was interrupted: what was found is kept, then the switch is finished."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from .. import names
from ..errors import LocalWorkError
from ..git import fetch, messages, submodules
from ..git.repository import Checkout
from ..models import Reporter
from . import local_work, state, vanish

RESCUE = "refs/rescue/"
IDENTITY = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "flashinfer-sources"), ("EMAIL", "flashinfer-sources@localhost"))
}


def finish(checkout: Checkout, reporter: Reporter) -> Checkout:
    """Finish the interrupted switch of a checkout and of its submodules. Working tree and index as they were found
    stay below refs/rescue/, as commits on top of HEAD, and are named. Raises LocalWorkError where a merge or the like
    is in progress, where something cannot be kept, or where git refuses to overwrite it."""
    moving = checkout.record.moving
    interrupted = [*_submodules(checkout, moving), (checkout, moving, checkout.record.commit)]
    problems = []
    for switched, commit, _ in interrupted:
        problems += [*local_work.operation(switched), *vanish.problems(switched, commit)]
    local_work.refuse(problems)
    leave_branch(checkout, reporter)
    for switched, commit, before in interrupted:
        vanish.remove(switched, commit)
        keep(switched, commit, before, reporter)
        switched.switch(commit)
    checkout = checkout.again()
    checkout.keep_record(replace(checkout.record, moving=""))  # its `commit` is where the branch may still be
    return checkout


def leave_branch(checkout: Checkout, reporter: Reporter, target: str = "") -> None:
    """Name the branch that HEAD leaves, if it is the user's: neither the `target` nor what this tool put HEAD on."""
    if state.is_users_branch(checkout, target):
        back = names.shell("git", "-C", checkout.path, "switch", checkout.branch)
        reporter.event(checkout.name, f"HEAD leaves the branch {checkout.branch}, which stays ({back})")


def keep(checkout: Checkout, commit: str, before: str, reporter: Reporter) -> None:
    """Keep the working tree, the index and HEAD below refs/rescue/ as they are between the commits `before` and
    `commit`; say so where anything would have been lost. HEAD and index are at what was kept then, so that git knows
    all these files as unchanged ones, and refuses to overwrite any other."""
    index = checkout.git("write-tree", "--missing-ok", check=False)
    files = _files_as_found(checkout, commit) if checkout.is_linked else index
    trees = list(dict.fromkeys(filter(None, (index, files))))
    head = checkout.git("rev-parse", "--quiet", "--verify", "HEAD^{tree}", check=False)
    if trees in ([], [head]) and not local_work.commits(checkout, [commit, before]):
        return
    tip = checkout.head
    for tree in trees:
        below = ["-p", tip] if tip else []
        tip = checkout.git("commit-tree", tree, "-m", "As found after an interrupted update", *below, env=IDENTITY)
    ref = f"{RESCUE}{time.strftime('%Y%m%d-%H%M%S')}-{tip[:7]}"
    checkout.git("update-ref", ref, tip)
    checkout.git("update-ref", "--no-deref", "HEAD", tip)
    show = names.shell("git", "-C", checkout.path, "log", "--patch", f"-{max(1, len(trees))}", ref)
    reporter.warn(checkout.name, f"an update was interrupted; its files as they were found are kept as {ref} ({show})")


def _submodules(checkout: Checkout, commit: str) -> Iterator[tuple[Checkout, str, str]]:
    """The submodules, also of submodules, that are not at what the commit has; each with the commit that it should be
    at, and the one that it was at before."""
    before = submodules.commits_by_name(checkout, checkout.record.commit or checkout.head)
    for submodule, inner in submodules.linked(checkout, commit):
        if fetch.has_commit(inner, submodule.commit):
            if inner.head != submodule.commit:
                yield inner, submodule.commit, before.get(submodule.name, "")
            yield from _submodules(inner, submodule.commit)


def _files_as_found(checkout: Checkout, commit: str) -> str:
    """A tree of the files in the working tree that HEAD or the commit has, and of those that sparse-checkout hides; the
    index is at it then. Files that neither has are in nobody's way, or git will say so."""
    hidden = {line[2:] for line in checkout.git("ls-files", "-t", "-z").split("\0") if line.startswith("S ")}
    with local_work.own_index(checkout) as index:
        paths = checkout.git("ls-files", "-z", env=index).split("\0")
        paths = [path for path in paths if path not in hidden or os.path.lexists(checkout.path / path)]
        for path in checkout.git("ls-tree", "-r", "-z", "--name-only", "--full-tree", commit).split("\0"):
            place = checkout.path / path
            if place.is_symlink() or place.is_file():
                paths.append(path)
        options = ("--add", "--remove", "--replace", "-z", "--stdin")
        try:
            checkout.git("update-index", *options, stdin="".join(f"{path}\0" for path in paths if path), env=index)
        except messages.GitError as error:
            raise LocalWorkError(f"{error.what} It cannot be kept.", messages.KEEP_IT) from None
        tree = checkout.git("write-tree", "--missing-ok", env=index)
        Path(index["GIT_INDEX_FILE"]).replace(checkout.git_dir / "index")
    return tree
