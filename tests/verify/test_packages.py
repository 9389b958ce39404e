"""What `verify` finds of installed packages, from metadata as installers leave it in a real environment."""

from __future__ import annotations

import json
import venv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.models import Check, Repository
from tasks.packages import Environment, Package, import_check, probe
from tasks.verify.packages import check_import, check_package

TAGS = ("v0.6.7.post3", "v0.6.18")


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
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
    write_project(checkout / "python")
    return Package(Repository("sglang", "", "main", checkout), "1" * 40, {})


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


def found(package: Package, environment: Environment, tags: Sequence[str] = TAGS) -> dict[str, Check]:
    checks = check_package(package, [package], environment, tags)
    return {check.name.removeprefix("sglang: "): check for check in checks}


def test_pins_of_an_extra_that_matching_reads_are_checked_though_it_is_not_installed(
    environment: Environment, sglang: Package
) -> None:
    put(environment, "sglang", "1.0", folder=sglang.folder)
    put(environment, "flashinfer-python", "0.6.7.post3")
    check = found(sglang, environment)["pins"]
    assert (check.status, check.command) == ("warn", "invoke setup --flashinfer-branch=matching")
    assert "flashinfer==0.6.18 (installed: 0.6.7.post3)" in check.detail
    put(environment, "flashinfer", "0.6.18")
    assert found(sglang, environment)["pins"].status == "pass"


def test_matching_is_not_advised_where_no_tag_has_that_release(environment: Environment, sglang: Package) -> None:
    put(environment, "sglang", "1.0", ["flashinfer-python==0.7.2"], folder=sglang.folder)
    write_project(sglang.folder, '"flashinfer-python==0.7.2"')
    check = found(replace(sglang), environment)["pins"]
    assert (check.status, check.command) == ("warn", "")
    assert "No tag" in check.hint


@pytest.mark.parametrize("before", ["", "torch; "])
def test_requirements_that_cannot_be_read_are_a_failed_check(
    environment: Environment, sglang: Package, before: str
) -> None:
    deep = f"{before}{'(' * 5000}os_name == 'x'{')' * 5000}"
    put(environment, "sglang", "1.0", [deep], folder=sglang.folder)
    check = found(sglang, environment)["requirements"]
    assert (check.status, check.command) == ("fail", "invoke install --reinstall")
    assert len(check.detail) < 600


@pytest.mark.parametrize("deps", [False, True])
def test_a_module_that_was_left_out_on_purpose_is_a_warning_that_names_its_requirement(
    environment: Environment, sglang: Package, deps: bool
) -> None:
    put(environment, "sglang", "1.0", ["Torch>=2", "pyzmq"], folder=sglang.folder)
    sglang.remember(environment, deps)
    (sglang.folder / "sglang/__init__.py").write_text("import torch.nn")
    check = check_import(sglang, environment, *import_check(environment, "sglang", sglang.folder), "invoke x")
    assert check.status == ("fail" if deps else "warn")
    assert check.command == ("invoke x" if deps else "invoke install")
    assert "torch" in check.detail and ("--no-deps" in check.detail) is not deps


@pytest.mark.parametrize("text", ["import sglang.absent", "raise ValueError('x')"])
def test_without_requirements_a_fault_of_its_own_still_fails(
    environment: Environment, sglang: Package, text: str
) -> None:
    put(environment, "sglang", "1.0", ["torch"], folder=sglang.folder)
    sglang.remember(environment, False)
    (sglang.folder / "sglang/__init__.py").write_text(text)
    check = check_import(sglang, environment, *import_check(environment, "sglang", sglang.folder), "invoke x")
    assert (check.status, check.command) == ("fail", "invoke x")
