"""Which directories of a submodule are checked out (git-sparse-checkout(1), cone mode).

git's own command would first fetch and write the files of the commit that is about to be left, so the patterns for a
commit that is not checked out yet are written here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath

from ..files import write_atomic
from ..git import LocalRepository
from .state import Record

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def shipped_directories(pyproject: str, submodule: str) -> tuple[str, ...] | None:
    """The directories of the submodule at path `submodule` that the package ships, relative to it; None is all of it.

    They are declared in pyproject.toml: `[tool.setuptools.package-dir]` (package -> directory) and
    `[tool.setuptools.package-data]` (package -> patterns); what precedes the first wildcard of a pattern counts.
    """
    root = PurePosixPath(submodule)
    found: set[PurePosixPath] = set()
    try:
        setuptools = tomllib.loads(pyproject.removeprefix("\ufeff"))["tool"]["setuptools"]
        places, data = setuptools["package-dir"], setuptools["package-data"]
        for path in (PurePosixPath(places[name], each) for name in data if name in places for each in data[name]):
            parts = list(takewhile(lambda part: not set(part) & set("*?["), path.parts[:-1]))
            directory = PurePosixPath(*parts)
            if root in directory.parents:
                found.add(directory.relative_to(root))
            elif directory in (root, *root.parents) and (len(parts) < len(path.parts) - 1 or path.name == "**"):
                return None
    except (KeyError, TypeError, ValueError, RecursionError):  # no declaration, or not one that setuptools accepts
        return None
    if not all(re.fullmatch(r"\w[\w.+ -]*", part) for directory in found for part in directory.parts):
        return None
    return tuple(sorted(str(each) for each in found if not found.intersection(each.parents))) or None


def cone(directories: Sequence[str] | None) -> Callable[[str], bool]:
    """Whether a sparse checkout of `directories` (None: of everything) holds a file."""
    if directories is None:
        return lambda path: True
    within = tuple(f"{directory}/" for directory in directories)
    above = {"", *_parents(directories)}
    return lambda path: path.startswith(within) or path.rpartition("/")[0] in above


def set_sparse(repository: LocalRepository, directories: tuple[str, ...] | None, record: Record) -> None:
    """Write the patterns for the next commit: all files where `directories` is None. `record` says what was written
    last; other patterns are the user's, and stay."""
    file, before, wanted = _file(repository), _read(repository), _patterns(directories)
    if directories is None and not before:
        return
    if before not in ("", wanted, _recorded(record)):
        return repository.network.reporter.event(repository.who, "your sparse-checkout patterns are kept")
    file.parent.mkdir(exist_ok=True)
    write_atomic(file, wanted)
    if repository.git("config", "core.sparseCheckout", check=False) != "true":
        for option in ("core.sparseCheckout", "core.sparseCheckoutCone"):
            repository.git("config", "--worktree", option, "true")


def is_users(repository: LocalRepository, record: Record) -> bool:
    """Whether the patterns are the user's own."""
    return _read(repository) not in ("", _recorded(record))


def end_sparse(repository: LocalRepository) -> None:
    """Switch sparse checkout off where all files are wanted, unless the patterns are the user's."""
    if _read(repository) == _patterns(None) and repository.git("config", "core.sparseCheckout", check=False) == "true":
        repository.git("sparse-checkout", "disable")


def _file(repository: LocalRepository) -> Path:
    return repository.git_dir / "info/sparse-checkout"


def _read(repository: LocalRepository) -> str:
    file = _file(repository)
    return file.read_text(encoding="utf-8", errors="surrogateescape") if file.exists() else ""


def _recorded(record: Record) -> str:
    return _patterns(tuple(record.configured.splitlines()) or None)


def _patterns(directories: tuple[str, ...] | None) -> str:
    if directories is None:
        return "/*\n"
    above = _parents(directories)
    lines = ["/*", "!/*/"]
    for place in sorted({*above, *directories}):
        lines += [f"/{place}/", f"!/{place}/*/"] if place in above else [f"/{place}/"]
    return "".join(f"{line}\n" for line in lines)


def _parents(paths: Iterable[str]) -> set[str]:
    return {str(parent) for path in paths for parent in PurePosixPath(path).parents} - {"."}
