"""What is known before an installation to make it fail, all of it at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence

from packaging.specifiers import SpecifierSet
from rich.filesize import decimal

from ..errors import DiskError, InstallError, SourcesError
from .package import Package
from .uv import RUST_SWITCH, UV_CACHE, WITHOUT_RUST, Uv

NEEDED = 9_700_000_000  # bytes of SGLang 0.5.23 with what it requires (November 2026)


def check(uv: Uv, ready: Sequence[Package], deps: bool) -> None:
    """Raise one error with everything that prevents the installation of the `ready` packages, and all advice.

    It is a DiskError if only the disk is the matter, else an InstallError. Nothing is downloaded or changed.
    """
    errors = [*_environment(uv), *_disk(uv, ready, deps)]
    for package in ready:
        errors += [*_package(package, uv), *_rust(package, uv)]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        what = "\n".join(["Nothing was installed:", *(f"- {error.what}" for error in errors)])
        commands = dict.fromkeys(error.command for error in errors if error.command)
        raise InstallError(what, "\n".join(error.hint for error in errors if error.hint), " && ".join(commands))


def _environment(uv: Uv) -> Iterator[SourcesError]:
    prefix = uv.environment.prefix
    hint = "Create an environment with `python3 -m venv .venv` and use it with --python .venv/bin/python."
    if uv.environment.externally_managed:
        yield InstallError(f"{prefix} is managed by the operating system (PEP 668).", hint)
    elif not os.access(uv.environment.purelib, os.W_OK):
        yield InstallError(f"{prefix} is not writable.", hint)
    elif not uv.environment.virtual:
        uv.reporter.warn("install", f"{prefix} is no virtual environment; its packages are those of all programs")


def _disk(uv: Uv, ready: Sequence[Package], deps: bool) -> Iterator[SourcesError]:
    """What is downloaded goes to uv's cache first, and from there into the environment: by links on the same disk."""
    cache = uv.cache()
    above = next(path for path in (cache, *cache.parents) if os.access(path, os.F_OK))
    if not above.is_dir() or not os.access(above, os.W_OK):
        yield DiskError(f"uv's cache {cache} cannot be written.", UV_CACHE)
        return
    new = [package for package in ready if package.repository.name == "sglang"]
    if not deps or not new or uv.environment.distribution("torch"):
        return
    downloaded = any(cache.glob("wheels-*/pypi/torch")) or any(cache.glob("wheels-*/index/*/torch"))
    places = {path.stat().st_dev: path for path in (uv.environment.prefix, above)}
    if downloaded:
        del places[above.stat().st_dev]
    for place in places.values():
        if (free := shutil.disk_usage(place).free) < NEEDED:
            yield DiskError(
                f"The packages need about {decimal(NEEDED)} in {place}, and {decimal(free)} are free.",
                f"Free some space (`uv cache clean` empties uv's cache) or use another disk: {UV_CACHE}",
            )


def _package(package: Package, uv: Uv) -> Iterator[SourcesError]:
    if not package.layout.installable and package.repository.name == "flashinfer":
        yield InstallError(
            f"{package} is too old to be installed; v0.2.0 and newer can be.", "Choose one of them.",
            "invoke setup --flashinfer-branch=v0.2.0",
        )  # fmt: skip
    needed = package.metadata.requires_python
    if not SpecifierSet(needed).contains(uv.environment.version, prereleases=True):
        yield InstallError(
            f"{package} requires Python {needed}; {uv.environment.python} is {uv.environment.version}.",
            "Use the interpreter of another environment with --python.",
        )


def _rust(package: Package, uv: Uv) -> Iterator[SourcesError]:
    if not package.metadata.needs_rust or without_rust(uv) or shutil.which("cargo", path=uv.variables.get("PATH")):
        return
    hint, command = "Install Rust with rustup (your system's package may be too old).", ""
    if package.repository.name == "sglang":
        hint = f"{hint[:-1]}, or leave out the Rust extensions with the command below; {WITHOUT_RUST}."
        command = f"{RUST_SWITCH}=none {uv.again}"
    yield InstallError(f"{package} needs Rust, and no `cargo` was found on the PATH.", hint, command)


def without_rust(uv: Uv) -> bool:
    """Whether SGLang's build is told to leave its Rust extensions out."""
    return uv.variables.get(RUST_SWITCH, "").strip().lower() == "none"
