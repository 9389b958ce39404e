"""What differs from the commit in a checkout, also where git was told not to look."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .git import run


@dataclass(frozen=True)
class Change:
    """One line of git-status(1), --porcelain=v2: `state` is XY, or `u` for unmerged; `oid` is what the commit has."""

    state: str
    submodule: bool
    oid: str
    path: str


def changes_of(path: Path) -> list[Change]:
    """What git-status(1) tells but untracked files, submodules last."""
    options = ("--porcelain=v2", "-z", "--untracked-files=no", "--ignore-submodules=untracked", "--no-renames")
    found = []
    for line in run(path, "status", *options).split("\0"):
        if line.startswith("1 "):
            _, state, submodule, _, _, _, oid, _, name = line.split(" ", 8)
            found.append(Change(state, submodule[0] == "S", oid, name))
        elif line.startswith("u "):
            found.append(Change("u", False, "", line.split(" ", 10)[-1]))
    return sorted(found, key=lambda change: change.submodule)


def hidden_changes(path: Path) -> list[tuple[str, str]]:
    """The changed files that git does not look at, each with the option of git-update-index(1) that makes it look."""
    listed = run(path, "ls-files", "-v", "-z").split("\0")
    flagged = [(line[0], line[2:]) for line in listed if line[:1].islower() or line[:1] == "S"]
    files = [name for _, name in flagged if (path / name).is_file() or (path / name).is_symlink()]
    if not files:
        return []
    staged = run(path, "ls-files", "--stage", "-z").split("\0")
    known = {line.partition("\t")[2]: line.split()[1] for line in staged if line}
    now = run(path, "hash-object", "--stdin-paths", stdin="".join(f"{name}\n" for name in files)).split()
    changed = {name for name, oid in zip(files, now, strict=True) if known[name] != oid}
    options = {"h": "--no-assume-unchanged"}
    return [(name, options.get(flag, "--no-skip-worktree")) for flag, name in flagged if name in changed]


def changed_paths(path: Path) -> list[str]:
    """The tracked files that differ from the commit, and the submodules with other commits or changed files."""
    return [change.path for change in changes_of(path)]
