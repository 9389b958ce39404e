"""A small SGLang: the package in `python/`, its version static at first, later by setuptools-scm from the tags, and
today with Rust extensions, which only `SGLANG_BUILD_RUST_EXTS=none` leaves out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

from .store import Importer

PACKAGES = ("", "models/", "layers/", "layers/attention/", "layers/moe/")

STATIC = """\
[build-system]
requires = ["setuptools>=61.0", "wheel"]
build-backend = "setuptools.build_meta"

[project]
name = "sglang"
version = "{version}"
description = "A small stand-in for SGLang"
requires-python = "{python}"
dependencies = {dependencies}
{extras}
[tool.setuptools.packages.find]
exclude = ["docs*", "tests*"]
"""

DYNAMIC = """\
[build-system]
requires = ["setuptools>=61.0", "setuptools-scm>=8.0", "wheel"{rust}]
build-backend = "setuptools.build_meta"

[project]
name = "sglang"
dynamic = ["version"]
description = "A small stand-in for SGLang"
requires-python = ">=3.10"
dependencies = {dependencies}

[tool.setuptools.packages.find]
exclude = ["docs*", "tests*"]

[tool.setuptools_scm]
root = ".."
version_file = "sglang/_version.py"
git_describe_command = ["python3", "{script}", "--tag-only"]
fallback_version = "0.0.0.dev0"
"""

VERSION_TAG = '''\
"""Print the highest version tag; pre-releases come before the release, post-releases after it."""

import subprocess

git = ["git", "-c", "versionsort.suffix=rc", "tag", "--list", "v*.*.*", "--sort=-version:refname"]
print(subprocess.run(git, capture_output=True, text=True, check=True).stdout.split()[0])
'''

SETUP = """\
import os
import subprocess

from setuptools import setup

if os.environ.get("SGLANG_BUILD_RUST_EXTS") != "none":
    subprocess.run(["cargo", "build", "--manifest-path", "../rust/Cargo.toml"], check=True)
setup()
"""

RUST = {
    "Cargo.toml": '[workspace]\nresolver = "3"\nmembers = ["sglang-server"]\n\n[workspace.package]\nedition = "2024"\n',
    "rust-toolchain.toml": '[toolchain]\nchannel = "stable"\n',
    "sglang-server/Cargo.toml": '[package]\nname = "sglang-server"\nversion = "0.1.0"\nedition.workspace = true\n',
    "sglang-server/src/lib.rs": "pub fn version() -> u32 {\n    1\n}\n",
}

SRT_EXTRA = """
[project.optional-dependencies]
srt = ["torch", "flashinfer>=0.1.6"]
all = ["sglang[srt]"]
"""

VERSION_MODULE = """\
try:
    from sglang._version import version as __version__
except ImportError:
    __version__ = "0.0.0.dev0"
"""


def release(version: str, pins: Sequence[str] = (), *, rust: bool = False, noise: str = "") -> dict[str, str]:
    """The files of one release; `pins` are the FlashInfer that it requires, an empty `version` means: by tags."""
    old = version == "0.4.0"
    dependencies = json.dumps(["packaging"] if old else ["packaging", "torch", *pins])
    script = "scripts/release/get_version_tag.py" if rust else "python/tools/get_version_tag.py"
    if version:
        python, extras = (">=3.8", SRT_EXTRA) if old else (">=3.10", "")
        pyproject = STATIC.format(version=version, dependencies=dependencies, python=python, extras=extras)
    else:
        build = ', "setuptools-rust>=1.10"' if rust else ""
        pyproject = DYNAMIC.format(dependencies=dependencies, rust=build, script=script)
    files = {
        ".gitignore": "*.egg-info/\n__pycache__/\nbuild/\npython/sglang/_version.py\nrust/target/\n",
        "README.md": "# SGLang, small\n",
        "docs/history.txt": noise,
        "python/pyproject.toml": pyproject,
        "python/sglang/__init__.py": "from sglang.version import __version__ as __version__\n",
        "python/sglang/version.py": f'__version__ = "{version}"\n' if version else VERSION_MODULE,
    }
    for package in PACKAGES[: -1 if old else None]:
        files[f"python/sglang/srt/{package}__init__.py"] = ""
    if not version:
        files[script] = VERSION_TAG
    if rust:
        files["python/setup.py"] = SETUP
        files |= {f"rust/{path}": text for path, text in RUST.items()}
    return files


def build(repository: Path) -> None:
    """Write the repository: releases, a release branch beside main, and tags that are no release."""
    random = Random("sglang")
    spring = ["flashinfer_python==0.6.7.post3", "flashinfer_cubin==0.6.7.post3"]
    today = ["flashinfer_python[cu13]==0.7.2"]

    def noise() -> str:
        return random.randbytes(4096).hex()

    with Importer(repository) as to:
        tip = to.commit("main", release("0.4.0", noise=noise()))
        to.point("refs/tags/v0.4.0", tip)
        tip = to.commit("main", release("0.5.2", ["flashinfer_python==0.3.0"], noise=noise()), tip)
        to.point("refs/tags/gateway-v0.3.1", tip)
        tip = to.commit("main", release("0.5.3", ["flashinfer_python==0.4.0rc3"], noise=noise()), tip)
        to.annotate("v0.5.3", tip)
        tip = to.commit("main", release("", spring, noise=noise()), tip)
        to.point("refs/tags/v0.5.10rc0", tip)
        side = to.commit("release/v0.5.10", release("", spring, noise=noise()), tip)
        to.point("refs/tags/v0.5.10.post1", side)
        tip = to.commit("main", release("", today, rust=True, noise=noise()), tip)
        to.point("refs/tags/v0.5.23", tip)
        for _ in range(2):
            tip = to.commit("main", release("", today, rust=True, noise=noise()), tip)
