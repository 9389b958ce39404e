"""One environment and what is installed into it: the metadata of a checkout, its requirements, and the installation.

Git is never run here; uv is run here alone.
"""

from .environment import Environment, missing_requirements, probe
from .install import install
from .lock import FILE as LOCK
from .lock import Lock, LockedRepository, differences, make_lock, read_lock
from .package import Package, matching, names, version_of
from .uv import Uv

__all__ = [
    "LOCK", "Environment", "Lock", "LockedRepository", "Package", "Uv", "differences", "install",
    "make_lock", "matching", "missing_requirements", "names", "probe", "read_lock", "version_of",
]  # fmt: skip
