"""Local work that moving a checkout to another commit could lose, as far as git itself does not refuse.

git refuses to overwrite changed, untracked and ignored files (`git switch --no-overwrite-ignore`). What it does not
notice: commits that no ref leads to any more, an operation in progress, untracked files where sparse-checkout is on.
Changed files stop the move although git would carry most of them along: what a user builds upon is not replaced.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .. import names
from ..errors import LocalWorkError, counted, examples
from ..git import messages, refs, submodules
from ..git.repository import Checkout

MANY = 1000  # files that are compared byte by byte; more are changed on purpose
OPERATIONS = {  # the first that exists, and what is in progress then
    "rebase-merge": "rebase",
    "rebase-apply/applying": "am",
    "rebase-apply": "rebase",
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "sequencer": "cherry-pick",
    "BISECT_LOG": "bisect",
}


@dataclass(frozen=True)
class Change:
    """A changed path; `is_moved` is a submodule at another commit, or without files, that is not staged."""

    path: str
    is_conflict: bool = False
    is_moved: bool = False


def changed_files(checkout: Checkout) -> list[str]:
    """The tracked files of a checkout that differ from its commit or are staged, and submodules that do, or that hold
    such files (or untracked ones)."""
    changes, _ = _changes(checkout, "none")
    return [change.path for change in changes]


def unreproducible(checkout: Checkout) -> list[str]:
    """What exists only in this checkout, so that it cannot be reproduced elsewhere, in words."""
    reasons = []
    if files := changed_files(checkout):
        reasons.append(f"{counted(len(files), 'changed file')} ({examples(files)})")
    others = ("--not", f"--remotes={checkout.remote}", "--tags", checkout.record.commit or checkout.head)
    if commits := checkout.git("rev-list", "--missing=allow-any", "HEAD", *others).split():
        reasons.append(f"{counted(len(commits), 'commit')} that its remote does not have")
    return reasons


def problems(checkout: Checkout, *, branch: str = "", known: Iterable[str] = ()) -> list[LocalWorkError]:
    """Everything that keeps HEAD from moving, and `branch` if not empty. `known` are further commits of the remote."""
    changes, commits = _changed(checkout), _commits(checkout, branch, known)
    return [*operation(checkout), *changes, *commits, *_branch(checkout, branch)]


def refuse(problems: Sequence[LocalWorkError]) -> None:
    """Raise all problems of a checkout as one error, if there are any."""
    if not problems:
        return
    hints = dict.fromkeys(problem.hint for problem in problems if problem.hint)
    commands = dict.fromkeys(problem.command for problem in problems if problem.command)
    command = next(iter(commands)) if len(problems) == 1 and commands else ""
    raise LocalWorkError("\n".join(problem.what for problem in problems), "\n".join(hints), command)


def in_the_way(checkout: Checkout, commit: str) -> list[LocalWorkError]:
    """What git-switch(1) would refuse for, before it is asked: changed files that git was told not to look at, and
    untracked and ignored files in the way of a path of the next commit. Where sparse-checkout is on, git itself
    overwrites the latter (seen with git 2.39 and 2.43)."""
    checkout.git("update-index", "-q", "--refresh", check=False)  # git-read-tree(1) goes by times alone
    try:
        checkout.git("read-tree", "-n", "-m", "-u", "HEAD", commit)
    except LocalWorkError as error:
        return [error]
    paths = overlapping(checkout, untracked_files(checkout), commit)
    return [messages.overwrite_error(checkout.name, checkout.path, paths, untracked=True)] if paths else []


def untracked_files(checkout: Checkout, *options: str) -> list[str]:
    """The files that git does not track, ignored ones included; of a repository among them, its directory with a slash
    at the end (git-ls-files(1), --others)."""
    return list(filter(None, checkout.git("ls-files", "--others", "-z", *options).split("\0")))


def overlapping(checkout: Checkout, paths: Sequence[str], commit: str) -> list[str]:
    """Those of the paths that are a file of the commit, above one or below one."""
    if not paths:
        return []
    files = {*checkout.git("ls-tree", "-r", "-z", "--name-only", "--full-tree", commit).split("\0")}
    directories = {str(parent) for file in files for parent in PurePosixPath(file).parents}
    found = []
    for path in map(PurePosixPath, paths):
        if str(path) in files or str(path) in directories or any(str(parent) in files for parent in path.parents):
            found.append(str(path))
    return found


def write_again(checkout: Checkout) -> list[str]:
    """Write the files anew whose bytes are those of the commit, though git takes them for changed: their line endings
    do not fit their attributes, and git would refuse to replace them. Returns their paths."""
    _, alike = _changes(checkout, "all")
    if alike:
        checkout.git("checkout-index", "--force", "-u", "-z", "--stdin", stdin="".join(f"{path}\0" for path in alike))
    return alike


def commits_without_ref(checkout: Checkout, tips: Iterable[str], known: Iterable[str], but: str = "") -> list[str]:
    """The commits below `tips` that no ref leads to but the one named `but`, and none of the commits `known`."""
    excluded = ["--exclude=refs/stash", *([f"--exclude={but}"] if but else [])]
    options = ("--ignore-missing", "--missing=allow-any", "--max-count=100", "--stdin", "--not", *excluded)
    lines = [*tips, *(f"^{oid}" for oid in known if oid)]
    return checkout.git("rev-list", *options, "--glob=refs/*", stdin="\n".join(lines)).split() if tips else []


def operation(checkout: Checkout) -> list[LocalWorkError]:
    for file, operation in OPERATIONS.items():
        if (checkout.git_dir / file).exists():
            what = f"{checkout.name}: git {operation} is in progress in {checkout.path}."
            return [LocalWorkError(what, "Finish it or abort it, then run the same command again.")]
    return []


def _changed(checkout: Checkout) -> list[LocalWorkError]:
    changes, _ = _changes(checkout, "dirty")
    files = [change.path for change in changes if not change.is_moved]
    if not files:
        return []
    conflicts = " with conflicts" if any(change.is_conflict for change in changes) else ""
    what = f"{checkout.name}: {counted(len(files), 'changed file')} ({examples(files)}){conflicts} in {checkout.path}."
    return [LocalWorkError(what, messages.KEEP_IT)]


def _commits(checkout: Checkout, branch: str, known: Iterable[str]) -> list[LocalWorkError]:
    """The commits that would have no ref any more if HEAD moved, and `branch` with it."""
    ref, tracked = f"{names.HEADS}{branch}", checkout.refs.get(checkout.tracking(branch))
    known = [*known, checkout.record.commit, tracked.commit if tracked else ""]
    tips = [tip for tip in ("HEAD" if checkout.head else "", ref if ref in checkout.refs else "") if tip]
    commits = commits_without_ref(checkout, tips, known, but=ref)
    if not commits:
        return []
    where = f"on {branch}" if branch and checkout.branch == branch else "on a detached HEAD"
    count = counted(len(commits), "commit")
    what = f"{checkout.name}: {count} {where} in {checkout.path} that its remote does not have."
    keep = names.shell("git", "-C", checkout.path, "branch", f"my-work-{commits[0][:7]}", commits[0])
    return [LocalWorkError(what, "Push them, or keep them on a branch of your own:", keep)]


def _branch(checkout: Checkout, branch: str) -> list[LocalWorkError]:
    """Whether `branch` cannot be created beside the local ones, or is checked out in a linked worktree."""
    branches = [name.removeprefix(names.HEADS) for name in checkout.refs if name.startswith(names.HEADS)]
    for other in refs.conflicting(branches, branch) if branch else ():
        what = f"{checkout.name}: local branch {other!r} in {checkout.path} conflicts with the name {branch!r}."
        rename = names.shell("git", "-C", checkout.path, "branch", "-m", other, f"mine-{other}")
        return [LocalWorkError(what, "Rename it:", rename)]
    ref = checkout.refs.get(f"{names.HEADS}{branch}")
    if ref and ref.worktree and os.path.realpath(ref.worktree) != os.path.realpath(checkout.path):
        what = f"{checkout.name}: branch {branch} is checked out in the linked worktree {ref.worktree}."
        return [LocalWorkError(what, "Leave it there:", names.shell("git", "-C", ref.worktree, "switch", "--detach"))]
    return []


def _changes(checkout: Checkout, ignored: str) -> tuple[list[Change], list[str]]:
    """The changes of a checkout, less those of submodules that are `ignored` (git-status(1), --ignore-submodules); and
    the paths that git takes for changed though their bytes are those of the index."""
    options = ("--porcelain=v2", "-z", "--untracked-files=no", f"--ignore-submodules={ignored}", "--no-renames")
    changes, oids = [], {}
    for line in filter(None, checkout.git("status", *options).split("\0")):
        if line[0] == "u":
            changes.append(Change(line.split(" ", 10)[10], is_conflict=True))
        elif line[0] == "1":  # 1 XY sub mH mI mW hH hI path
            _, state, _, *modes, _, oid, path = line.split(" ", 8)
            changes.append(Change(path, is_moved=submodules.GITLINK in modes and state in (".M", ".D")))
            if state == ".M" and modes[1] == modes[2] and modes[1].startswith("100"):
                oids[path] = oid
    alike = same_bytes(checkout, oids)
    return [change for change in changes if change.path not in alike], alike


def same_bytes(checkout: Checkout, oids: Mapping[str, str]) -> list[str]:
    """Those of the paths whose bytes are those of the object that the index has for each."""
    paths = list(oids)[:MANY]
    hashed = checkout.git("hash-object", "--no-filters", "--", *paths, check=False).split("\n") if paths else []
    return [path for path, oid in zip(paths, hashed, strict=False) if oid == oids[path]]


@contextmanager
def own_index(checkout: Checkout) -> Iterator[dict[str, str]]:
    """The variables that let git use an index of our own with HEAD's files, where no flag of the user's hides any."""
    with tempfile.TemporaryDirectory(dir=checkout.git_dir, prefix="tmp-index") as directory:
        index = {"GIT_INDEX_FILE": str(Path(directory) / "index")}
        if checkout.head:
            checkout.git("read-tree", "HEAD", env=index)
        yield index
