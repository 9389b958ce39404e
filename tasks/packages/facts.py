"""Facts about the running interpreter. Others (Python 3.8 or newer) run this file by itself, so it imports no other."""

import os
import platform
import sys
import sysconfig
from pathlib import Path
from typing import Any


def facts(packaging: str = "") -> "dict[str, Any]":
    """The fields of `environment.Environment`, less the interpreter's own path, as JSON can hold them; of a Python
    before 3.10 its version alone.

    `packaging` is the directory with the library of that name, for an interpreter that may not have it.
    """
    if sys.version_info < (3, 10):  # noqa: UP036 - run by other interpreters, too
        return {"version": platform.python_version()}
    paths, virtual = sysconfig.get_paths(), sys.prefix != sys.base_prefix
    known = {
        "prefix": sys.prefix,
        "version": platform.python_version(),
        "virtual": virtual,
        "purelib": paths["purelib"],
        "writable": all(_writable(Path(paths[place])) for place in ("purelib", "platlib", "scripts")),
        "externally_managed": not virtual and (Path(paths["stdlib"]) / "EXTERNALLY-MANAGED").exists(),
        "paths": [path for path in sys.path if path and Path(path) != Path.cwd()],
    }
    sys.path[:0] = [packaging] if packaging else []
    from packaging.markers import default_environment

    return {**known, "markers": default_environment()}


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK) if path.exists() else _writable(path.parent)
