"""What an interpreter says of itself. Handed to others as a script (Python 3.8 on), so it imports nothing of ours."""

import json
import os
import platform
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Optional


def facts() -> "dict[str, Any]":
    """The fields of `environment.Environment`, less the interpreter's own path, as JSON can hold them."""
    paths = sysconfig.get_paths()
    info = sys.implementation.version
    return {
        "prefix": sys.prefix,
        "version": platform.python_version(),
        "virtual": sys.prefix != sys.base_prefix,
        "purelib": paths["purelib"],
        "platlib": paths["platlib"],
        "writable": all(_writable(Path(paths[place])) for place in ("purelib", "platlib", "scripts")),
        "externally_managed": _externally_managed(paths["stdlib"]),
        "has_pip": find_spec("pip") is not None and find_spec("pip.__main__") is not None,
        "markers": {
            "implementation_name": sys.implementation.name,
            "implementation_version": ".".join(map(str, info[:3]))
            + ("" if info.releaselevel == "final" else info.releaselevel[0] + str(info.serial)),
            "os_name": os.name,
            "platform_machine": platform.machine(),
            "platform_release": platform.release(),
            "platform_system": platform.system(),
            "platform_version": platform.version(),
            "python_full_version": platform.python_version(),
            "platform_python_implementation": platform.python_implementation(),
            "python_version": ".".join(platform.python_version_tuple()[:2]),
            "sys_platform": sys.platform,
        },
        "paths": [path for path in sys.path if path and Path(path) != Path.cwd()],
    }


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK) if path.exists() else _writable(path.parent)


def _externally_managed(stdlib: str) -> Optional[str]:  # noqa: UP045 - Python 3.8
    try:
        virtual = sys.prefix != sys.base_prefix  # which PEP 668 spares
        return None if virtual else (Path(stdlib) / "EXTERNALLY-MANAGED").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    print("\n" + sys.argv[1] + json.dumps(facts()))
