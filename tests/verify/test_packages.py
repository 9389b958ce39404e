"""What `verify` finds of installed packages, from metadata as installers leave it in a real environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.models import Check
from tasks.packages import Environment, Package, probe
from tasks.verify.packages import Import, check_package
from tests.packages.conftest import put


@dataclass
class Installed:
    """An environment, and the checkout of a package that may be installed into it."""

    environment: Environment
    package: Package

    def write(self, text: str) -> None:
        """Write the module of the package."""
        (self.package.folder / self.package.module / "__init__.py").write_text(text)

    def put(self, name: str, version: str, *requires: str) -> None:
        """Install a distribution, the package itself editable."""
        info = put(self.environment, name, version, requires)
        if name == self.package.name:
            direct = {"url": self.package.folder.as_uri(), "dir_info": {"editable": True}}
            (info / "direct_url.json").write_text(json.dumps(direct))
            (self.environment.purelib / f"{name}.pth").write_text(f"{self.package.folder}\n")

    def checks(self, *others: Package, overrides: Sequence[str] = (), gpu: bool = False) -> dict[str, Check]:
        """The checks by name."""
        packages = [self.package, *others]
        return {
            check.name: check for check in check_package(packages[0], packages, self.environment, overrides, gpu=gpu)
        }


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    for name in [name for name in os.environ if name == "PYTHONPATH" or name.startswith("FLASHINFER_")]:
        monkeypatch.delenv(name)
    venv.create(tmp_path / "venv", symlinks=True)
    return probe(tmp_path / "venv")


@pytest.fixture
def flashinfer(environment: Environment, make_package: Callable[..., Package]) -> Installed:
    """A checkout of FlashInfer 0.7.4."""
    return Installed(environment, make_package("flashinfer-python", "0.7.4"))


@pytest.fixture
def sglang(environment: Environment, make_package: Callable[..., Package]) -> Installed:
    """A checkout of SGLang 1.0."""
    return Installed(environment, make_package("sglang", "1.0"))


def follow(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command as the user would in their shell, and take over its variables."""
    shell = subprocess.run(["sh", "-c", f"{command}\nenv -0"], capture_output=True, check=True)
    after = dict(line.split("=", 1) for line in shell.stdout.decode().split("\0") if line)
    for name in {*os.environ} - {*after}:
        monkeypatch.delenv(name)
    for name, value in after.items():
        monkeypatch.setenv(name, value)


def test_another_flashinfer_than_the_one_that_sglang_requires_is_a_warning(
    sglang: Installed, flashinfer: Installed
) -> None:
    sglang.put("sglang", "1.0", "flashinfer-python==0.7.2")
    sglang.put("flashinfer-python", "0.7.4")
    checks = sglang.checks(flashinfer.package)
    assert (checks["pins"].status, checks["pins"].command) == ("warn", "invoke setup --flashinfer-branch=matching")
    assert checks["pins"].detail == "not met: flashinfer-python==0.7.2 (installed: 0.7.4)"
    assert checks["requirements"].status == "pass"


def test_requirements_that_are_not_met_are_a_warning_except_for_overridden_ones(sglang: Installed) -> None:
    sglang.put("sglang", "1.0", "torch==2.14.1")
    sglang.put("torch", "2.9.1+cu128")
    check = sglang.checks()["requirements"]
    assert (check.status, check.command) == ("warn", "invoke install")
    assert sglang.checks(overrides=["torch==2.9.1+cu128"])["requirements"].status == "pass"


def test_requirements_that_cannot_be_read_fail_and_a_version_without_a_tag_warns(sglang: Installed) -> None:
    sglang.package.version = ""
    sglang.put("sglang", "0.0.0.dev0", "torch; (os_name ==")
    checks = sglang.checks()
    assert (checks["requirements"].status, checks["requirements"].command) == ("fail", "invoke install --reinstall")
    detail = f"0.0.0.dev0, editable from {sglang.package.folder}"
    assert (checks["installed"].status, checks["installed"].detail) == ("warn", detail)


def test_companions_of_another_version_are_a_failure_also_a_provider_of_jit_cache(flashinfer: Installed) -> None:
    flashinfer.put("flashinfer-python", "0.7.4")
    flashinfer.put("flashinfer-jit-cache", "0.7.4+cu130")
    assert "companions" not in flashinfer.checks()
    flashinfer.put("flashinfer-jit-cache-sm90a", "0.7.2+cu130")
    check = flashinfer.checks()["companions"]
    assert (check.status, check.command) == ("fail", "invoke install")
    assert check.detail == "not of version 0.7.4: flashinfer-jit-cache-sm90a"


def test_an_import_is_that_of_the_checkout_in_the_installed_version(
    sglang: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = sglang.checks()["installed"]
    assert (check.status, check.command) == ("fail", "invoke install")
    sglang.put("sglang", "1.0")
    check = sglang.checks()["imports"]
    assert (check.status, check.detail) == ("pass", f"1.0 from {sglang.package.folder}/sglang/__init__.py")
    sglang.write('__version__ = "0.0.0+unknown"\n')
    check = sglang.checks()["imports"]
    assert (check.status, check.command) == ("fail", "invoke install --reinstall")
    assert check.detail == "imports as 0.0.0+unknown, but 1.0 is installed"

    monkeypatch.chdir(tmp_path)  # where a directory has the name
    (sglang.environment.purelib / "sglang.pth").unlink()
    assert sglang.checks()["imports"].detail == "ModuleNotFoundError: No module named 'sglang'"
    (sglang.environment.purelib / "sglang").mkdir()
    assert "namespace package" in sglang.checks()["imports"].detail


@pytest.mark.parametrize("text", ["import torch.nn", "from sglang import x", "import os; os.abort()"])
def test_a_fault_of_its_own_names_no_command_since_none_helps(sglang: Installed, text: str) -> None:
    sglang.put("sglang", "1.0")
    sglang.write(text)
    check = sglang.checks()["imports"]
    assert (check.status, check.command) == ("fail", "")
    assert "shows the traceback" in check.hint


@pytest.mark.parametrize("variable", ["PYTHONPATH", "FLASHINFER_CUDA_ARCH_LIST"])
def test_a_variable_that_breaks_an_import_is_named_and_without_it_all_is_well(
    sglang: Installed, tmp_path: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sglang.put("sglang", "1.0")
    other = tmp_path / "older"
    (other / "sglang").mkdir(parents=True)
    (other / "sglang/__init__.py").touch()
    sglang.write("import os\nlist(map(float, os.environ.get('FLASHINFER_CUDA_ARCH_LIST', '8.0').split(' ')))\n")
    monkeypatch.setenv("FLASHINFER_LOGLEVEL", "1")
    monkeypatch.setenv(variable, {"PYTHONPATH": str(other)}.get(variable, "8.0 "))
    check = sglang.checks()["imports"]
    assert (check.status, check.command) == ("fail", f"unset {variable}")
    follow(check.command, monkeypatch)
    assert sglang.checks()["imports"].status == "pass"
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
    sglang: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sglang.put("sglang", "1.0")
    code = "import os, pathlib\nbase = os.environ.get('FLASHINFER_WORKSPACE_BASE') or os.environ['HOME']\n"
    sglang.write(f"{code}pathlib.Path(base, '.cache').mkdir(exist_ok=True)\n")
    monkeypatch.setenv("HOME", "/dev/null")
    hint = sglang.checks()["imports"].hint
    assert hint.startswith("HOME (/dev/null) cannot be written: set it, or FLASHINFER_WORKSPACE_BASE, ")
    monkeypatch.setenv("FLASHINFER_WORKSPACE_BASE", str(tmp_path))
    assert sglang.checks()["imports"].status == "pass"


def test_the_compiled_kernels_are_imported_where_a_gpu_can_be_used(sglang: Installed) -> None:
    sglang.put("sglang", "1.0")
    assert "sgl_kernel" not in sglang.checks()
    assert sglang.checks(gpu=True)["sgl_kernel"].status == "skip"
    (sglang.environment.purelib / "sgl_kernel").mkdir()
    file = sglang.environment.purelib / "sgl_kernel/__init__.py"
    file.write_text("raise ImportError('cannot load\\n\\n/x/common_ops.so: undefined symbol: _ZN3c104cuda')\n")
    check = sglang.checks(gpu=True)["sgl_kernel"]
    assert (check.status, check.command) == ("fail", "")
    assert check.detail == "/x/common_ops.so: undefined symbol: _ZN3c104cuda"
    file.write_text("")
    assert sglang.checks(gpu=True)["sgl_kernel"].status == "pass"
