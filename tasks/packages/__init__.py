"""One environment and what is installed into it: a checkout's own metadata, its requirements, and the installation."""

from .environment import Distribution, Environment, import_check, probe
from .install import install as _install
from .matching import matching
from .metadata import read_metadata
from .package import Package
from .source import Source

__all__ = [
    "Distribution",
    "Environment",
    "Package",
    "Source",
    "import_check",
    "install",
    "matching",
    "probe",
    "read_metadata",
]


def install(c, packages, environment, *, settings, deps, reinstall, log, reporter):  # type: ignore[no-untyped-def]
    return _install(
        packages, environment, installer=settings.installer, deps=deps, reinstall=reinstall, reporter=reporter
    )
