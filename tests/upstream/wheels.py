"""A folder of wheels from which the small upstreams install without an index."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from uv import find_uv_bin

TOOLS = Path(__file__).parent.parent.parent / "tasks/requirements.txt"
BUILD = ("setuptools>=77", "setuptools-scm>=8", "wheel", "packaging>=24")
FLASHINFER = ("0.3.0", "0.4.0rc3", "0.6.7.post3", "0.6.18", "0.7.2", "0.7.4")


def write_wheel(
    folder: Path, name: str, version: str, files: Mapping[str, str | bytes], requires: Sequence[str] = ()
) -> Path:
    """Write a pure-Python wheel (PEP 427) and return its path."""
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    info = {
        f"{stem}.dist-info/METADATA": metadata,
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    return _pack(folder / f"{stem}-py3-none-any.whl", stem, {**files, **info})


def _pack(path: Path, stem: str, files: Mapping[str, str | bytes]) -> Path:
    record = ""
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            data = text.encode() if isinstance(text, str) else text
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(data)}\n"
            archive.writestr(zipfile.ZipInfo(name), data)
        archive.writestr(zipfile.ZipInfo(f"{stem}.dist-info/RECORD"), f"{record}{stem}.dist-info/RECORD,,\n")
    return path


def repack(folder: Path, distribution: importlib.metadata.Distribution) -> Path:
    """Make a wheel again of an installed pure-Python distribution."""
    files = dict[str, str | bytes]()
    stem = ""
    for file in distribution.files or ():
        if file.parts[0] == ".." or file.suffix == ".pyc":
            continue
        if file.parts[0].endswith(".dist-info"):
            stem = file.parts[0].removesuffix(".dist-info")
            if file.name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
                continue
        files[file.as_posix()] = Path(str(file.locate())).read_bytes()
    return _pack(folder / f"{stem}-py3-none-any.whl", stem, files)


def closure(requirements: Sequence[str]) -> dict[str, importlib.metadata.Distribution]:
    """The installed distributions that meet the requirements and theirs; LookupError or ImportError without one."""
    found: dict[str, importlib.metadata.Distribution] = {}
    queue = [Requirement(text) for text in requirements]
    while queue:
        requirement = queue.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(requirement.name)
        distribution = importlib.metadata.distribution(name)
        if not requirement.specifier.contains(distribution.version, prereleases=True):
            raise LookupError(f"{name} {distribution.version} is not {requirement.specifier}")
        if name not in found:
            found[name] = distribution
            queue += [Requirement(text) for text in distribution.requires or ()]
    return found


def requirements(file: Path) -> list[str]:
    """The requirements in a file that has one a line, with the reason behind a #."""
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def build(folder: Path) -> dict[str, str]:
    """Fill the new folder; returns the variables with which pip and uv use it alone, and nobody asks for Rust.

    What builds and the project require is made again from what the running environment has of it. Raises ImportError
    or LookupError where something is missing there: `pip install '.[test]'`.
    """
    folder.mkdir(parents=True)
    write_wheel(folder, "torch", "2.9.1", {"torch/__init__.py": '__version__ = "2.9.1"\n'})
    write_wheel(folder, "apache-tvm-ffi", "0.1.11", {"tvm_ffi/__init__.py": ""})
    write_wheel(folder, "setuptools-rust", "1.12.0", {"setuptools_rust/__init__.py": ""})
    for version in FLASHINFER:
        module = f'__version__ = "{version}"\n'
        write_wheel(folder, "flashinfer-cubin", version, {"flashinfer_cubin/__init__.py": module})
        write_wheel(folder, "flashinfer-jit-cache", version, {"flashinfer_jit_cache/__init__.py": module})
        write_wheel(folder, "flashinfer-python", version, {"flashinfer/__init__.py": f"{module}from_index = True\n"})
    for version in ("0.1.6", "0.2.0"):
        write_wheel(folder, "flashinfer", version, {"flashinfer/__init__.py": "from_index = True\n"})
    for name, distribution in closure([*BUILD, *requirements(TOOLS)]).items():
        if name == "uv":  # its program stays where it is
            module = f"def find_uv_bin():\n    return {find_uv_bin()!r}\n"
            write_wheel(folder, name, distribution.version, {"uv/__init__.py": module})
        else:
            repack(folder, distribution)
    pip = {"PIP_FIND_LINKS": str(folder), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    uv = {"UV_FIND_LINKS": str(folder), "UV_OFFLINE": "1", "UV_NO_CONFIG": "1"}
    return {**pip, **uv, "SGLANG_BUILD_RUST_EXTS": "none"}
