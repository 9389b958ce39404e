"""What is checked before an installation begins, so that nobody waits for what cannot succeed."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from ..errors import InstallError
from .environment import Environment
from .package import Package
from .requirements import applying

BESIDE_TORCH = ("setuptools", "wheel")  # what else a build without isolation takes from the environment


def check_environment(environment: Environment) -> None:
    """Raise InstallError where the environment takes no package at all (PEP 668 and read-only ones)."""
    fix = "Make an environment with `python3 -m venv .venv` and run Invoke in it, or name it: --python .venv/bin/python"
    if environment.externally_managed is not None:
        raise InstallError(f"{environment.prefix} is for the operating system to manage, not for pip (PEP 668).", fix)
    if not environment.writable:
        raise InstallError(f"{environment.prefix} may not be written to.", fix)


def check_package(package: Package, packages: Sequence[Package], environment: Environment, deps: bool) -> None:
    """Raise InstallError where the package cannot be built in this environment."""
    who, needed = f"{package.repository} {package.version}".strip(), package.metadata.requires_python
    if not SpecifierSet(needed).contains(environment.version, prereleases=True):
        raise InstallError(
            f"{who} requires Python {needed}; {environment.python} is {environment.version}.",
            "Name the interpreter of another environment with --python PATH.",
        )
    if package.metadata.needs_rust and not shutil.which("cargo"):
        raise InstallError(
            f"{who} needs Rust to be built, and there is no `cargo` on the PATH.",
            "Install Rust, with rustup or your system's packages, so that `cargo --version` answers.",
        )
    if package.metadata.needs_torch_to_build:
        requires = {each.name: each.declared for each in packages}
        asked = {each.name: each.extras for each in packages}
        coming = {canonicalize_name(one.name) for one in applying(requires, asked, environment.markers)} | {
            *BESIDE_TORCH
        }
        lacking = [
            name
            for name in ("torch", *BESIDE_TORCH)
            if not environment.distribution(name) and not (deps and name in coming)
        ]
        if lacking:
            raise InstallError(
                f"{who} is built with what the environment has, and {environment.prefix} has no {', '.join(lacking)}.",
                shlex.join([str(environment.python), "-m", "pip", "install", *lacking]),
            )
