"""A small FlashInfer: the package in `python/` up to v0.1.6, which is only read; later in the root, with submodules and
what it ships of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random

from .store import PATHS, File, Gitlink, Importer, Symlink

FOLDERS = {
    "cutlass": ("include/cutlass", "tools/util/include/cutlass/util", "docs", "media", "examples"),
    "spdlog": ("include/spdlog", "bench", "tests"),
    "cccl": ("cub/cub", "cub/test", "libcudacxx/include/cuda", "libcudacxx/test", "thrust/thrust", "docs"),
}
OTHER = ("include", "src", "docs")
TODAY = ("cutlass", "spdlog", "cccl")
SHIPPED = {
    "cutlass": ("include/**", "tools/util/include/**"),
    "spdlog": ("include/**",),
    "cccl": ("cub/cub/**", "libcudacxx/include/**", "thrust/thrust/**"),
}
FIRST = ("nvbench", "cutlass", "spdlog")

PYPROJECT = """\
[project]
name = "{name}"
description = "A small stand-in for FlashInfer"
requires-python = ">={python},<4.0"
dynamic = ["version", "dependencies"]

[project.optional-dependencies]
cu13 = []

[build-system]
requires = {requires}
build-backend = "{backend}"
backend-path = ["."]

[tool.setuptools]
include-package-data = false

[tool.setuptools.dynamic]
version = {version}
dependencies = {{ file = ["requirements.txt"] }}

[tool.setuptools.packages.find]
where = ["."]
include = ["flashinfer*"]
exclude = ["flashinfer-jit-cache*", "flashinfer-cubin*"]

[tool.setuptools.package-dir]
"flashinfer.data" = "."
{directories}
[tool.setuptools.package-data]
"flashinfer" = ["_build_meta.py"]
"flashinfer.data" = ["csrc/**", "include/**"]
{data}"""

BACKEND = """\
import pathlib
import shutil

from setuptools.build_meta import *  # noqa: F403

root = pathlib.Path(__file__).resolve().parent
version = (root / "version.txt").read_text().strip()
(root / "flashinfer/_build_meta.py").write_text(f"__version__ = {{version!r}}\\n")
data = root / "flashinfer/data"
shutil.rmtree(data, ignore_errors=True)
data.mkdir()
for name in {names}:
    (data / name.rpartition("/")[2]).symlink_to(root / name, target_is_directory=True)
"""

PACKAGE = """\
import importlib.util

try:
    from ._build_meta import __version__
except ImportError:
    __version__ = "0.0.0+unknown"

for _name in ("flashinfer_cubin", "flashinfer_jit_cache"):
    if importlib.util.find_spec(_name) and __version__ != "0.0.0+unknown":
        _version = importlib.import_module(_name).__version__
        if _version != __version__:
            raise RuntimeError(f"{_name} version ({_version}) does not match flashinfer version ({__version__}).")
"""


def _submodules(commits: Mapping[str, str], names: tuple[str, ...]) -> dict[str, File]:
    text, links = "", dict[str, File]()
    for name in names:
        url = f"https://github.com/{PATHS[name]}.git"
        text += f'[submodule "3rdparty/{name}"]\n\tpath = 3rdparty/{name}\n\turl = {url}\n'
        links[f"3rdparty/{name}"] = Gitlink(commits[name])
    return {".gitmodules": text, **links}


def python_layout(version: str, commits: Mapping[str, str], noise: str) -> dict[str, File]:
    """Releases up to v0.1.6: the package in `python/`, setup.py alone, which imports torch at its top."""
    return _submodules(commits, FIRST) | {
        ".gitignore": "python/flashinfer/_build_meta.py\n__pycache__/\n*.egg-info/\nbuild/\n",
        "CHANGELOG.md": noise,
        "include/flashinfer/norm.cuh": "// rmsnorm\n",
        "python/csrc/norm.cu": "// rmsnorm\n",
        "python/flashinfer/__init__.py": "from ._build_meta import __version__ as __version__\n",
        "python/include": Symlink("../include"),
        "python/setup.py": "import torch.utils.cpp_extension\n",
        "python/version.txt": Symlink("../version.txt"),
        "version.txt": f"{version}\n",
    }


def root_layout(
    version: str, commits: Mapping[str, str], submodules: tuple[str, ...], noise: str, *, early: bool = False
) -> dict[str, File]:
    """Releases from v0.2.0 on; `early` ones ship nothing but cutlass, and are called `flashinfer`."""
    shipped = {name: SHIPPED[name] for name in (("cutlass",) if early else submodules) if name in SHIPPED}
    backend = "custom_backend" if early else "build_backend"
    pyproject = PYPROJECT.format(
        name="flashinfer" if early else "flashinfer-python",
        python="3.8" if early else "3.10",
        version='{ file = ["version.txt"] }' if early else '{ attr = "flashinfer._build_meta.__version__" }',
        requires='["setuptools"]' if early else '["setuptools>=77", "packaging>=24", "apache-tvm-ffi>=0.1.6,<0.2"]',
        backend=backend,
        directories="".join(f'"flashinfer.data.{name}" = "3rdparty/{name}"\n' for name in shipped),
        data="".join(
            f'"flashinfer.data.{name}" = {list(globs)}\n'.replace("'", '"') for name, globs in shipped.items()
        ),
    )
    return _submodules(commits, submodules) | {
        ".gitignore": "flashinfer/_build_meta.py\nflashinfer/data/\n__pycache__/\n*.egg-info/\nbuild/\n",
        "CHANGELOG.md": noise,
        "csrc/norm.cu": "// rmsnorm\n",
        "flashinfer/__init__.py": PACKAGE,
        "flashinfer/norm.py": "def rmsnorm(): ...\n",
        "include/flashinfer/norm.cuh": "// rmsnorm\n",
        "pyproject.toml": pyproject,
        "requirements.txt": "torch\n" if early else "apache-tvm-ffi>=0.1.6,<0.2\npackaging>=24\ntorch\n",
        f"{backend}.py": BACKEND.format(names=["csrc", "include", *(f"3rdparty/{name}" for name in shipped)]),
        "tests/norm/test_norm.py": "def test_norm(): ...\n",
        "version.txt": f"{version}\n",
    }


def build_submodule(repository: Path, name: str) -> list[str]:
    """Write one submodule's repository; returns its commits. None but the last is the tip of a branch."""
    random = Random(name)
    files = {"README.md": f"# {name}, small\n"}
    for folder in FOLDERS.get(name, OTHER):
        bulky = "include" not in folder and folder not in ("cub/cub", "thrust/thrust")
        for number in range(4):
            files[f"{folder}/part{number}.h"] = random.randbytes(8192 if bulky else 512).hex()
    commits: list[str] = []
    with Importer(repository) as to:
        for number in range(4):
            changed = {f"{folder}/changed.h": f"// {number}\n" for folder in FOLDERS.get(name, OTHER)}
            commits.append(to.commit("main", files | changed, commits[-1] if commits else ""))
        to.point("refs/tags/v1.0", commits[0])
    return commits


def build(root: Path) -> None:
    """Write FlashInfer's repository and those of its submodules below `root`."""
    history = {name: build_submodule(root / f"{PATHS[name]}.git", name) for name in ("nvbench", *TODAY)}
    old, middle, new = ({name: commits[age] for name, commits in history.items()} for age in (0, 1, 2))
    random = Random("flashinfer")

    def noise() -> str:
        return random.randbytes(4096).hex()

    with Importer(root / f"{PATHS['flashinfer']}.git") as to:
        tip = to.commit("main", python_layout("0.1.6", old, noise()))
        to.point("refs/tags/v0.1.6", tip)
        tip = to.commit("main", root_layout("0.2.0", middle, FIRST, noise(), early=True), tip)
        to.annotate("v0.2.0", tip)
        files = root_layout("0.3.0", middle, FIRST, noise())
        del files["3rdparty/nvbench"]  # still in .gitmodules, though its commit is gone from the tree
        tip = to.commit("main", files, tip)
        to.point("refs/tags/v0.3.0", tip)
        for version in ("0.4.0rc3", "0.6.7"):
            tip = to.commit("main", root_layout(version, middle, ("cutlass", "spdlog"), noise()), tip)
            to.point(f"refs/tags/v{version}", tip)
        side = to.commit("release-v0.6.7", root_layout("0.6.7.post3", middle, ("cutlass", "spdlog"), noise()), tip)
        to.point("refs/tags/v0.6.7.post3", side)
        tip = to.commit("main", root_layout("0.7.2", middle, TODAY, noise()), tip)
        for ref in ("tags/v0.7.2", "tags/v0.7.3rc1", "tags/nightly-v0.7.3-20260801", "tags/aarch64", "heads/feature/x"):
            to.point(f"refs/{ref}", tip)
        tip = to.commit("main", root_layout("0.7.4", new, TODAY, noise()), tip)
        to.point("refs/tags/v0.7.4", tip)
        to.commit("main", root_layout("0.7.4", new, TODAY, noise()), tip)
