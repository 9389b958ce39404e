"""What `verify` finds of installed packages, from metadata as installers leave it in a real environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

from tasks.models import Check
from tasks.packages import Environment, Package, probe
from tasks.verify.packages import Import, check_package
from tests.packages.conftest import package_at


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    for name in [name for name in os.environ if name == "PYTHONPATH" or name.startswith("FLASHINFER_")]:
        monkeypatch.delenv(name)
    venv.create(tmp_path / "venv", symlinks=True)
    return probe(tmp_path / "venv")


@pytest.fixture
def sglang(tmp_path: Path) -> Package:
    """A checkout of SGLang 1.0."""
    checkout = tmp_path / "sglang"
    (checkout / ".git").mkdir(parents=True)
    (checkout / "python/sglang").mkdir(parents=True)
    (checkout / "python/sglang/__init__.py").write_text('__version__ = "1.0"\n')
    (checkout / "python/pyproject.toml").write_text('[project]\nname = "sglang"\nversion = "1.0"\n')
    return package_at(checkout, "sglang")


def put(
    environment: Environment, name: str, version: str, requires: Sequence[str] = (), folder: Path | None = None
) -> None:
    info = environment.purelib / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {one}" for one in requires)]) + "\n")
    if folder:
        direct = {"url": folder.as_uri(), "dir_info": {"editable": True}}
        (info / "direct_url.json").write_text(json.dumps(direct))
        (environment.purelib / f"{name}.pth").write_text(f"{folder}\n")


def checked(
    package: Package, environment: Environment, overrides: Sequence[str] = (), *, gpu: bool = False
) -> dict[str, Check]:
    """The checks by name."""
    return {check.name: check for check in check_package(package, [package], environment, overrides, gpu=gpu)}


def follow(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command as the user would in their shell, and take over its variables."""
    shell = subprocess.run(["sh", "-c", f"{command}\nenv -0"], capture_output=True, check=True)
    after = dict(line.split("=", 1) for line in shell.stdout.decode().split("\0") if line)
    for name in {*os.environ} - {*after}:
        monkeypatch.delenv(name)
    for name, value in after.items():
        monkeypatch.setenv(name, value)


def test_another_flashinfer_than_the_one_that_sglang_requires_is_a_warning(
    environment: Environment, sglang: Package, tmp_path: Path
) -> None:
    put(environment, "sglang", "1.0", ["flashinfer-python==0.7.2"], folder=sglang.folder)
    put(environment, "flashinfer-python", "0.7.4")
    flashinfer = flashinfer_at(tmp_path)
    checks = {check.name: check for check in check_package(sglang, [sglang, flashinfer], environment, (), gpu=False)}
    assert (checks["pins"].status, checks["pins"].command) == ("warn", "invoke setup --flashinfer-branch=matching")
    assert checks["pins"].detail == "not met: flashinfer-python==0.7.2 (installed: 0.7.4)"
    assert checks["requirements"].status == "pass"


def test_requirements_that_the_user_has_overridden_count_as_met(environment: Environment, sglang: Package) -> None:
    put(environment, "sglang", "1.0", ["torch==2.14.1"], folder=sglang.folder)
    put(environment, "torch", "2.9.1+cu128")
    assert checked(sglang, environment)["requirements"].status == "warn"
    assert checked(sglang, environment, ["torch==2.9.1+cu128"])["requirements"].status == "pass"


def test_requirements_that_cannot_be_read_are_a_failed_check(environment: Environment, sglang: Package) -> None:
    put(environment, "sglang", "1.0", ["torch; (os_name =="], folder=sglang.folder)
    check = checked(sglang, environment)["requirements"]
    assert (check.status, check.command) == ("fail", "invoke install --reinstall")


def test_a_version_without_a_tag_is_a_warning(environment: Environment, sglang: Package) -> None:
    project = '[project]\nname = "sglang"\ndynamic = ["version"]\n[build-system]\nrequires = ["setuptools-scm"]\n'
    (sglang.folder / "pyproject.toml").write_text(project)
    put(environment, "sglang", "0.0.0.dev0", folder=sglang.folder)
    check = checked(package_at(sglang.checkout.path, "sglang"), environment)["version"]
    assert (check.status, check.detail) == ("warn", "0.0.0.dev0")


def flashinfer_at(folder: Path) -> Package:
    """A checkout of FlashInfer 0.7.4."""
    (folder / "flashinfer/flashinfer").mkdir(parents=True)
    text = '[project]\nname = "flashinfer-python"\nversion = "0.7.4"\n'
    (folder / "flashinfer/pyproject.toml").write_text(text)
    return package_at(folder / "flashinfer", "flashinfer")


def test_companions_of_another_version_are_a_failure_also_a_provider_of_jit_cache(
    tmp_path: Path, environment: Environment
) -> None:
    package = flashinfer_at(tmp_path)
    put(environment, "flashinfer-python", "0.7.4", folder=package.folder)
    put(environment, "flashinfer-jit-cache", "0.7.4+cu130")
    assert "companions" not in checked(package, environment)
    put(environment, "flashinfer-jit-cache-sm90a", "0.7.2+cu130")
    check = checked(package, environment)["companions"]
    assert (check.status, check.command) == ("fail", "invoke install")
    assert check.detail == "not of version 0.7.4: flashinfer-jit-cache-sm90a"


def test_an_import_is_that_of_the_checkout_in_the_installed_version(
    environment: Environment, sglang: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = checked(sglang, environment)["installed"]
    assert (check.status, check.command) == ("fail", "invoke install")
    put(environment, "sglang", "1.0", folder=sglang.folder)
    check = checked(sglang, environment)["imports"]
    assert (check.status, check.detail) == ("pass", f"1.0 from {sglang.folder}/sglang/__init__.py")
    (sglang.folder / "sglang/__init__.py").write_text('__version__ = "0.0.0+unknown"\n')
    check = checked(sglang, environment)["imports"]
    assert (check.status, check.command) == ("fail", "invoke install --reinstall")
    assert check.detail == "imports as 0.0.0+unknown, but 1.0 is installed"

    monkeypatch.chdir(tmp_path)  # where a directory has the name
    (environment.purelib / "sglang.pth").unlink()
    assert checked(sglang, environment)["imports"].detail == "ModuleNotFoundError: No module named 'sglang'"
    (environment.purelib / "sglang").mkdir()
    assert "namespace package" in checked(sglang, environment)["imports"].detail


@pytest.mark.parametrize("text", ["import torch.nn", "raise ValueError('x')", "import os; os.abort()"])
def test_a_fault_of_its_own_names_no_command_since_none_helps(
    environment: Environment, sglang: Package, text: str
) -> None:
    put(environment, "sglang", "1.0", folder=sglang.folder)
    (sglang.folder / "sglang/__init__.py").write_text(text)
    check = checked(sglang, environment)["imports"]
    assert (check.status, check.command) == ("fail", "")
    assert "shows the traceback" in check.hint


@pytest.mark.parametrize("variable", ["PYTHONPATH", "FLASHINFER_CUDA_ARCH_LIST"])
def test_a_variable_that_breaks_an_import_is_named_and_without_it_all_is_well(
    environment: Environment, sglang: Package, tmp_path: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(environment, "sglang", "1.0", folder=sglang.folder)
    other = tmp_path / "older"
    (other / "sglang").mkdir(parents=True)
    (other / "sglang/__init__.py").touch()
    listed = "os.environ.get('FLASHINFER_CUDA_ARCH_LIST', '8.0')"
    split = f"import os\n[int(arch.split('.')[0]) for arch in {listed}.split(' ')]\n"
    (sglang.folder / "sglang/__init__.py").write_text(f'{split}__version__ = "1.0"\n')
    monkeypatch.setenv("FLASHINFER_LOGLEVEL", "1")
    monkeypatch.setenv(variable, {"PYTHONPATH": str(other)}.get(variable, "8.0 "))
    check = checked(sglang, environment)["imports"]
    assert (check.status, check.command) == ("fail", f"unset {variable}")
    follow(check.command, monkeypatch)
    assert checked(sglang, environment)["imports"].status == "pass"
    assert os.environ["FLASHINFER_LOGLEVEL"] == "1"


def test_a_user_site_that_breaks_an_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = probe(Path(sys.base_prefix, "bin/python3"))  # a virtual environment has none
    monkeypatch.setenv("PYTHONUSERBASE", str(tmp_path))
    site = Path(subprocess.check_output([environment.python, "-m", "site", "--user-site"], text=True).strip())
    site.mkdir(parents=True)
    (site / "usercustomize.py").write_text("import sys\nsys.modules['colorsys'] = None\n")
    check = Import("imports", environment, "colorsys").check()
    assert (check.status, check.command) == ("fail", "export PYTHONNOUSERSITE=1")
    follow(check.command, monkeypatch)
    assert Import("imports", environment, "colorsys").check().status == "pass"


def test_a_home_that_cannot_be_written_is_named(
    environment: Environment, sglang: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(environment, "sglang", "1.0", folder=sglang.folder)
    code = "import os, pathlib\nbase = os.environ.get('FLASHINFER_WORKSPACE_BASE') or os.environ['HOME']\n"
    (sglang.folder / "sglang/__init__.py").write_text(f"{code}pathlib.Path(base, '.cache').mkdir(exist_ok=True)\n")
    monkeypatch.setenv("HOME", "/dev/null")
    check = checked(sglang, environment)["imports"]
    assert check.hint.startswith("HOME (/dev/null) cannot be written: set it, or FLASHINFER_WORKSPACE_BASE, ")
    monkeypatch.setenv("FLASHINFER_WORKSPACE_BASE", str(tmp_path))
    assert checked(sglang, environment)["imports"].status == "pass"


def test_the_compiled_kernels_are_imported_where_a_gpu_can_be_used(environment: Environment, sglang: Package) -> None:
    put(environment, "sglang", "1.0", folder=sglang.folder)
    assert "sgl_kernel" not in checked(sglang, environment)
    assert checked(sglang, environment, gpu=True)["sgl_kernel"].status == "skip"
    (environment.purelib / "sgl_kernel").mkdir()
    file = environment.purelib / "sgl_kernel/__init__.py"
    file.write_text("raise ImportError('cannot load\\n\\n/x/common_ops.so: undefined symbol: _ZN3c104cuda')\n")
    check = checked(sglang, environment, gpu=True)["sgl_kernel"]
    assert (check.status, check.command) == ("fail", "")
    assert "undefined symbol: _ZN3c104cuda" in check.detail
    file.write_text("")
    assert checked(sglang, environment, gpu=True)["sgl_kernel"].status == "pass"
