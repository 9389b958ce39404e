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


def choose(checkout: Checkout, shipped: Directories) -> Directories:
    """Which directories of a submodule are to be checked out: what is shipped, and those that are there already. None
    where all are there, or patterns that no list of directories can say."""
    if shipped is None or not checkout.is_linked:
        return shipped
    now = checkout.directories
    if now is None:
        return None
    missing = [path for path in shipped if not {path, *map(str, PurePosixPath(path).parents)}.intersection(now)]
    return (*now, *missing)


def set_directories(checkout: Checkout, directories: Directories) -> None:
    """Check out exactly these directories."""
    if checkout.directories == directories:
        return
    if directories is None:
        checkout.git("sparse-checkout", "disable")
    else:
        checkout.git("sparse-checkout", "set", "--cone", *directories)
