"""Finishing a switch that was interrupted, without force.

A `git switch` from OLD to NEW that was killed leaves the old index, and some files new, some missing, one half written.
Where index and file are OLD's or NEW's, they are made consistent; anything else is the user's. Then git's own, guarded
switch does the rest.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ..errors import LocalWorkError, counted
from ..git import Entry, LocalRepository, move_aside, read_tree, run
from ..models import Reporter
from .local_work import differing, stash

_STALE = ("index.lock", "HEAD.lock", "shallow.lock", "config*.lock", "packed-refs.lock", "refs/**/*.lock", "*.new",
          "objects/pack/tmp_*", "info/*.new", "fetch-*", "tmp-index*", "removed-*")  # fmt: skip


def remove_stale_files(git_dir: Path, began: float, ended: float, reporter: Reporter) -> None:
    """Remove the locks and drafts that a run of this tool left when it was killed; it lived between these times. Files
    from before and after are other programs'."""
    inner = [refs.parent for refs in (git_dir / "modules").rglob("refs")]
    removed = 0
    for file in (file for each in (git_dir, *inner) for pattern in _STALE for file in each.glob(pattern)):
        if began <= file.lstat().st_mtime <= ended:
            if file.is_dir():
                shutil.rmtree(file, ignore_errors=True)
            else:
                file.unlink(missing_ok=True)
            removed += 1
    if removed:
        reporter.event(git_dir.parent.name, f"removed {counted(removed, 'stale file')} of an interrupted run")


def make_consistent(repository: LocalRepository, old: str, new: str) -> None:
    """Prepare the working tree and the index of an interrupted switch from the commit `old` (empty: none) to `new` for
    `git switch`. Raises LocalWorkError where a file or an entry is neither the old nor the new one."""
    before = read_tree(repository.path, old) if old else {}
    after = read_tree(repository.path, new)
    paths = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    differ_from_old, differ_from_new = differing(repository, old), differing(repository, new)
    index, skipped = _index(repository)
    entries, restore, remove = list[str](), list[str](), list[str]()
    for path in sorted(paths):
        file = repository.path / path
        exists = os.path.lexists(file)
        if path in skipped and not exists:  # left out by sparse-checkout patterns
            continue
        if index.get(path) not in (before.get(path), after.get(path)):
            raise _users(repository, path, staged=True)
        is_new = path not in differ_from_new if path in after else not exists
        is_old = path not in differ_from_old if path in before else not exists
        if is_new and path in after:
            entries.append(f"{after[path].mode} {after[path].oid}\t{path}")
        elif is_new:
            entries.append(f"0 {'0' * len(new)}\t{path}")
        elif is_old and index.get(path) == before.get(path):
            continue
        elif not exists or _is_begun(repository, path, after):
            if exists:
                _rescue(repository, file)
            (restore if path in index else remove).append(path)
        else:
            raise _users(repository, path)
    for path in remove:
        (repository.path / path).unlink(missing_ok=True)
    if restore:
        run(repository.path, "checkout-index", "-f", "-z", "--stdin", stdin="".join(f"{path}\0" for path in restore))
    if entries:
        run(repository.path, "update-index", "-z", "--index-info", stdin="".join(f"{each}\0" for each in entries))


def _index(repository: LocalRepository) -> tuple[dict[str, Entry], set[str]]:
    """The entries of the index, and the paths of those that git was told to leave out of the working tree."""
    lines = (line.split("\t", 1) for line in repository.git("ls-files", "-t", "--stage", "-z").split("\0") if line)
    entries = [(head.split(), path) for head, path in lines]
    skipped = {path for (flag, *_), path in entries if flag == "S"}
    return {path: Entry(mode, oid if stage == "0" else "") for (_, mode, oid, stage), path in entries}, skipped


def _is_begun(repository: LocalRepository, path: str, after: Mapping[str, Entry]) -> bool:
    """Whether a regular file holds the beginning of what the new commit has there; all of it, if it has its mode."""
    file, entry = repository.path / path, after.get(path)
    if not entry or not entry.mode.startswith("100") or file.is_symlink() or not file.is_file():
        return False
    complete = os.fsencode(run(repository.path, "cat-file", "--filters", f"--path={path}", entry.oid, check=False))
    content = file.read_bytes().removesuffix(b"\n")
    has_mode = os.access(file, os.X_OK) == (entry.mode == "100755")
    return complete.startswith(content) and (has_mode or content != complete)


def _rescue(repository: LocalRepository, file: Path) -> None:
    """Keep the content of a half-written file under a ref: it could be the user's."""
    if content := file.read_bytes():
        name = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        oid = run(repository.path, "hash-object", "-w", "--no-filters", "--", str(file.absolute()))
        run(repository.path, "update-ref", f"refs/rescue/{name[:12]}", oid)


def _users(repository: LocalRepository, path: str, *, staged: bool = False) -> LocalWorkError:
    what = f"{repository.who}: {path} in {repository.path} was changed after an update had been interrupted."
    directory = (repository.path / path).is_dir()  # whose untracked files git stash would delete
    command = stash(repository) if staged and not directory else move_aside(repository.path / path)
    return LocalWorkError(what, command=command)
