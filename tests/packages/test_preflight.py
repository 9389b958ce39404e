"""What is known to fail is reported all at once, before anything is started."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from invoke.context import Context

from tasks.errors import DiskError, InstallError
from tasks.packages import preflight
from tasks.packages.environment import probe
from tasks.packages.package import Package
from tasks.packages.uv import Uv
from tests.packages.conftest import Place, hide_programs

Make = Callable[..., Package]


def check(place: Place, *packages: Package, again: str = "invoke install") -> None:
    uv = Uv(Context(), place.environment, place.settings(), place.log, place.heard, again)
    preflight.check(uv, packages, deps=True)


def test_an_environment_that_cannot_take_packages_is_named(place: Place, make_package: Make, managed: Path) -> None:
    usual = place.environment
    place.environment = probe(managed)
    assert "PEP 668" in place.fails(make_package("sglang")).what
    place.environment = replace(usual, writable=False)
    error = place.fails(make_package("sglang"))
    assert "is not writable" in error.what and "venv" in error.hint
    assert place.heard.commands == []
    place.environment = replace(usual, virtual=False)
    check(place, make_package("sglang"))
    assert place.heard.warnings == [
        f"install: {usual.prefix} is no virtual environment; its packages are those of all programs"
    ]


@pytest.fixture
def cargo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Place) -> Callable[[str], None]:
    """`cargo("1.65.0")` is the only cargo there is; `cargo("")`: there is none."""
    programs = hide_programs(tmp_path, monkeypatch)
    monkeypatch.delenv("SGLANG_BUILD_RUST_EXTS")

    def make(version: str) -> None:
        if version:
            (programs / "cargo").write_text(f"#!/bin/sh\necho 'cargo {version} (1234567 2026-01-01)'\n")
            (programs / "cargo").chmod(0o755)

    return make


def test_all_obstacles_are_reported_at_once_and_nothing_is_started(
    place: Place, make_package: Make, checkout: Make, cargo: Callable[[str], None]
) -> None:
    rust = checkout("sglang", "rust")
    (rust.folder.parent / "rust").mkdir(parents=True)
    (rust.folder.parent / "rust/Cargo.toml").write_text('[workspace]\nresolver = "3"\npackage.edition = "2024"\n')
    cargo("1.65.0")
    again = "invoke setup --only=sglang"
    with pytest.raises(InstallError) as caught:
        check(place, rust, make_package("other", python=">=4"), checkout("flashinfer", "v0.1.6"), again=again)
    what, environment = caught.value.what, place.environment
    assert "sglang needs Rust 1.85 or newer; `cargo` is 1.65.0" in what
    assert f"other 1.0 requires Python >=4; {environment.python} is {environment.version}" in what
    assert "flashinfer 0.1.6 is too old to be installed; v0.2.0 and newer can be." in what
    assert "rustup" in caught.value.hint and "gRPC" in caught.value.hint
    assert caught.value.command.startswith(f"SGLANG_BUILD_RUST_EXTS=none {again}")


@pytest.mark.parametrize(
    ("version", "manifest", "message"),
    [
        ("", "", "needs Rust, and no `cargo` was found"),
        ("", '[package]\nrust-version = "1.80"', "needs Rust 1.80 or newer, and no `cargo` was found"),
        ("1.79.0-nightly", '[package]\nrust-version = "1.80"', "`cargo` is 1.79.0"),
        ("1.84.1", '[workspace]\nresolver = "3"', ""),
        ("1.84.1", '[package]\nedition = "2024"', "`cargo` is 1.84.1"),
        ("1.60.0", "this is [ no TOML", ""),
    ],
)
def test_rust_has_to_be_as_new_as_the_sources_ask_for(
    place: Place, checkout: Make, cargo: Callable[[str], None], version: str, manifest: str, message: str
) -> None:
    package = checkout("sglang", "rust")
    (package.folder / "Cargo.toml").write_text(manifest)
    cargo(version)
    if not message:
        return check(place, package)
    with pytest.raises(InstallError, match=re.escape(message)):
        check(place, package)


def test_sglang_without_its_rust_extensions_needs_no_rust_and_says_once_what_is_missing(
    place: Place, make_package: Make, cargo: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cargo("")
    monkeypatch.setenv("SGLANG_BUILD_RUST_EXTS", "none")
    package = make_package("sglang")
    object.__setattr__(package.metadata, "built_with", frozenset({"setuptools-rust"}))
    place.install(package)
    assert "without its Rust extensions; SGLang's native gRPC server" in place.heard.warnings[0]
    place.install(package, make_package("flashinfer-python"))
    assert len(place.heard.warnings) == 1


def test_too_little_space_is_reported_before_anything_starts(
    place: Place, make_package: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "NEEDED", 10**18)
    monkeypatch.setenv("UV_CACHE_DIR", str(place.path / "cache"))
    error = place.fails(make_package("sglang"))
    assert isinstance(error, DiskError)
    assert re.match(r"The packages need about 1\.0 EB in .*, and .* are free", error.what)
    assert "UV_CACHE_DIR" in error.hint
    assert place.heard.commands == []
    assert place.install(make_package("sglang"), deps=False) == ["installed"]


def test_a_cache_that_cannot_be_written_is_reported(
    place: Place, make_package: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", "/proc/1/cache")
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != "/proc/1")
    error = place.fails(make_package("sglang"))
    assert isinstance(error, DiskError)
    assert (error.what, error.hint) == (
        "uv's cache /proc/1/cache cannot be written.", "UV_CACHE_DIR names another directory for it.",
    )  # fmt: skip
