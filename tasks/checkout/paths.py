"""Paths in a commit: relative, with `/`, as git-ls-tree(1) has them. There are thousands, so they stay strings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence


def parents(path: str) -> list[str]:
    """The folders above a path, the outermost first."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def folders_of(paths: Iterable[str]) -> set[str]:
    """All folders above the paths."""
    found = set[str]()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


def cone(folders: Sequence[str] | None) -> Callable[[str], bool]:
    """Whether a cone-mode sparse checkout of `folders` (None: of everything) holds a file (git-sparse-checkout(1))."""
    if folders is None:
        return lambda path: True
    within = tuple(f"{folder}/" for folder in folders)
    above = {"", *folders_of(folders)}
    return lambda path: path.startswith(within) or path.rpartition("/")[0] in above
