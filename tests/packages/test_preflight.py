"""What is known to fail is reported all at once, before anything is started."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.errors import DiskError, InstallError
from tasks.packages.environment import Environment, probe
from tasks.packages.layouts import INSTALLED_BYTES
from tasks.packages.package import Package
from tasks.packages.preflight import check
from tests.packages.conftest import Heard, errors, hide_uv, install

pytestmark = pytest.mark.usefixtures("user")


def test_an_environment_managed_by_the_operating_system_is_not_changed(
    managed: Path, make_package: Callable[..., Package], heard: Heard
) -> None:
    with pytest.raises(InstallError, match="PEP 668") as caught:
        install([make_package("sglang")], probe(managed), reporter=heard)
    assert "venv" in caught.value.hint
    assert heard.commands == []


def test_a_read_only_environment_is_reported_before_anything_starts(
    empty: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    with pytest.raises(InstallError, match="is not writable"):
        install([make_package("sglang")], replace(empty, writable=False), reporter=heard)
    assert heard.commands == []


@pytest.fixture
def cargo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`cargo("1.65.0")` is the only cargo there is; `cargo("")`: there is none."""
    hide_uv(tmp_path, monkeypatch)
    monkeypatch.delenv("SGLANG_BUILD_RUST_EXTS")

    def make(version: str) -> None:
        if version:
            (tmp_path / "bin/cargo").write_text(f"#!/bin/sh\necho 'cargo {version} (1234567 2026-01-01)'\n")
            (tmp_path / "bin/cargo").chmod(0o755)

    return make


def test_all_obstacles_are_reported_at_once_and_nothing_is_started(
    empty: Environment, make_package: Callable[..., Package], checkout: Callable[..., Package], heard: Heard,
    cargo: Callable[[str], None],
) -> None:  # fmt: skip
    rust = checkout("sglang", "rust")
    (rust.folder.parent / "rust/grpc").mkdir(parents=True)
    (rust.folder.parent / "rust/Cargo.toml").write_text('[workspace]\nresolver = "3"\npackage.edition = "2024"\n')
    build = '[package]\nname = "grpc"\nrust-version = "1.70"\n[build-dependencies]\ntonic-build = "0.12"\n'
    (rust.folder.parent / "rust/grpc/Cargo.toml").write_text(build)
    cargo("1.65.0")
    old = make_package("other", python=">=4")
    with pytest.raises(InstallError) as caught:
        install([rust, old], empty, reporter=heard)
    what = caught.value.what
    assert "sglang needs Rust 1.85 or newer; `cargo` is 1.65.0" in what
    assert "no `protoc` was found" in what
    assert f"other 1.0 requires Python >=4; {empty.python} is {empty.version}" in what
    assert "rustup" in caught.value.hint
    assert caught.value.command == "SGLANG_BUILD_RUST_EXTS=none invoke install"
    assert heard.commands == []


@pytest.mark.parametrize(
    ("version", "manifest", "message"),
    [
        ("", "", "needs Rust, and no `cargo` was found"),
        ("", '[package]\nrust-version = "1.80"', "needs Rust 1.80 or newer, and no `cargo` was found"),
        ("1.79.0-nightly", '[package]\nrust-version = "1.80"', "`cargo` is 1.79.0"),
        ("1.84.1", '[workspace]\nresolver = "3"', ""),
        ("1.84.1", '[package]\nedition = "2024"', "`cargo` is 1.84.1"),
        ("1.85.0", '[package]\nedition = "2024"\nresolver = "2"', ""),
        ("1.60.0", "this is [ no TOML", ""),
        ("1.85.0", "[dependencies]\nprost-build = '1'\nprotoc-bin-vendored = '3'", ""),
        ("1.85.0", "[dependencies]\nprost-build = '1'", "no `protoc` was found"),
    ],
)
def test_rust_has_to_be_as_new_as_the_sources_ask_for(
    empty: Environment, checkout: Callable[..., Package], cargo: Callable[[str], None], version: str, manifest: str,
    message: str,
) -> None:  # fmt: skip
    package = checkout("sglang", "rust")
    (package.folder / "Cargo.toml").write_text(manifest)
    cargo(version)
    if not message:
        return check([package], [package], empty, deps=False)
    with pytest.raises(InstallError, match=re.escape(message)):
        check([package], [package], empty, deps=False)


def test_sglang_without_its_rust_extensions_needs_no_rust(
    empty: Environment, checkout: Callable[..., Package], cargo: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cargo("")
    monkeypatch.setenv("SGLANG_BUILD_RUST_EXTS", "none")
    package = checkout("sglang", "rust")
    check([package], [package], empty, deps=False)


def test_an_old_flashinfer_that_compiles_at_build_time_needs_cuda_and_a_gpu_or_its_name(
    empty: Environment, checkout: Callable[..., Package], cargo: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cargo("")
    monkeypatch.setenv("CUDA_HOME", "/nowhere")
    package = checkout("flashinfer", "v0.1.6")
    with (package.folder / "setup.py").open("a") as script:
        script.write("\n# CUDAExtension(\n")
    package = replace(package)  # reads the files again
    with pytest.raises(InstallError) as caught:
        check([package], [package], empty, deps=True)
    for missing in ("torch", "nvcc", "GPU"):
        assert missing in caught.value.what
    assert "TORCH_CUDA_ARCH_LIST=9.0 invoke install" in caught.value.command


def test_too_little_space_for_the_requirements_is_reported_before_anything_starts(
    empty: Environment, make_package: Callable[..., Package], heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(INSTALLED_BYTES, "sglang", 10**18)
    with pytest.raises(DiskError, match=r"The packages need 1\.0 EB"):
        install([make_package("sglang")], empty, reporter=heard)
    assert heard.commands == []
    assert errors(install([make_package("sglang")], empty, deps=False, reporter=heard)) == []


def test_the_old_layout_is_not_built_without_torch(
    empty: Environment, checkout: Callable[..., Package], heard: Heard
) -> None:
    with pytest.raises(InstallError, match="torch") as caught:
        install([checkout("flashinfer", "v0.1.6")], empty, reporter=heard)
    assert caught.value.command == f"{empty.python} -m pip install torch"
    assert heard.commands == []
