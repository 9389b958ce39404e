"""Facts about the running interpreter. Others (Python 3.8 or newer) run this file by itself, so it imports no other."""

import json
import platform
import sys
import sysconfig
from pathlib import Path
from typing import Any


def facts() -> "dict[str, Any]":
    """The fields of `environment.Environment`, less the interpreter's own path, as JSON can hold them."""
    from packaging.markers import default_environment

    paths, virtual = sysconfig.get_paths(), sys.prefix != sys.base_prefix
    return {
        "prefix": sys.prefix,
        "version": platform.python_version(),
        "virtual": virtual,
        "purelib": paths["purelib"],
        "externally_managed": not virtual and (Path(paths["stdlib"]) / "EXTERNALLY-MANAGED").exists(),
        "paths": [path for path in sys.path if path and Path(path) != Path.cwd()],
        "markers": default_environment(),
    }


if __name__ == "__main__":  # its argument is the directory with the library `packaging`, which this Python may not have
    if sys.version_info < (3, 10):  # noqa: UP036 - run by other interpreters, too
        print(json.dumps({"version": platform.python_version()}))
    else:
        sys.path[0] = sys.argv[1]
        known = facts()
        known["paths"].remove(sys.argv[1])
        print(json.dumps(known))
