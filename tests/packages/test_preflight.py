"""What is known to fail is reported before anything is started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.errors import DiskError, InstallError
from tasks.packages import preflight
from tasks.packages.package import Package
from tests.packages.conftest import Place

Make = Callable[..., Package]


def check(place: Place, *packages: Package) -> None:
    preflight.check(place.tool(), packages, deps=True)


def test_an_environment_that_cannot_take_packages_is_named(place: Place, make_package: Make) -> None:
    place.environment = replace(place.environment, purelib=Path("/proc/1/site-packages"))
    error = place.fails(make_package("sglang"))
    assert "is not writable" in error.what and "venv" in error.hint
    assert place.heard.commands == []


def test_a_missing_cargo_and_a_flashinfer_that_is_too_old_are_named(
    place: Place, make_package: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("SGLANG_BUILD_RUST_EXTS")
    with pytest.raises(InstallError, match="no `cargo` was found") as caught:
        check(place, make_package("sglang", build=["setuptools-rust"]))
    assert "rustup" in caught.value.hint and "gRPC" in caught.value.hint
    assert caught.value.command == "SGLANG_BUILD_RUST_EXTS=none invoke setup --only=sglang"
    old = make_package("flashinfer-python")
    old.installable = False
    with pytest.raises(InstallError, match=r"has no pyproject\.toml") as caught:
        check(place, old)
    assert "v0.2.0" in caught.value.hint


def test_too_little_space_is_reported_before_anything_starts_and_a_cache_that_cannot_be_written_by_uv(
    place: Place, make_package: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", f"{place.environment.python}/cache")
    error = place.fails(make_package("flashinfer-python"))
    assert isinstance(error, DiskError) and "Not a directory" in error.what
    place.heard.commands.clear()
    monkeypatch.setenv("UV_CACHE_DIR", str(place.path / "cache"))
    monkeypatch.setattr(preflight, "NEEDED", 10**18)
    error = place.fails(make_package("sglang"))
    assert isinstance(error, DiskError)
    assert "need about 1.0 EB in" in error.what and "UV_CACHE_DIR" in error.hint
    assert place.heard.commands == []
