"""What differs from the commit in a checkout, also where git was told not to look."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..git.command import run
from ..git.submodules import GITLINK, linked_git_dir

_STATUS = ("status", "--porcelain=v2", "-z", "--untracked-files=no", "--ignore-submodules=dirty", "--no-renames")


@dataclass(frozen=True)
class Change:
    """One line of git-status(1), --porcelain=v2: `state` is XY, or `u` for unmerged; `oid` is what the commit has."""

    state: str
    submodule: bool
    oid: str
    path: str


@dataclass(frozen=True)
class _Staged:
    """One line of git-ls-files(1), -v --stage; the `flag` is in lower case, or S, where git was told not to look."""

    flag: str
    mode: str
    oid: str
    path: str


def changes_of(path: Path) -> list[Change]:
    """What git-status(1) tells but untracked files, submodules last. Their own changes count; all are looked at in
    parallel, which git does not do."""
    links = _submodules(path)
    found = []
    with ThreadPoolExecutor(len(links) + 1) as pool:
        inner = [pool.submit(changes_of, path / each.path) for each in links]
        for line in run(path, *_STATUS).split("\0"):
            if line.startswith("1 "):
                _, state, submodule, _, _, _, oid, _, name = line.split(" ", 8)
                found.append(Change(state, submodule[0] == "S", oid, name))
            elif line.startswith("u "):
                found.append(Change("u", False, "", line.split(" ", 10)[-1]))
        told = {change.path for change in found}
        dirty = [link for link, below in zip(links, inner, strict=True) if below.result() and link.path not in told]
    found += [Change(".M", True, link.oid, link.path) for link in dirty]
    return sorted(found, key=lambda change: change.submodule)


def hidden_changes(path: Path) -> list[tuple[str, str]]:
    """The changed files that git does not look at, each with the option of git-update-index(1) that makes it look."""
    flagged = _staged(path, lambda line: line[0].islower() or line[0] == "S")
    files = [each for each in flagged if (path / each.path).is_file() or (path / each.path).is_symlink()]
    if not files:
        return []
    now = run(path, "hash-object", "--stdin-paths", stdin="".join(f"{each.path}\n" for each in files)).split()
    changed = {each.path for each, oid in zip(files, now, strict=True) if each.oid != oid}
    options = {"h": "--no-assume-unchanged"}
    return [(each.path, options.get(each.flag, "--no-skip-worktree")) for each in flagged if each.path in changed]


def changed_paths(path: Path) -> list[str]:
    """The tracked files that differ from the commit, and the submodules with other commits or changed files."""
    return [change.path for change in changes_of(path)]


def note_unchanged(path: Path) -> None:
    """Let git note which files it finds unchanged, as git-status(1) does for people: until then it reads again, each
    time, what it wrote in the second before the index (gitformat-index(5), racy entries)."""
    for place in (path, *(path / each.path for each in _submodules(path))):
        run(place, *_STATUS, check=False, locks=True)


def _submodules(path: Path) -> list[_Staged]:
    return [each for each in _staged(path, lambda line: line[2:8] == GITLINK) if linked_git_dir(path / each.path)]


def _staged(path: Path, which: Callable[[str], bool]) -> list[_Staged]:
    lines = run(path, "ls-files", "-v", "--stage", "-z").split("\0")
    parts = (line.partition("\t") for line in lines if line and which(line))
    heads = ((head.split(), name) for head, _, name in parts)
    return [_Staged(flag, mode, oid, name) for (flag, mode, oid, _), name in heads]
