"""What is known before an installation to make it fail, all of it at once."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from rich.filesize import decimal

from .. import processes
from ..errors import DiskError, InstallError, SourcesError
from .environment import Environment
from .layouts import INSTALLED_BYTES, MB
from .package import Package
from .requirements import applying

BESIDE_TORCH = ("setuptools", "wheel")  # what a build without isolation needs besides torch
RUST_SWITCH = "SGLANG_BUILD_RUST_EXTS"  # "none" makes SGLang's build leave its Rust extensions out
OLDEST_CARGO = {("edition", "2024"): "1.85", ("resolver", "3"): "1.84"}  # the first that reads such a Cargo.toml
# Beside the package's pyproject.toml, or in the workspaces `rust` and `proto`
MANIFESTS = ("Cargo.toml", "rust/Cargo.toml", "rust/*/Cargo.toml", "../rust/Cargo.toml", "../rust/*/Cargo.toml",
             "../proto/Cargo.toml")  # fmt: skip
CALL_PROTOC = {"prost-build", "tonic-build", "tonic-prost-build"}  # crates that need protoc to be built
INCLUDE_PROTOC = {"protoc-bin-vendored", "protobuf-src", "protox"}  # crates that make an installed one unnecessary


def check(packages: Sequence[Package], ready: Sequence[Package], environment: Environment, deps: bool) -> None:
    """Raise one error with everything that prevents the installation of the `ready` ones of `packages`, and all advice.

    It is a DiskError if only disk space is lacking, else an InstallError. Nothing is downloaded or changed.
    """
    found = [*_environment(environment), *_space(ready, environment, deps)]
    for package in ready:
        found += [*_python(package, environment), *_rust(package), *_torch(package, packages, environment, deps)]
    if len(found) == 1:
        raise found[0]
    if found:
        what = "\n".join(["Nothing was installed:", *(f"- {error.what}" for error in found)])
        commands = dict.fromkeys(error.command for error in found if error.command)
        raise InstallError(what, "\n".join(error.hint for error in found if error.hint), " && ".join(commands))


def _environment(environment: Environment) -> Iterator[SourcesError]:
    hint = "Create an environment with `python3 -m venv .venv` and use it with --python .venv/bin/python."
    if environment.externally_managed:
        yield InstallError(f"{environment.prefix} is managed by the operating system (PEP 668).", hint)
    if not environment.writable:
        yield InstallError(f"{environment.prefix} is not writable.", hint)


def _space(ready: Sequence[Package], environment: Environment, deps: bool) -> Iterator[SourcesError]:
    new = [package for package in ready if not environment.distribution(package.name)]
    if not deps or environment.distribution("torch"):
        return
    needed = sum(INSTALLED_BYTES.get(package.repository.name, 100 * MB) for package in new)
    free = shutil.disk_usage(environment.prefix).free
    if free < needed:
        yield DiskError(
            f"The packages need {decimal(needed)} in {environment.prefix}, and {decimal(free)} are free.",
            "Free some space (`uv cache clean` and `pip cache purge` empty their caches) or use another environment.",
        )


def _python(package: Package, environment: Environment) -> Iterator[SourcesError]:
    needed = package.metadata.requires_python
    if not SpecifierSet(needed).contains(environment.version, prereleases=True):
        yield InstallError(
            f"{package} requires Python {needed}; {environment.python} is {environment.version}.",
            "Use the interpreter of another environment with --python PATH.",
        )


def _rust(package: Package) -> Iterator[SourcesError]:
    if not package.metadata.needs_rust or os.environ.get(RUST_SWITCH, "").strip().lower() == "none":
        return
    files = [file for pattern in MANIFESTS for file in package.folder.glob(pattern)]
    manifests = "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files)
    found = re.findall(r'^\s*(?:[\w.]+\.)?(rust-version|edition|resolver)\s*=\s*"([\d.]*\d)"', manifests, re.M)
    versions = [value if key == "rust-version" else OLDEST_CARGO.get((key, value), "0") for key, value in found]
    needed = max(map(Version, versions), default=Version("0"))
    command = f"{RUST_SWITCH}=none invoke install" if package.repository.name == "sglang" else ""
    otherwise = ", or leave out the Rust extensions with the command below" if command else ""
    hint = f"Install Rust with rustup (your system's package may be too old){otherwise}."
    newer = f" {needed} or newer" if needed > Version("0") else ""
    cargo = _cargo_version(package.folder)
    if cargo is None:
        yield InstallError(f"{package} needs Rust{newer}, and no `cargo` was found on the PATH.", hint, command)
    elif cargo < needed:
        yield InstallError(f"{package} needs Rust{newer}; `cargo` is {cargo}.", hint, command)
    crates = set(re.findall(r"^\s*(?:\[.*dependencies\.)?([\w-]+)", manifests, re.M))
    protoc = os.environ.get("PROTOC", "protoc")
    if crates & CALL_PROTOC and not crates & INCLUDE_PROTOC and not shutil.which(protoc):
        what = f"{package} needs the Protocol Buffers compiler, and no `{protoc}` was found."
        yield InstallError(what, f"Install your system's package protobuf-compiler{otherwise}.", command)


def _cargo_version(folder: Path) -> Version | None:
    try:
        done = processes.run(["cargo", "--version"], cwd=folder, timeout=30)
    except OSError:
        return None
    found = re.match(rb"cargo (\d+\.\d+(?:\.\d+)?)", done.output)
    return Version(found[1].decode()) if found else None


def _torch(
    package: Package, packages: Sequence[Package], environment: Environment, deps: bool
) -> Iterator[SourcesError]:
    if package.metadata.needs_torch_to_build:
        requires = {each.name: each.metadata.requires for each in packages}
        extras = {each.name: each.repository.extras for each in packages}
        required = applying(requires.get, extras, environment.markers)
        coming = {*BESIDE_TORCH, *(canonicalize_name(one.name) for one in required)} if deps else set[str]()
        needed = [name for name in ("torch", *BESIDE_TORCH) if name not in coming]
        missing = [name for name in needed if not environment.distribution(name)]
        if missing:
            yield InstallError(
                f"The build of {package} needs {', '.join(missing)} in {environment.prefix}.",
                command=shlex.join([str(environment.python), "-m", "pip", "install", *missing]),
            )
    if package.metadata.needs_cuda_to_build:
        home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
        if not (shutil.which("nvcc") or shutil.which(f"{home}/bin/nvcc")):
            yield InstallError(
                f"The build of {package} compiles its kernels, and the CUDA toolkit (nvcc) was not found.",
                "Install the CUDA toolkit and set CUDA_HOME, or choose FlashInfer v0.2.0 or newer.",
            )
        if not os.environ.get("TORCH_CUDA_ARCH_LIST") and not any(map(os.path.exists, ("/dev/nvidiactl", "/dev/dxg"))):
            yield InstallError(
                f"The build of {package} compiles its kernels for the GPU of this machine, and there is none.",
                "Set the architectures to compile for, such as 9.0 for an H100.",
                "TORCH_CUDA_ARCH_LIST=9.0 invoke install",
            )
