"""Facts about the running interpreter. Others (Python 3.8 or newer) run this file by itself, so it imports no other."""

import os
import platform
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def facts(packaging: str = "") -> "dict[str, Any]":
    """The fields of `environment.Environment`, less the interpreter's own path, as JSON can hold them.

    `packaging` is the directory with the library of that name, for an interpreter that may not have it.
    """
    paths, virtual = sysconfig.get_paths(), sys.prefix != sys.base_prefix
    known = {
        "prefix": sys.prefix,
        "version": platform.python_version(),
        "virtual": virtual,
        "purelib": paths["purelib"],
        "writable": all(_writable(Path(paths[place])) for place in ("purelib", "platlib", "scripts")),
        "externally_managed": not virtual and (Path(paths["stdlib"]) / "EXTERNALLY-MANAGED").exists(),
        "has_pip": find_spec("pip") is not None and find_spec("pip.__main__") is not None,
        "paths": [path for path in sys.path if path and Path(path) != Path.cwd()],
    }
    sys.path[:0] = [packaging] if packaging else []
    from packaging.markers import default_environment

    return {**known, "markers": default_environment()}


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK) if path.exists() else _writable(path.parent)
