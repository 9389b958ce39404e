"""Local work that moving a checkout to another commit could lose, as far as git itself does not refuse.

git refuses to overwrite changed, untracked and ignored files (`git switch --no-overwrite-ignore`). What it does not
notice: commits that no ref leads to any more, a branch that is checked out in a linked worktree, a merge in progress.
Changed files stop the move although git would carry most of them along: what a user builds upon is not replaced.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import LocalWorkError, counted, examples
from ..git import (
    GITLINK,
    LocalRepository,
    OverwriteError,
    conflicting,
    move_aside,
    overwrite_error,
    run,
    untracked_files,
)
from .state import Checkout, read_record

_UNDER_WAY = {  # the first that exists, and what ends it with files, index and commits as they are
    "rebase-merge": ("rebase", "--quit"),
    "rebase-apply/applying": ("am", "--quit"),
    "rebase-apply": ("rebase", "--quit"),
    "MERGE_HEAD": ("merge", "--quit"),
    "CHERRY_PICK_HEAD": ("cherry-pick", "--quit"),
    "REVERT_HEAD": ("revert", "--quit"),
    "sequencer": ("cherry-pick", "--quit"),
    "BISECT_LOG": ("bisect", "reset"),
}


@dataclass(frozen=True)
class Change:
    """A changed path as git-status(1) tells of it, porcelain format 2: `state` is XY, or `u` for one not merged."""

    state: str
    path: str
    is_submodule: bool

    @property
    def is_moved_submodule(self) -> bool:
        """Whether it is a submodule at another commit, or a missing one; its own repository is looked at later."""
        return self.is_submodule and self.state in (".M", ".D")


def read_changes(path: Path, ignored: str = "dirty") -> list[Change]:
    """The tracked files of the checkout at `path` that differ from the commit or are staged, and its submodules; of
    these that is `ignored` (git-status(1), --ignore-submodules)."""
    options = ("--porcelain=v2", "-z", "--untracked-files=no", f"--ignore-submodules={ignored}", "--no-renames")
    changes = []
    for line in filter(None, run(path, "status", *options).split("\0")):
        fields = line.split(" ", 8 if line[0] == "1" else 10)
        changes.append(Change(fields[1] if line[0] == "1" else "u", fields[-1], fields[4] == GITLINK))
    return changes


def unreproducible(checkout: Checkout) -> list[str]:
    """What exists only in this checkout, so that it cannot be reproduced elsewhere."""
    found = []
    if changes := read_changes(checkout.path, "untracked"):
        found.append(_listed([change.path for change in changes]))
    others = ("--not", "--remotes=origin", "--tags", "--glob=refs/fetched")
    if commits := run(checkout.path, "rev-list", "--missing=allow-any", "HEAD", *others).split():
        found.append(f"{counted(len(commits), 'commit')} that its remote does not have")
    return found


def check_local_work(repository: LocalRepository, branch: str, known: Iterable[str]) -> None:
    """Raise LocalWorkError where moving HEAD, and `branch` if not empty, could lose something. `known` are commits that
    the remote has."""
    check_commits(repository, branch, known)
    check_operation(repository)
    _check_changes(repository)


def check_submodule_work(repository: LocalRepository) -> None:
    """Raise LocalWorkError where moving the HEAD of a submodule could lose something; files count that git was told not
    to look at, too."""
    check_local_work(repository, "", [read_record(repository.git_dir).commit])
    if hidden := sorted(differing(repository, "HEAD", "MT")):
        command = show_changes(repository, *hidden) or stash(repository)
        raise LocalWorkError(f"{repository.who}: {_listed(hidden)} in {repository.path}.", command=command)


def check_operation(repository: LocalRepository) -> None:
    """Raise LocalWorkError where a merge, rebase or the like of the user's is in progress."""
    for file, operation in _UNDER_WAY.items():
        if (repository.git_dir / file).exists():
            what = f"{repository.who}: git {operation[0]} is in progress in {repository.path}."
            hint = "Finish it, or end it where it is; your files stay:"
            raise LocalWorkError(what, hint, _git(repository.path, *operation))


def check_conflicts(repository: LocalRepository, changes: Iterable[Change]) -> None:
    """Raise LocalWorkError where some of the changes are conflicts of a merge that was not finished."""
    if names := [change.path for change in changes if change.state == "u"]:
        what = f"{repository.who}: {_listed(names)} with conflicts in {repository.path}."
        hint = "Resolve them, or add them as they are:"
        raise LocalWorkError(what, hint, _git(repository.path, "add", "--all", "--", *names))


def explain_refusal(repository: LocalRepository, error: OverwriteError) -> LocalWorkError:
    """git's refusal, with the command that resolves it without losing anything."""
    first = next((each for each in error.paths if (repository.path / each).is_dir()), error.paths[0])
    if error.untracked or (repository.path / first).is_dir():  # whose untracked files git-stash(1) would delete
        return LocalWorkError(error.what, command=move_aside(repository.path / first))
    return LocalWorkError(error.what, command=show_changes(repository, first) or stash(repository))


def check_untracked(repository: LocalRepository, tree: Collection[str]) -> None:
    """Raise LocalWorkError where an untracked or ignored file is in the way of a path of the next commit. git-switch(1)
    refuses, too, but not where sparse-checkout is on: then it overwrites the file (seen with git 2.39 and 2.43)."""
    files = {*tree}
    directories = {str(parent) for path in files for parent in PurePosixPath(path).parents}
    found = list[str]()
    for path in map(PurePosixPath, untracked_files(repository.path)):
        found += [str(path)] if str(path) in files | directories else files.intersection(map(str, path.parents))
    if found:
        paths = list(dict.fromkeys(found))
        raise explain_refusal(repository, overwrite_error(repository.who, str(repository.path), paths, untracked=True))


def _check_changes(repository: LocalRepository) -> None:
    changes = [change for change in read_changes(repository.path) if not change.is_moved_submodule]
    if not changes:
        return
    check_conflicts(repository, changes)
    path, names = repository.path, [change.path for change in changes]
    if replaced := [each.path for each in changes if not each.is_submodule and (path / each.path).is_dir()]:
        command = move_aside(path / replaced[0])  # git-stash(1) would delete the untracked files in it
    elif added := [each.path for each in changes if each.state == ".A"]:
        command = _git(path, "reset", "--quiet", "--", *added)  # they stay, untracked
    elif submodules := [each.path for each in changes if each.is_submodule]:
        command = _git(path, "reset", "--quiet", "--", *submodules)  # git-stash(1) ignores submodules
    else:
        command = stash(repository)
    raise LocalWorkError(f"{repository.who}: {_listed(names)} in {path}.", command=command)


def check_commits(repository: LocalRepository, branch: str, known: Iterable[str]) -> None:
    """Raise LocalWorkError where moving HEAD, and `branch` if not empty, leaves a commit without a ref. A branch that
    does not move keeps its commits; so does every other ref, but for a stash, which may be dropped."""
    ref = f"refs/heads/{branch}"
    tips = ["HEAD", *([ref] if branch else [])]
    tips += ["MERGE_HEAD"] if (repository.git_dir / "MERGE_HEAD").exists() else []
    if commits_without_ref(repository, tips, known, but=ref):
        lost = [found for tip in tips if (found := commits_without_ref(repository, [tip], known, but=ref))]
        count = counted(len(set().union(*lost)), "commit")
        where = f"on {branch}" if branch else "on a detached HEAD"
        what = f"{count} {where} in {repository.path} that its remote does not have."
        keep = [_git(repository.path, "branch", f"my-work-{found[0][:7]}", found[0]) for found in lost]
        raise LocalWorkError(f"{repository.who}: {what}", command=" && ".join(dict.fromkeys(keep)))


def commits_without_ref(
    repository: LocalRepository, tips: Iterable[str], known: Iterable[str], but: str = ""
) -> list[str]:
    """The commits below `tips` that no ref leads to but the one named `but`, and none of the commits `known`."""
    kept = [f"^{oid}" for oid in filter(None, known)]
    others = ("--not", *([f"--exclude={but}"] if but else []), "--exclude=refs/stash", "--glob=refs/*")
    options = ("rev-list", "--ignore-missing", "--missing=allow-any", "--max-count=100", "--stdin", *others)
    return repository.git(*options, stdin="".join(f"{each}\n" for each in [*tips, *kept])).split() if tips else []


def check_branch(repository: LocalRepository, branch: str, branches: Iterable[str]) -> None:
    """Raise LocalWorkError where `branch` cannot be created beside the local `branches`, or is checked out in a linked
    worktree."""
    for other in conflicting(branches, branch):
        what = f"{repository.who}: local branch {other!r} in {repository.path} conflicts with the name {branch!r}."
        raise LocalWorkError(what, command=_git(repository.path, "branch", "-m", other, f"mine-{other}"))
    if not (repository.git_dir / "worktrees").is_dir():
        return
    for block in repository.git("worktree", "list", "--porcelain").split("\n\n"):
        lines = block.splitlines()
        place = Path(lines[0].removeprefix("worktree ")) if lines else repository.path
        if f"branch refs/heads/{branch}" in lines and place.resolve() != repository.path.resolve():
            what = f"{repository.who}: branch {branch} is checked out in the linked worktree {place}."
            raise LocalWorkError(what, command=_git(place, "switch", "--detach"))


def stash(repository: LocalRepository) -> str:
    """The command that stashes the changed files; first the one that lets git see all of them: git-stash(1) would
    overwrite those that it was told to ignore, or fail at them."""
    return show_changes(repository) or _git(repository.path, "stash")


def show_changes(repository: LocalRepository, *paths: str) -> str:
    """The command that lets git see changes of the files that it was told to assume unchanged or to leave out of the
    working tree, though they are there; empty where none is (git-update-index(1))."""
    lines = repository.git("ls-files", "-v", "-z", "--", *paths, check=False).split("\0")
    there = [(line[0], line[2:]) for line in lines if line and os.path.lexists(repository.path / line[2:])]
    options = {
        "--no-assume-unchanged": [path for flag, path in there if flag.islower()],
        "--no-skip-worktree": [path for flag, path in there if flag in "Ss"],
    }
    return " && ".join(_git(repository.path, "update-index", option, "--", *paths)
                       for option, paths in options.items() if paths)  # fmt: skip


def differing(repository: LocalRepository, commit: str, kinds: str = "DMTX") -> set[str]:
    """The paths of the commit whose files are not as it has them, of these `kinds` (git-diff-files(1)). git compares,
    with an index of its own, so that no flag of the user's index hides anything."""
    if not commit:
        return set()
    with tempfile.TemporaryDirectory(dir=repository.git_dir, prefix="tmp-index") as directory:
        index = Path(directory) / "index"
        run(repository.path, "read-tree", commit, index=index)
        run(repository.path, "update-index", "-q", "--refresh", check=False, index=index)
        options = ("-z", "--name-only", "--ignore-submodules=all", f"--diff-filter={kinds}")
        return set(filter(None, run(repository.path, "diff-files", *options, index=index).split("\0")))


def _listed(paths: list[str]) -> str:
    return f"{counted(len(paths), 'changed file')} ({examples(paths)})"


def _git(path: Path, *args: str) -> str:
    return shlex.join(["git", "-C", os.fspath(path), *args])
