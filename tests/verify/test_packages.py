"""What `verify` finds of installed packages, from metadata as installers leave it in a real environment."""

from __future__ import annotations

import json
import os
import subprocess
import venv
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tasks.models import Check, Repository
from tasks.packages import Environment, Package, probe
from tasks.verify.checkouts import Found
from tasks.verify.packages import check_imports, check_package
from tests.packages.conftest import package_at

ABSENT: dict[str, Any] = {"gpus": []}
GPU: dict[str, Any] = {"gpus": ["one"]}


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    for name in [name for name in os.environ if name == "PYTHONPATH" or name.startswith("FLASHINFER_")]:
        monkeypatch.delenv(name)
    venv.create(tmp_path / "venv", symlinks=True)
    return probe(tmp_path / "venv")


def write_project(folder: Path, dependencies: str = "") -> None:
    project = f'[project]\nname = "sglang"\nversion = "1.0"\ndependencies = [{dependencies}]\n'
    extras = '[project.optional-dependencies]\nsrt = ["flashinfer==0.6.18"]\n'
    (folder / "pyproject.toml").write_text(f"{project}{extras}")


@pytest.fixture
def sglang(tmp_path: Path) -> Package:
    """A checkout of SGLang 1.0 whose extra `srt` requires FlashInfer."""
    checkout = tmp_path / "sglang"
    (checkout / ".git").mkdir(parents=True)
    (checkout / "python/sglang").mkdir(parents=True)
    (checkout / "python/sglang/__init__.py").write_text('__version__ = "1.0"\n')
    write_project(checkout / "python")
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


class FlashInfer:
    """Stands for a checkout of FlashInfer with these tags."""

    tags = ("v0.6.7.post3", "v0.6.18")


def checked(package: Package, environment: Environment, overrides: Sequence[str] = ()) -> dict[str, Check]:
    flashinfer: Any = FlashInfer()
    found = [Found(Repository("flashinfer", "", "main", Path("/nowhere")), flashinfer)]
    checks = check_package(package, [package], environment, overrides, found)
    return {check.name.removeprefix("sglang: "): check for check in checks}


def imported(package: Package, environment: Environment, driver: dict[str, Any] = ABSENT) -> dict[str, Check]:
    """The checks of the imports."""
    answer: Future[dict[str, Any]] = Future()
    answer.set_result(driver)
    return {
        check.name.removeprefix(f"{package.repository.name}: "): check
        for check in check_imports(package, environment, answer)
    }


def follow(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command as the user would in their shell, and take over its variables."""
    shell = subprocess.run(["sh", "-c", f"{command}\nenv -0"], capture_output=True, check=True)
    after = dict(line.split("=", 1) for line in shell.stdout.decode().split("\0") if line)
    for name in {*os.environ} - {*after}:
        monkeypatch.delenv(name)
    for name, value in after.items():
        monkeypatch.setenv(name, value)


def test_pins_of_an_extra_that_matching_reads_are_checked_though_it_is_not_installed(
    environment: Environment, sglang: Package
) -> None:
    put(environment, "sglang", "1.0", folder=sglang.folder)
    put(environment, "flashinfer-python", "0.6.7.post3")
    check = checked(sglang, environment)["pins"]
    assert (check.status, check.command) == ("warn", "invoke setup --flashinfer-branch=matching")
    assert "flashinfer==0.6.18 (installed: 0.6.7.post3)" in check.detail
    put(environment, "flashinfer", "0.6.18")
    assert checked(sglang, environment)["pins"].status == "pass"


def test_matching_is_not_advised_where_no_tag_has_that_release(environment: Environment, sglang: Package) -> None:
    put(environment, "sglang", "1.0", ["flashinfer-python==0.7.2"], folder=sglang.folder)
    write_project(sglang.folder, '"flashinfer-python==0.7.2"')
    check = checked(package_at(sglang.checkout.path, "sglang"), environment)["pins"]
    assert (check.status, check.command) == ("warn", "")
    assert "No tag" in check.hint


def test_without_flashinfer_among_the_repositories_nothing_is_claimed_about_its_tags(
    environment: Environment, sglang: Package
) -> None:
    put(environment, "sglang", "1.0", folder=sglang.folder)
    (check,) = [one for one in check_package(sglang, [sglang], environment, (), []) if one.name == "sglang: pins"]
    assert (check.status, check.hint, check.command) == ("warn", "", "")


def test_requirements_that_the_user_has_overridden_count_as_met(environment: Environment, sglang: Package) -> None:
    put(environment, "sglang", "1.0", ["torch==2.14.1"], folder=sglang.folder)
    put(environment, "torch", "2.9.1+cu128")
    assert checked(sglang, environment)["requirements"].status == "warn"
    assert checked(sglang, environment, ["torch==2.9.1+cu128"])["requirements"].status == "pass"


@pytest.mark.parametrize("before", ["", "torch; "])
def test_requirements_that_cannot_be_read_are_a_failed_check(
    environment: Environment, sglang: Package, before: str
) -> None:
    deep = f"{before}{'(' * 5000}os_name == 'x'{')' * 5000}"
    put(environment, "sglang", "1.0", [deep], folder=sglang.folder)
    check = checked(sglang, environment)["requirements"]
    assert (check.status, check.command) == ("fail", "invoke install --reinstall")
    assert len(check.detail) < 600


def test_a_version_without_a_tag_is_a_warning(environment: Environment, sglang: Package) -> None:
    project = '[project]\nname = "sglang"\ndynamic = ["version"]\n[build-system]\nrequires = ["setuptools-scm"]\n'
    (sglang.folder / "pyproject.toml").write_text(project)
    put(environment, "sglang", "0.0.0.dev0", folder=sglang.folder)
    check = checked(package_at(sglang.checkout.path, "sglang"), environment)["version"]
    assert (check.status, check.detail) == ("warn", "0.0.0.dev0")


def test_every_companion_of_another_version_is_a_failure_also_a_provider_of_jit_cache(
    tmp_path: Path, environment: Environment
) -> None:
    checkout = tmp_path / "flashinfer"
    (checkout / "flashinfer").mkdir(parents=True)
    (checkout / "pyproject.toml").write_text('[project]\nname = "flashinfer-python"\nversion = "0.7.4"\n')
    package = package_at(checkout, "flashinfer")
    put(environment, "flashinfer-python", "0.7.4", folder=checkout)
    put(environment, "flashinfer-jit-cache", "0.7.4+cu130")
    put(environment, "flashinfer-jit-cache-sm90a", "0.7.2+cu130")
    checks = {check.name: check.status for check in check_package(package, [package], environment, (), [])}
    assert checks["flashinfer: flashinfer-jit-cache"] == "pass"
    assert checks["flashinfer: flashinfer-jit-cache-sm90a"] == "fail"


def test_an_import_is_that_of_the_checkout_in_the_installed_version(environment: Environment, sglang: Package) -> None:
    put(environment, "sglang", "1.0", folder=sglang.folder)
    check = imported(sglang, environment)["imports"]
    assert (check.status, check.detail) == ("pass", f"1.0 from {sglang.folder}/sglang/__init__.py")
    (sglang.folder / "sglang/__init__.py").write_text('__version__ = "0.0.0+unknown"\n')
    check = imported(sglang, environment)["imports"]
    assert (check.status, check.command) == ("fail", "invoke install --reinstall")
    assert check.detail == "imports as 0.0.0+unknown, but 1.0 is installed"


def test_a_directory_of_that_name_is_not_the_package(
    environment: Environment, sglang: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(environment, "sglang", "1.0", folder=sglang.folder)
    (environment.purelib / "sglang.pth").unlink()
    assert imported(sglang, environment)["imports"].detail == "ModuleNotFoundError: No module named 'sglang'"
    (environment.purelib / "sglang").mkdir()
    assert "namespace package" in imported(sglang, environment)["imports"].detail


@pytest.mark.parametrize("deps", [False, True])
def test_a_module_of_a_requirement_that_is_missing_names_the_command_that_installs_it(
    environment: Environment, sglang: Package, deps: bool
) -> None:
    put(environment, "sglang", "1.0", ["Torch>=2", "pyzmq"], folder=sglang.folder)
    sglang.remember(environment, deps)
    (sglang.folder / "sglang/__init__.py").write_text("import torch.nn")
    check = imported(sglang, environment)["imports"]
    assert (check.status, check.command) == ("fail" if deps else "warn", "invoke install")
    assert "torch" in check.detail and ("--no-deps" in check.detail) is not deps


@pytest.mark.parametrize("text", ["import sglang.absent", "raise ValueError('x')", "import os; os.abort()"])
def test_a_fault_of_its_own_names_no_command_since_none_helps(
    environment: Environment, sglang: Package, text: str
) -> None:
    put(environment, "sglang", "1.0", folder=sglang.folder)
    (sglang.folder / "sglang/__init__.py").write_text(text)
    check = imported(sglang, environment)["imports"]
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
    check = imported(sglang, environment)["imports"]
    assert (check.status, check.command) == ("fail", f"unset {variable}")
    follow(check.command, monkeypatch)
    assert imported(sglang, environment)["imports"].status == "pass"
    assert os.environ["FLASHINFER_LOGLEVEL"] == "1"


def test_a_home_that_cannot_be_written_is_named(
    environment: Environment, sglang: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(environment, "sglang", "1.0", folder=sglang.folder)
    code = "import os, pathlib\nbase = os.environ.get('FLASHINFER_WORKSPACE_BASE') or os.environ['HOME']\n"
    (sglang.folder / "sglang/__init__.py").write_text(f"{code}pathlib.Path(base, '.cache').mkdir(exist_ok=True)\n")
    monkeypatch.setenv("HOME", "/dev/null")
    check = imported(sglang, environment)["imports"]
    assert check.hint.startswith("HOME (/dev/null) cannot be written: set it, or FLASHINFER_WORKSPACE_BASE, ")
    monkeypatch.setenv("FLASHINFER_WORKSPACE_BASE", str(tmp_path))
    assert imported(sglang, environment)["imports"].status == "pass"


def test_the_compiled_kernels_are_imported_where_a_gpu_can_be_used(environment: Environment, sglang: Package) -> None:
    put(environment, "sglang", "1.0", folder=sglang.folder)
    assert "sgl_kernel" not in imported(sglang, environment)
    assert imported(sglang, environment, GPU)["sgl_kernel"].status == "skip"
    (environment.purelib / "sgl_kernel").mkdir()
    file = environment.purelib / "sgl_kernel/__init__.py"
    file.write_text("raise ImportError('cannot load\\n\\n/x/common_ops.so: undefined symbol: _ZN3c104cuda')\n")
    check = imported(sglang, environment, GPU)["sgl_kernel"]
    assert (check.status, check.command) == ("fail", "")
    assert "undefined symbol: _ZN3c104cuda" in check.detail
    file.write_text("")
    assert imported(sglang, environment, GPU)["sgl_kernel"].status == "pass"
