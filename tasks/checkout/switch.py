"""Checking out a commit whose objects are all here, so that an interruption can be noticed and finished."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..errors import LocalWorkError
from ..git import (
    Advertised,
    GitError,
    LocalRepository,
    OverwriteError,
    Refs,
    Target,
    conflicting,
    linked_git_dir,
    move_aside,
    release,
    untracked_files,
)
from ..names import TAGS, TRACKING
from .download import Commit, unset_worktree
from .local_work import check_submodule_work, commits_without_ref, explain_refusal
from .sparse import end_sparse, set_sparse
from .state import read_record, write_record


def set_tags(repository: LocalRepository, local: Refs, target: Target, advertised: Advertised) -> None:
    """Set the version tags, and one that is the target, as the remote has them. `local` are the refs as they were; what
    a tag named before keeps a ref below refs/previous/."""
    tags = {f"{TAGS}{tag}": oid for tag, oid in advertised.tags.items() if release(tag)}
    if target.kind == "tag":
        tags[f"{TAGS}{target.name}"] = target.object
    moved = {ref: local[ref][0] for ref, oid in tags.items() if ref in local and local[ref][0] != oid}
    lines = [f"update refs/previous/{ref.removeprefix('refs/')}/{oid[:12]} {oid}" for ref, oid in moved.items()]
    lines += [f"update {ref} {oid} {moved.get(ref, '')}".strip() for ref, oid in tags.items()
              if ref not in local or ref in moved]  # fmt: skip
    if lines:
        repository.git("update-ref", "--stdin", stdin="".join(f"{line}\n" for line in lines))


def set_branch(repository: LocalRepository, local: Refs, target: Target) -> None:
    """Set the remote-tracking branch of the target; `local` are the refs as they were. What the remote had keeps a ref
    below refs/fetched/, so that it can be told from the user's commits."""
    fetched = {target.commit, read_record(repository.git_dir).commit} - {""}
    tracking, lines = f"{TRACKING}{target.branch}", list[str]()
    if target.branch:
        others = conflicting(local, tracking)
        fetched |= {local[ref][0] for ref in (*others, tracking) if ref in local}
        for ref in others:  # gone from the remote, and its name is in the way
            repository.git("update-ref", "-d", ref)
        lines.append(f"update {tracking} {target.commit}")
    lines += [f"update refs/fetched/{oid} {oid}" for oid in sorted(fetched)]
    repository.git("update-ref", "--stdin", stdin="".join(f"{line}\n" for line in lines))
    if target.branch:
        _follow(repository, target.branch)


def check_out_new(commit: Commit) -> None:
    """Check out the commit, without its submodules, in a repository where there is nothing to protect."""
    target = commit.target
    branch = ("-B", target.name, "--track", f"origin/{target.name}")
    where = branch if target.kind == "branch" else ("--detach", target.commit)
    try:
        commit.repository.git("checkout", "--progress", *where, doing="checking out")
    except OverwriteError as error:  # by the commit itself: nothing of the user's is there
        what = f"{commit.repository.who}: git refuses to check out {error.paths[0]} of {target.commit}."
        raise GitError(what) from None


def check_out(commit: Commit) -> None:
    """Check out the commit, without its submodules, on a detached HEAD.

    Raises LocalWorkError where git refuses, having changed nothing.
    """
    repository, target = commit.repository, commit.target
    before = read_record(repository.git_dir)
    set_sparse(repository, commit.directories, before)
    configured = commit.record.configured or before.configured
    write_record(repository.git_dir, replace(before, configured=configured, moving=target.commit))
    try:
        switch(repository, target.commit)
    except LocalWorkError:
        write_record(repository.git_dir, before)
        raise
    if commit.directories is None:
        end_sparse(repository)


def switch(repository: LocalRepository, commit: str, branch: str = "") -> None:
    """Switch to the commit, on a detached HEAD or on the branch that is there, unless git refuses: LocalWorkError,
    nothing is changed then. A commit that was made since the last look keeps a ref below refs/rescue/: the reflog has
    what HEAD left."""
    where = (branch,) if branch else ("--detach", commit)
    command = ("-c", "core.logAllRefUpdates=true", "switch", "--progress", "--no-overwrite-ignore", *where)
    try:
        repository.git(*command, doing="checking out")
    except OverwriteError as error:
        raise explain_refusal(repository, error) from None
    left = repository.git("rev-parse", "--quiet", "--verify", "HEAD@{1}", check=False)
    known = [read_record(repository.git_dir).commit, commit]
    if left and left not in known and commits_without_ref(repository, [left], known):
        repository.git("update-ref", f"refs/rescue/{left[:12]}", left)
        what = f"a commit was made in {repository.path} meanwhile; it is kept as refs/rescue/{left[:12]}"
        repository.network.reporter.warn(repository.who, what)


def move_branch(repository: LocalRepository, target: Target, old: str) -> None:
    """Move the branch of the target from the commit `old` (empty: create it) to the one that is checked out, and HEAD
    onto the branch. Raises LocalWorkError where somebody has committed meanwhile; the commit stays where it is."""
    try:
        repository.git("update-ref", f"refs/heads/{target.name}", target.commit, old or "0" * len(target.commit))
    except GitError:
        what = f"{repository.who}: a commit was made in {repository.path} while the update ran."
        raise LocalWorkError(what, "Nothing is lost. Run the same command again:", "invoke update") from None
    switch(repository, target.commit, target.name)
    if not old:
        repository.git("branch", "--quiet", f"--set-upstream-to=origin/{target.name}", target.name)


def check_out_submodules(parent: Commit) -> None:
    """Check out the submodules of a commit that is checked out. New ones are linked and checked out by
    git-submodule(1) out of the repositories that were prepared."""
    children = [each for each in parent.submodules if not each.is_checked_out]
    new = [each for each in children if not linked_git_dir(each.repository.path)]
    for each in new:
        store = replace(each.repository, path=each.repository.git_dir)
        before = read_record(store.git_dir)
        _keep_index(store)
        set_sparse(store, each.directories, before)
        write_record(store.git_dir, replace(before, configured=each.record.configured, moving=each.target.commit))
    paths = {each.target.name: each.repository.path.relative_to(parent.repository.path).as_posix() for each in children}
    if children:
        parent.repository.git("submodule", "--quiet", "init", "--", *paths.values())
    command = ("submodule", "--quiet", "update", "--checkout", "--no-fetch", "--")
    with ThreadPoolExecutor(max(1, len(new))) as pool:  # saves 0.4 s of 5.8 s in a second worktree
        for done in [pool.submit(parent.repository.git, *command, paths[each.target.name]) for each in new]:
            done.result()
    for each in children:
        if each not in new:
            check_out(each)
    for each in parent.submodules:
        check_out_submodules(each)
        write_record(each.repository.git_dir, each.record)


def check_removal(parent: LocalRepository, path: str) -> None:
    """Raise LocalWorkError where anything is the user's in a submodule that the next commit does not have."""
    place = parent.path / path
    git_dir = linked_git_dir(place)
    if not git_dir:
        return
    if not git_dir.is_relative_to((parent.git_dir / "modules").resolve()):
        what = f"{parent.who}: {place} is not a submodule in the new commit, but a repository of its own."
        raise LocalWorkError(what, command=move_aside(place))
    repository = replace(parent, path=place, git_dir=git_dir, who=f"{parent.who}/{path}")
    check_submodule_work(repository)
    if files := untracked_files(place):
        what = f"{parent.who}: {place} is not a submodule in the new commit, and contains a file of yours: {files[0]}."
        raise LocalWorkError(what, command=move_aside(place))


def remove_submodule(parent: LocalRepository, path: str) -> None:
    """Remove the files of a submodule, atomically. Its repository stays in .git/modules."""
    place = parent.path / path
    if git_dir := linked_git_dir(place):
        with tempfile.TemporaryDirectory(dir=parent.git_dir, prefix="removed-") as directory:
            place.rename(Path(directory, "files"))
        unset_worktree(git_dir)
        parent.git("submodule", "--quiet", "deinit", "--", path)  # its configuration, and an empty directory
        with suppress(OSError):
            place.rmdir()


def _follow(repository: LocalRepository, branch: str) -> None:
    """Let `git fetch` and `git pull` of the user follow the branch."""
    refspecs = repository.git("config", "--get-all", "remote.origin.fetch", check=False).splitlines()
    wanted = {f"+refs/heads/{name}:refs/remotes/origin/{name}" for name in (branch, "*")}
    if not wanted.intersection(refspecs):
        repository.git("remote", "set-branches", "--add", "origin", branch)


def _keep_index(store: LocalRepository) -> None:
    """Keep what is staged in the repository of a submodule whose files are gone, under a ref."""
    if (store.git_dir / "index").exists():
        tree = store.git("write-tree", "--missing-ok", check=False)
        if tree and tree != store.git("rev-parse", "--quiet", "--verify", "HEAD^{tree}", check=False):
            store.git("update-ref", f"refs/rescue/{tree[:12]}", tree)
