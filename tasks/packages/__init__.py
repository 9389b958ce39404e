"""One environment and what is installed into it: a checkout's own metadata, its requirements, and the installation.

`Source` is what this directory knows of a checkout; it never reads git itself.
"""

from .environment import Distribution, Environment, import_check, probe
from .install import install
from .layouts import COMPANIONS, Layout, find_layout
from .lock import differences, install_locked, make_lock
from .lock_file import FILE as LOCK
from .lock_file import Lock, LockedRepository, read_lock
from .matching import FLASHINFER, flashinfer_requirement, has_release, matching
from .metadata import Metadata, read_metadata, read_toml
from .package import Package, Source, names
from .requirements import Missing, admits, missing_requirements

__all__ = [
    "COMPANIONS", "FLASHINFER", "LOCK", "Distribution", "Environment", "Layout", "Lock", "LockedRepository", "Metadata",
    "Missing", "Package", "Source", "admits", "differences", "find_layout", "flashinfer_requirement",
    "has_release", "import_check", "install", "install_locked", "make_lock", "matching", "missing_requirements",
    "names", "probe", "read_lock", "read_metadata", "read_toml",
]  # fmt: skip
