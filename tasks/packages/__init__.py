"""One environment and what is installed into it: the metadata of a checkout, its requirements, and the installation.

A `Source` is a checkout as this directory sees it; git is never run here.
"""

from .environment import Environment, import_check, probe
from .install import install
from .lock import differences, install_locked, make_lock
from .lock_file import FILE as LOCK
from .lock_file import Lock, LockedRepository, read_lock
from .matching import FLASHINFER, flashinfer_requirement, has_release, matching
from .metadata import Metadata, read_metadata, read_toml
from .package import Package, Source, names
from .requirements import Missing, admits, missing_requirements

__all__ = [
    "FLASHINFER", "LOCK", "Environment", "Lock", "LockedRepository", "Metadata", "Missing", "Package", "Source",
    "admits", "differences", "flashinfer_requirement", "has_release", "import_check", "install", "install_locked",
    "make_lock", "matching", "missing_requirements", "names", "probe", "read_lock", "read_metadata", "read_toml",
]  # fmt: skip
