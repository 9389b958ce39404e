"""One environment and what is installed into it: a checkout's own metadata, its requirements, and the installation.

`Source` is what this directory knows of a checkout; it never reads git itself.
"""

from .environment import Distribution, Environment, import_check, probe
from .install import install
from .layouts import COMPANIONS, Layout, cost, find_layout
from .matching import FLASHINFER, flashinfer_requirement, has_release, matching
from .metadata import Metadata, read_metadata, read_toml, sparse_folders
from .package import Package, names
from .requirements import Missing, admits, missing_requirements
from .source import Source

__all__ = [
    "COMPANIONS", "FLASHINFER", "Distribution", "Environment", "Layout", "Metadata", "Missing", "Package", "Source",
    "admits", "cost", "find_layout", "flashinfer_requirement", "has_release", "import_check", "install",
    "matching", "missing_requirements", "names", "probe", "read_metadata", "read_toml", "sparse_folders",
]  # fmt: skip
