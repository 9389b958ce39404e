"""What is known before an installation to make it fail, as far as uv does not say it at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from rich.filesize import decimal

from ..errors import DiskError, InstallError
from .package import Package
from .uv import CACHE_HINT, RUST_SWITCH, WITHOUT_RUST, Uv

NEEDED = 9_700_000_000  # bytes of SGLang 0.5.23 with what it requires (November 2026)


def check(uv: Uv, ready: Sequence[Package], deps: bool) -> None:
    """Raise InstallError or DiskError for the first thing that prevents the installation of the `ready` packages.

    Nothing is downloaded or changed.
    """
    prefix = uv.environment.prefix
    if not os.access(uv.environment.purelib, os.W_OK):
        hint = "Create an environment with `python3 -m venv .venv` and use it with --python .venv/bin/python."
        raise InstallError(f"{prefix} is not writable.", hint)
    for package in ready:
        _check_package(package, uv)
    if deps and any(package.name == "sglang" for package in ready) and not uv.environment.distribution("torch"):
        _check_disks(uv)


def _check_disks(uv: Uv) -> None:
    """Look for room for everything that SGLang requires. What is downloaded goes to uv's cache first, and from there
    into the environment: by links on the same disk."""
    cache = uv.cache()
    above = next(path for path in (cache, *cache.parents) if path.exists())
    disks = {path.stat().st_dev: path for path in (uv.environment.prefix, above)}
    if any(cache.glob("wheels-*/pypi/torch")) or any(cache.glob("wheels-*/index/*/torch")):  # downloaded already
        del disks[above.stat().st_dev]
    for path in disks.values():
        if (free := shutil.disk_usage(path).free) < NEEDED:
            what = f"The packages need about {decimal(NEEDED)} in {path}, and {decimal(free)} are free."
            raise DiskError(what, f"Free some space or use another disk: {CACHE_HINT}")


def _check_package(package: Package, uv: Uv) -> None:
    name = package.repository.name
    if not package.installable:
        oldest = "FlashInfer can be installed from v0.2.0 on. " if name == "flashinfer" else ""
        hint = f"{oldest}Check the REF and sources.repositories.{name}.url."
        raise InstallError(f"{package} has no pyproject.toml in {package.folder}, so it cannot be installed.", hint)
    path = uv.variables.get("PATH")
    if package.needs_rust and not without_rust(package, uv) and not shutil.which("cargo", path=path):
        hint, command = "Install Rust with rustup (your system's package may be too old).", ""
        if name == "sglang":
            hint += f" Or leave out the Rust extensions with the command below; {WITHOUT_RUST}."
            command = f"{RUST_SWITCH}=none {uv.again}"
        raise InstallError(f"{package} needs Rust, and no `cargo` was found on the PATH.", hint, command)


def without_rust(package: Package, uv: Uv) -> bool:
    """Whether the build is told to leave its Rust extensions out, which SGLang's can be."""
    return package.name == "sglang" and uv.variables.get(RUST_SWITCH, "").strip().lower() == "none"
