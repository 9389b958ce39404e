"""Moves a checkout to another commit whose objects are here, so that one that was cut off can be told and finished."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ..errors import LocalWorkError
from ..git.command import run
from ..git.config import GitConfig, read_config, write_config
from ..git.fetch import Entry, Remote, read_tree
from ..git.messages import GitError
from ..git.packs import write_atomic
from ..git.revisions import Target
from ..git.submodules import GITLINK, head_of
from ..git.transfer import stream
from .download import Brought
from .paths import cone
from .record import read_record, write_record
from .sparse import end_sparse, set_sparse


def move(brought: Brought, configured: str = "", vacated: Iterable[str] = ()) -> None:
    """Check out what was brought, with its submodules: a branch, reset to the remote's, or a commit on a detached HEAD.

    The caller has made sure that nothing of the user's is in the way, and `check_unfinished` that a move that was cut
    off left nothing but its own. Changes tracked files, HEAD and the branch. The folders `vacated`, of submodules that
    make room for files, go with all that is in them.
    """
    place(brought.remote, brought.target, brought.folders, vacated)
    settle(brought, configured)


def place(remote: Remote, target: Target, folders: tuple[str, ...] | None, vacated: Iterable[str] = ()) -> None:
    """The part of a `move` that needs no submodule; `settle` is the rest."""
    before = read_record(remote.git_dir)
    known = read_config(remote.git_dir)
    if before.moving and before.moving != target.commit:  # its files would be left over as untracked ones
        link_worktree(remote, known)
        run(remote.path, "checkout", "--quiet", "--force", "--detach", before.moving)
        before = replace(before, commit=before.moving, moving="")
    write_record(remote.git_dir, replace(before, moving=target.commit))
    for folder in vacated:
        shutil.rmtree(remote.path / folder, ignore_errors=True)
    link_worktree(remote, known)
    set_sparse(remote, folders, known)
    where: tuple[str, ...] = ("--detach", target.commit)
    if target.kind == "branch":
        where = ("-B", target.name, f"refs/remotes/origin/{target.name}")
        follow(remote, target.name, known)
    force = ("--force",) if before.moving == target.commit else ("--no-overwrite-ignore",)
    network, who = remote.network, remote.who
    command = ("checkout", "--quiet", *force, *where, "--")  # else it looks into each submodule for changes to tell of
    try:
        stream(remote.path, *command, who=who, doing="checking out", reporter=network.reporter)
    except GitError as error:
        if not (head_of(remote.path) and re.search(r"would be \w+ by checkout", error.what)):
            raise
        write_record(remote.git_dir, before)  # git looks first, and has touched nothing
        raise LocalWorkError(f"{who}: files were changed while the update ran.", "invoke update") from None
    if folders is None:
        end_sparse(remote)


def settle(brought: Brought, configured: str = "") -> None:
    """The rest of a `move`, after `place`: the submodules that are not checked out yet, and the record of it all."""
    if brought.submodules:
        with ThreadPoolExecutor(len(brought.submodules)) as pool:
            for done in [pool.submit(move, each) for each in brought.submodules if not each.settled]:
                done.result()
        known = read_config(brought.remote.git_dir)
        new = [each for each in brought.submodules if f"submodule.{each.target.name}.url" not in known]
        urls = {f"submodule.{each.target.name}.url": each.remote.url for each in new}
        active = {f"submodule.{each.target.name}.active": "true" for each in new}
        write_config(brought.remote.git_dir, known, active | urls)  # as git-submodule(1), init, does
    record = brought.record
    write_record(brought.remote.git_dir, replace(record, configured=configured or record.configured))


def follow(remote: Remote, branch: str, known: GitConfig) -> None:
    """Let `git fetch` and `git pull` of the user follow the branch."""
    refspec = f"+refs/heads/{branch}:refs/remotes/origin/{branch}"
    if "+refs/heads/*:refs/remotes/origin/*" not in known.get("remote.origin.fetch", ()):
        write_config(remote.git_dir, known, {"remote.origin.fetch": refspec})


def link_worktree(remote: Remote, known: GitConfig) -> None:
    """Join a submodule's folder to its repository (gitrepository-layout(5), gitfile); nothing where they are joined."""
    if remote.git_dir == remote.path / ".git" or (remote.path / ".git").exists():
        return
    remote.path.mkdir(parents=True, exist_ok=True)
    (remote.git_dir / "index").unlink(missing_ok=True)  # of files that are gone
    write_config(remote.git_dir, known, {"core.worktree": os.path.relpath(remote.path, remote.git_dir)})
    write_atomic(remote.path / ".git", f"gitdir: {os.path.relpath(remote.git_dir, remote.path)}\n", remote.git_dir)


def check_unfinished(remote: Remote, moving: str, folders: tuple[str, ...] | None = None) -> None:
    """Raise LocalWorkError where files were edited after a move to the commit `moving` was cut off.

    Such a move leaves files of the old commit, of the new one, missing ones, and ones that were being written.
    """
    head, holds = head_of(remote.path), cone(folders)
    old = read_tree(remote, head) if head else {}
    new = {path: entry for path, entry in read_tree(remote, moving).items() if holds(path)}
    paths = [p for p in sorted({*old, *new}) if (remote.path / p).is_file() and not (remote.path / p).is_symlink()]
    hashes = dict(zip(paths, _hashes(remote, paths), strict=True))
    for path in paths:
        if hashes[path] not in _oids(path, old, new) and not _cut_off(remote, path, new):
            file = remote.path / path
            raise LocalWorkError(
                f"{remote.who}: {file} was edited after an update had been cut off.",
                f"mv {shlex.quote(str(file))} {shlex.quote(f'{file}.mine')}",
            )


def _oids(path: str, *trees: Mapping[str, Entry]) -> set[str]:
    return {tree[path].oid for tree in trees if path in tree and tree[path].mode != GITLINK}


def _hashes(remote: Remote, paths: list[str]) -> list[str]:
    listed = "".join(f"{path}\n" for path in paths)
    return run(remote.path, "hash-object", "--stdin-paths", stdin=listed).split() if paths else []


def _cut_off(remote: Remote, path: str, new: Mapping[str, Entry]) -> bool:
    if path not in new:
        return False
    written = (remote.path / path).read_bytes()
    whole = run(remote.path, "cat-file", "--filters", f"{new[path].oid}", f"--path={path}", check=False)
    return whole.encode("utf-8", "surrogateescape").startswith(written)
