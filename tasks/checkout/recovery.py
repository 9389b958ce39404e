"""Finishing a switch that was interrupted: what was found is kept, then the switch is finished."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from .. import names
from ..errors import LocalWorkError, counted, examples
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
    is in progress, or where something cannot be kept; nothing has changed then."""
    moving = checkout.record.moving
    interrupted = [*_submodules(checkout, moving), (checkout, moving, checkout.record.commit)]
    problems = []
    for switched, commit, _ in interrupted:
        problems += [*local_work.operation(switched), *vanish.problems(switched, commit)]
        problems += _own_repositories(switched, commit)
    local_work.refuse(problems)
    leave_branch(checkout, reporter)
    for switched, commit, before in interrupted:
        keep(switched, commit, before, reporter)
        vanish.remove(switched, commit)
        reset(switched, commit)
        switched.keep_record(replace(switched.record, moving=""))  # its `commit` is where the branch may still be
    return checkout.again()


def leave_branch(checkout: Checkout, reporter: Reporter, target: str = "") -> None:
    """Name the branch that HEAD leaves, if it is the user's: neither the `target` nor what this tool put HEAD on."""
    if state.is_users_branch(checkout, target):
        back = names.shell("git", "-C", checkout.path, "switch", checkout.branch)
        reporter.event(checkout.name, f"HEAD leaves the branch {checkout.branch}, which stays ({back})")


def reset(checkout: Checkout, commit: str) -> None:
    """Let index and files be those of the commit, then HEAD, which is on no branch: what was there has been kept."""
    checkout.git("update-ref", "--no-deref", "HEAD", checkout.head or commit)
    checkout.git("reset", "--quiet", "--hard", commit)


def keep(checkout: Checkout, commit: str, before: str, reporter: Reporter) -> None:
    """Keep the working tree, the index and HEAD below refs/rescue/ as they are between the commits `before` and
    `commit`; say so where anything would have been lost."""
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
    show = names.shell("git", "-C", checkout.path, "log", "--patch", f"-{max(1, len(trees))}", ref)
    reporter.warn(checkout.name, f"an update was interrupted; its files as they were found are kept as {ref} ({show})")


def _submodules(checkout: Checkout, commit: str) -> Iterator[tuple[Checkout, str, str]]:
    """The submodules, also of submodules, that are not at what the commit has; each with the commit that it should be
    at, and the one that it was at before."""
    before = submodules.commits_by_name(checkout, checkout.record.commit or checkout.head)
    for submodule, inner in submodules.linked(checkout, commit):
        if fetch.has_commit(inner, submodule.commit):
            if inner.head != submodule.commit or inner.record.moving:  # of an older version of this tool
                yield inner, submodule.commit, before.get(submodule.name, "")
            yield from _submodules(inner, submodule.commit)


def _files_as_found(checkout: Checkout, commit: str) -> str:
    """A tree of all files in the working tree, of the ignored ones those that the commit has or that are tracked."""
    with local_work.own_index(checkout) as index:
        add = ("-c", "core.safecrlf=false", "add", "--all", "--sparse", "--ignore-errors")
        checkout.git(*add, env=index, check=False)
        others = local_work.untracked_files(checkout, "--exclude-standard", env=index)
        changed = ("diff-files", "--name-only", "--ignore-submodules=all", "-z")
        others += checkout.git(*changed, env=index).split("\0")  # git-add(1) has failed
        if left_out := [path for path in others if path and not path.endswith("/")]:
            what = f"{checkout.name}: {counted(len(left_out), 'file')} ({examples(left_out)}) cannot be kept."
            raise LocalWorkError(what, messages.KEEP_IT)
        ignored = local_work.untracked_files(checkout, "--ignored", "--exclude-standard", env=index)
        tracked = checkout.git("ls-files", "-z").split("\0")
        wanted = {*local_work.overlapping(checkout, ignored, commit), *set(ignored).intersection(tracked)}
        paths = "".join(f"{path}\0" for path in sorted(wanted))
        checkout.git("update-index", "--add", "--remove", "-z", "--stdin", stdin=paths, env=index)
        return checkout.git("write-tree", "--missing-ok", env=index)


def _own_repositories(checkout: Checkout, commit: str) -> list[LocalWorkError]:
    """Repositories of the user's in the way or in the place of a tracked file: they cannot be kept as a tree."""
    own = [path.rstrip("/") for path in local_work.untracked_files(checkout) if path.endswith("/")]
    own = local_work.overlapping(checkout, own, commit)
    with local_work.own_index(checkout) as index:
        changed = checkout.git("diff-files", "--raw", "-z", env=index).split("\0")
    for modes, path in zip(changed[::2], changed[1::2], strict=False):
        before, now, *_ = modes.lstrip(":").split()
        if now == submodules.GITLINK != before:  # which git does not call untracked
            own.append(path)
    return [vanish.refusal(checkout, checkout.path / path, "is a repository of your own") for path in own]
