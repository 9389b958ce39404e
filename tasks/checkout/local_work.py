"""Local work that moving a checkout to another commit could lose, as far as git itself does not refuse.

git refuses to overwrite changed, untracked and ignored files (`git switch --no-overwrite-ignore`). What it does not
notice: commits that no ref leads to any more, a branch that is checked out in a linked worktree, a merge in progress.
Changed files stop the move although git would carry most of them along: what a user builds upon is not replaced.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ..errors import LocalWorkError, SourcesError
from ..git import GITLINK, LocalRepository, OverwriteError, head_of, linked_git_dir, move_aside, present_commits, run
from ..models import Repository
from ..names import redact
from .state import Checkout, read_checkout, read_record

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
_STATUS = ("status", "--porcelain=v2", "-z", "--untracked-files=no", "--ignore-submodules=dirty", "--no-renames")
SHOWN = 3  # examples in a message


def find_checkout(repository: Repository) -> Checkout | None:
    """The checkout at the repository's path; None where nothing is. Raises LocalWorkError for anything else, and for a
    checkout of another URL."""
    path = repository.path
    if not path.is_symlink() and (not path.exists() or (path.is_dir() and not any(path.iterdir()))):
        return None
    if path.is_symlink() or not (path / ".git" / "HEAD").is_file():
        kind = "a symbolic link" if path.is_symlink() else "not a checkout"
        raise LocalWorkError(f"{repository.name}: {path} is {kind}.", command=move_aside(path))
    checkout = read_checkout(repository)
    if not checkout.head or not checkout.now.url:
        run(path, "rev-parse", "--git-dir")  # refuses a repository of another user
    if not checkout.head:
        what = f"{repository.name}: {path} is a repository without a commit."
        raise LocalWorkError(what, command=move_aside(path))
    check_remote(checkout)
    return checkout


def require_checkout(repository: Repository) -> Checkout:
    """The checkout at the repository's path. Raises as `find_checkout`, and SourcesError where nothing is."""
    if checkout := find_checkout(repository):
        return checkout
    raise SourcesError(f"{repository.name}: not cloned.", command="invoke clone")


def check_remote(checkout: Checkout) -> None:
    """Raise LocalWorkError where the checkout comes from another URL than the configured one."""
    repository, path, url = checkout.repository, checkout.path, checkout.now.url
    if url != repository.url:
        set_url = _git(path, "remote", "set-url" if url else "add", "origin", repository.url)
        command = set_url if redact(set_url) == set_url else move_aside(path)  # no password is shown or typed
        found, wanted = redact(url) or "no remote", redact(repository.url)
        raise LocalWorkError(f"{repository.name}: {path} comes from {found}, not from {wanted}.", command=command)


def changed_paths(path: Path) -> list[str]:
    """The tracked files that differ from the commit, and submodules that differ or hold such files."""
    options = (*_STATUS[:-2], "--ignore-submodules=untracked", "--no-renames")
    lines = filter(None, run(path, *options).split("\0"))
    return [line.split(" ", 8 if line[0] == "1" else 10)[-1] for line in lines]


def unreproducible(checkout: Checkout) -> list[str]:
    """What of the checkout exists nowhere else, so that nobody can make the same again."""
    found = []
    if changed := changed_paths(checkout.path):
        found.append(_listed(changed))
    others = ("--not", "--remotes=origin", "--tags", "--glob=refs/fetched")
    if commits := run(checkout.path, "rev-list", "--missing=allow-any", "HEAD", *others).split():
        found.append(f"{len(commits)} commit{'s' if len(commits) > 1 else ''} that its remote does not have")
    return found


def check_local_work(repository: LocalRepository, branch: str, known: Iterable[str]) -> None:
    """Raise LocalWorkError where moving HEAD, and `branch` if not empty, could lose something. `known` are commits that
    the remote has."""
    check_commits(repository, branch, known)
    check_operation(repository)
    _check_changes(repository)
    if branch:
        _check_branch(repository, branch)


def check_operation(repository: LocalRepository) -> None:
    """Raise LocalWorkError where a merge, rebase or the like of the user's is in progress."""
    for file, operation in _UNDER_WAY.items():
        if (repository.git_dir / file).exists():
            what = f"{repository.who}: git {operation[0]} is in progress in {repository.path}."
            hint = "Finish it, or end it where it is; your files stay:"
            raise LocalWorkError(what, hint, _git(repository.path, *operation))


def explain_refusal(repository: LocalRepository, error: OverwriteError) -> LocalWorkError:
    """git's refusal, with the command that resolves it without losing anything."""
    first = next((each for each in error.paths if (repository.path / each).is_dir()), error.paths[0])
    command = stash(repository)
    if error.untracked or (repository.path / first).is_dir():  # whose untracked files git-stash(1) would delete
        command = move_aside(repository.path / first)
    elif (flag := repository.git("ls-files", "-v", "--", first, check=False)[:1]) == "S" or flag.islower():
        option = "--no-skip-worktree" if flag in "Ss" else "--no-assume-unchanged"
        command = _git(repository.path, "update-index", option, "--", first)  # git status shows the change from now on
    return LocalWorkError(error.what, command=command)


def _check_changes(repository: LocalRepository) -> None:
    changes = [line for line in repository.git(*_STATUS).split("\0") if line and not _is_ours(repository, line)]
    for line in changes:
        place = repository.path / line.split(" ", 8)[-1]
        if line[5] == "S" and (git_dir := linked_git_dir(place)):
            inner = replace(repository, path=place, git_dir=git_dir, who=f"{repository.who}/{place.name}")
            check_local_work(inner, "", [line.split(" ", 8)[6], read_record(git_dir).commit])
    if not changes:
        return
    path, states = repository.path, [line.split(" ")[1] if line[0] == "1" else "u" for line in changes]
    names = [line.split(" ", 8 if line[0] == "1" else 10)[-1] for line in changes]
    command: tuple[str, ...] = ("stash",)
    if unmerged := [name for name, state in zip(names, states, strict=True) if state == "u"]:
        command = ("add", "--all", "--", *unmerged)  # as they are
    elif added := [name for name, state in zip(names, states, strict=True) if state == ".A"]:
        command = ("reset", "--quiet", "--", *added)  # they stay, untracked
    elif submodule := next((name for name, line in zip(names, changes, strict=True) if line[5] == "S"), ""):
        command = ("reset", "--quiet", "--", submodule)  # git-stash(1) ignores submodules
        if states[names.index(submodule)][0] == ".":
            command = ("submodule", "update", "--init", "--", submodule)
    fix = _git(path, *command) if command != ("stash",) else stash(repository)
    files = [name for name, line in zip(names, changes, strict=True) if line.split(" ")[4] != GITLINK]
    if replaced := next((name for name in files if (path / name).is_dir()), ""):
        fix = move_aside(path / replaced)  # git stash would delete the untracked files in it
    raise LocalWorkError(f"{repository.who}: {_listed(names)} in {path}.", command=fix)


def _is_ours(repository: LocalRepository, line: str) -> bool:
    """Whether a line of git-status(1) tells of a submodule that is where this tool has put it, or that is missing."""
    fields = line.split(" ", 8)
    if fields[0] != "1" or fields[1][0] != "." or fields[4] != GITLINK:
        return False
    place = repository.path / fields[8]
    git_dir = linked_git_dir(place)
    record = read_record(git_dir) if git_dir else None
    ours = record and record.commit and head_of(place) in {record.commit, record.moving} - {""}
    return bool(ours) or not os.path.lexists(place)


def check_commits(repository: LocalRepository, branch: str, known: Iterable[str]) -> None:
    """Raise LocalWorkError where moving HEAD, and `branch` if not empty, leaves a commit without a ref. A branch that
    does not move keeps its commits; so does every other ref, but for a stash, which may be dropped."""
    ref = f"refs/heads/{branch}"
    on = repository.git("symbolic-ref", "--quiet", "HEAD", check=False)
    tips = [*(["HEAD"] if not on or on == ref else []), *([ref] if branch else [])]
    tips += ["MERGE_HEAD"] if (repository.git_dir / "MERGE_HEAD").exists() else []
    if commits_without_ref(repository, tips, known, but=ref):
        lost = [found for tip in tips if (found := commits_without_ref(repository, [tip], known, but=ref))]
        count = len(set().union(*lost))
        where = f"on {branch}" if branch else "on a detached HEAD"
        what = f"{count} commit{'s' if count > 1 else ''} {where} in {repository.path} that its remote does not have."
        keep = [_git(repository.path, "branch", f"my-work-{found[0][:7]}", found[0]) for found in lost]
        raise LocalWorkError(f"{repository.who}: {what}", command=" && ".join(dict.fromkeys(keep)))


def commits_without_ref(
    repository: LocalRepository, tips: Iterable[str], known: Iterable[str], but: str = ""
) -> list[str]:
    """The commits below `tips` that no ref leads to but the one named `but`, and none of the commits `known`."""
    kept = [f"^{oid}" for oid in present_commits(repository, filter(None, known))]
    others = ("--not", *([f"--exclude={but}"] if but else []), "--exclude=refs/stash", "--glob=refs/*")
    options = ("rev-list", "--ignore-missing", "--missing=allow-any", "--max-count=100", "--stdin", *others)
    return repository.git(*options, stdin="".join(f"{each}\n" for each in [*tips, *kept])).split() if tips else []


def _check_branch(repository: LocalRepository, branch: str) -> None:
    branches = repository.git("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads").splitlines()
    for other in branches:
        if other.startswith(f"{branch}/") or branch.startswith(f"{other}/"):
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
    """The command that stashes the changed files; first the one that lets git see those that it was told to assume
    unchanged: git-stash(1) would overwrite them."""
    flags = repository.git("ls-files", "-v", "-z").split("\0")
    if hidden := [line[2:] for line in flags if line[:1].islower()]:
        return _git(repository.path, "update-index", "--no-assume-unchanged", "--", *hidden)
    return _git(repository.path, "stash")


def _listed(paths: list[str]) -> str:
    shown = ", ".join(paths[:SHOWN]) + (f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else "")
    return f"{len(paths)} changed file{'s' if len(paths) > 1 else ''} ({shown})"


def _git(path: Path, *args: str) -> str:
    return shlex.join(["git", "-C", os.fspath(path), *args])
