"""Which directories of a submodule are checked out (git-sparse-checkout(1), cone mode)."""

from __future__ import annotations

import re
import sys
from itertools import takewhile
from pathlib import PurePosixPath

from ..git.repository import Checkout

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Directories = tuple[str, ...] | None  # None: all of them


def shipped_directories(pyproject: str, submodule: str) -> Directories:
    """The directories of the submodule at path `submodule` that the package ships, relative to it.

    They are declared in pyproject.toml: `[tool.setuptools.package-dir]` (package -> directory) and
    `[tool.setuptools.package-data]` (package -> patterns); what precedes the first wildcard of a pattern counts.
    """
    root = PurePosixPath(submodule)
    shipped: set[PurePosixPath] = set()
    try:
        setuptools = tomllib.loads(pyproject.removeprefix("\ufeff"))["tool"]["setuptools"]
        places, data = setuptools["package-dir"], setuptools["package-data"]
        for path in (PurePosixPath(places[name], pattern) for name in data if name in places for pattern in data[name]):
            parts = list(takewhile(lambda part: not set(part) & set("*?["), path.parts[:-1]))
            directory = PurePosixPath(*parts)
            if root in directory.parents:
                shipped.add(directory.relative_to(root))
            elif directory in (root, *root.parents) and (len(parts) < len(path.parts) - 1 or path.name == "**"):
                return None
    except (KeyError, TypeError, ValueError, RecursionError):  # no declaration, or not one that setuptools accepts
        return None
    if not all(re.fullmatch(r"\w[\w.+ -]*", part) for directory in shipped for part in directory.parts):
        return None
    return tuple(sorted(str(directory) for directory in shipped if not shipped.intersection(directory.parents))) or None


def choose(checkout: Checkout, shipped: Directories) -> tuple[Directories, Directories]:
    """Which directories of a submodule are to be fetched, and which are to be set once it is at its new commit (none
    where the tuple is empty: all are checked out then; None changes nothing). Directories are only ever added."""
    if not checkout.is_linked:
        return shipped, shipped
    if not is_cone(checkout):
        return None, None  # all of them, or patterns that no list of directories can say
    if shipped is None:
        return None, ()
    now = tuple(filter(None, checkout.git("sparse-checkout", "list", check=False).split("\n")))
    missing = [path for path in shipped if not {path, *map(str, PurePosixPath(path).parents)}.intersection(now)]
    return (*now, *missing), (*now, *missing) if missing else None


def is_cone(checkout: Checkout) -> bool:
    """Whether only some directories of it are checked out, as a list of them says."""
    return checkout.is_sparse and checkout.config.get("core.sparsecheckoutcone") != "false"


def set_directories(checkout: Checkout, directories: Directories) -> None:
    """Check out exactly these directories; all where the tuple is empty; None changes nothing."""
    if directories:
        checkout.git("sparse-checkout", "set", "--cone", *directories)
    elif directories is not None:
        checkout.git("sparse-checkout", "disable")
