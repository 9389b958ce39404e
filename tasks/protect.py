"""Finds what of the user's a move of a checkout could lose. Whatever is found is left byte for byte as it is."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from .config import redact
from .errors import LocalWorkError
from .fetch import Entry, Remote
from .git import run
from .model import Repository
from .objects import read_shallow
from .submodules import GITLINK

_UNDER_WAY = {
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "BISECT_LOG": "bisect",
}
_LOCKS = ("index.lock", "HEAD.lock", "shallow.lock", "config.lock", "packed-refs.lock", "refs/**/*.lock")


def check_place(repository: Repository) -> bool:
    """Whether a checkout lies at the repository's path; False where nothing does.

    Raises LocalWorkError for anything else: a file, a link, a folder that is no checkout, one of another remote.
    """
    path = repository.path
    if not path.is_symlink() and (not path.exists() or (path.is_dir() and not any(path.iterdir()))):
        return False
    aside = _command("mv", str(path), f"{path}.mine")
    if path.is_symlink() or not path.is_dir():
        kind = "a symbolic link" if path.is_symlink() else "no folder"
        raise LocalWorkError(f"{repository.name}: {path} is {kind}; a checkout belongs there.", aside)
    if not (path / ".git" / "HEAD").is_file():
        raise LocalWorkError(f"{repository.name}: {path} is a folder, but no checkout of its own.", aside)
    url = run(path, "config", "remote.origin.url", check=False)
    if url != repository.url:
        raise LocalWorkError(
            f"{repository.name}: {path} comes from {redact(url) or 'no remote'}, configured is {redact(repository.url)}.",
            _command("git", "-C", str(path), "remote", "set-url" if url else "add", "origin", redact(repository.url)),
        )
    return True


def check_changes(remote: Remote) -> None:
    """Raise LocalWorkError where the checkout has changed, staged or deleted files, a changed submodule, or an
    operation of the user's under way."""
    for file, operation in _UNDER_WAY.items():
        if (remote.git_dir / file).exists():
            finish = _command("git", "-C", str(remote.path), operation, "reset" if operation == "bisect" else "--abort")
            raise LocalWorkError(f"{remote.who}: a {operation} is under way in {remote.path}.",
                                 f"Finish it, or give it up: {finish}")  # fmt: skip
    if changed := changed_paths(remote.path):
        shown = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")  # noqa: PLR2004
        inside = next((p for p in changed if (remote.path / p / ".git").exists()), "")
        raise LocalWorkError(f"{remote.who}: {len(changed)} changed in {remote.path}: {shown}.",
                             _command("git", "-C", str(remote.path / inside), "stash"))  # fmt: skip


def changed_paths(path: Path) -> list[str]:
    """The tracked files that differ from the commit, and the submodules with other commits or changed files."""
    told = run(path, "status", "--porcelain=v2", "-z", "--untracked-files=no", "--ignore-submodules=untracked", "--no-renames")
    return [line.split(" ", 10 if line.startswith("u") else 8)[-1] for line in told.split("\0") if line[:2] in ("1 ", "u ")]


def check_room(remote: Remote, before: Mapping[str, Entry], after: Mapping[str, Entry]) -> None:
    """Raise LocalWorkError where a file that no commit has lies where the new commit puts one."""
    in_the_way = []
    for path in after.keys() - before.keys():
        place = remote.path / path
        if after[path].mode == GITLINK:
            taken = os.path.lexists(place) and not (place.is_dir() and ((place / ".git").exists() or not any(place.iterdir())))
        else:
            taken = os.path.lexists(place) or any(
                (remote.path / parent).is_symlink() or (remote.path / parent).is_file()
                for parent in PurePosixPath(path).parents[:-1]
                if str(parent) not in before
            )
        if taken:
            in_the_way.append(path)
    if in_the_way:
        first = remote.path / min(in_the_way)
        raise LocalWorkError(f"{remote.who}: {len(in_the_way)} untracked where the new commit has files: {first}.",
                             _command("mv", str(first), f"{first}.mine"))  # fmt: skip


def check_commits(remote: Remote, branch: str, known: Iterable[str]) -> None:
    """Raise LocalWorkError where moving HEAD, and `branch` if not empty, would leave a commit without a ref.

    Commits that the remote has had are no loss: its branches, what was ever fetched from it, and `known`.
    """
    heads = [ref for ref in ("HEAD", f"refs/heads/{branch}" if branch else "") if ref and _exists(remote, ref)]
    if branch and run(remote.path, "symbolic-ref", "--quiet", "HEAD", check=False) not in ("", f"refs/heads/{branch}"):
        heads.remove("HEAD")  # another branch keeps it
    elif not branch and run(remote.path, "symbolic-ref", "--quiet", "HEAD", check=False):
        heads = []
    if not heads:
        return
    kept = [f"^{oid}" for oid in {*read_shallow(remote.git_dir), *known} if oid]
    others = ["--not", *([f"--exclude={branch}"] if branch else []), "--branches", "--remotes", "--tags", "--glob=refs/previous"]
    stdin = "\n".join([*heads, *kept]) + "\n"
    lost = run(remote.path, "rev-list", "--ignore-missing", "--max-count=100", "--stdin", *others, stdin=stdin).split()
    if lost:
        where = f"on {branch}" if branch else "on a detached HEAD"
        raise LocalWorkError(f"{remote.who}: {len(lost)} commits {where} in {remote.path} that its remote does not have.",
                             _command("git", "-C", str(remote.path), "branch", "my-work", lost[0][:12]))  # fmt: skip


def clear_stale_locks(remote: Remote) -> None:
    """Remove the lock files that a dead git left; LocalWorkError where a living one works in the checkout."""
    locks = [lock for pattern in _LOCKS for lock in remote.git_dir.glob(pattern)]
    if not locks:
        return
    import psutil

    for process in psutil.process_iter(["name"]):
        try:
            if process.info["name"] == "git" and Path(process.cwd()).is_relative_to(remote.path.resolve()):
                raise LocalWorkError(f"{remote.who}: git (process {process.pid}) is at work in {remote.path}.",
                                     "Wait until it is done, then run the same command again.")  # fmt: skip
        except psutil.Error:
            continue
    for lock in locks:
        lock.unlink(missing_ok=True)
    remote.network.listener.event(remote.who, f"removed {len(locks)} lock files that a dead git had left")


def _exists(remote: Remote, ref: str) -> bool:
    return bool(run(remote.path, "rev-parse", "--quiet", "--verify", f"{ref}^{{commit}}", check=False))


def _command(*argv: str) -> str:
    return shlex.join(argv)
