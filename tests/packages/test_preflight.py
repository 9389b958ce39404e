"""What is known to fail is reported all at once, before anything is started."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from invoke.context import Context

from tasks.errors import DiskError, InstallError
from tasks.packages import preflight
from tasks.packages.package import Package
from tasks.packages.uv import Uv
from tests.packages.conftest import Place, hide_programs

Make = Callable[..., Package]


def check(place: Place, *packages: Package, again: str = "invoke install") -> None:
    uv = Uv(Context(), place.environment, place.settings(), place.log, place.heard, again)
    preflight.check(uv, packages, deps=True)


def test_an_environment_that_cannot_take_packages_is_named(place: Place, make_package: Make) -> None:
    usual = place.environment
    place.environment = replace(usual, externally_managed=True)
    assert "PEP 668" in place.fails(make_package("sglang")).what
    place.environment = replace(usual, purelib=Path("/proc/1/site-packages"))
    error = place.fails(make_package("sglang"))
    assert "is not writable" in error.what and "venv" in error.hint
    assert place.heard.commands == []
    place.environment = replace(usual, virtual=False)
    check(place, make_package("sglang"))
    assert place.heard.warnings == [
        f"install: {usual.prefix} is no virtual environment; its packages are those of all programs"
    ]


def test_all_obstacles_are_reported_at_once_and_nothing_is_started(
    place: Place, make_package: Make, checkout: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_programs(tmp_path, monkeypatch)
    monkeypatch.delenv("SGLANG_BUILD_RUST_EXTS")
    again = "invoke setup --only=sglang"
    with pytest.raises(InstallError) as caught:
        rust, old = checkout("sglang", "rust"), checkout("flashinfer", "v0.1.6")
        check(place, rust, make_package("other", python=">=4"), old, again=again)
    what, environment = caught.value.what, place.environment
    assert "sglang needs Rust, and no `cargo` was found on the PATH" in what
    assert f"other 1.0 requires Python >=4; {environment.python} is {environment.version}" in what
    assert "flashinfer 0.1.6 is too old to be installed; v0.2.0 and newer can be." in what
    assert "rustup" in caught.value.hint and "gRPC" in caught.value.hint
    assert caught.value.command.startswith(f"SGLANG_BUILD_RUST_EXTS=none {again}")


def test_sglang_without_its_rust_extensions_needs_no_rust_and_says_once_what_is_missing(
    place: Place, make_package: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_programs(tmp_path, monkeypatch)
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


def test_a_home_that_cannot_be_written_is_reported(
    place: Place, make_package: Make, unprivileged: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UV_CACHE_DIR")
    package = make_package("sglang")
    place.path.chmod(0o755)
    (home := place.path / "unwritable").mkdir(mode=0o555)
    code = f"""if True:
        import os, sys; sys.path[:0] = {sys.path!r}
        os.environ |= {{"HOME": {str(home)!r}, "PATH": {os.environ["PATH"]!r}}}
        from pathlib import Path
        from tasks.packages import preflight, probe
        from tests.packages.conftest import Place, package_at
        from tests.packages.test_preflight import check
        try:
            check(Place(probe()), package_at(Path({str(package.checkout.path)!r}), "sglang"))
        except Exception as error:
            print(type(error).__name__, error.what, error.hint)
    """
    assert unprivileged(code).startswith(f"DiskError uv's cache {home}/.cache/uv cannot be written. UV_CACHE_DIR")


def test_a_uv_that_cannot_run_is_named(place: Place, make_package: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    (program := place.path / "uv").write_text("no program")
    monkeypatch.setattr("uv.find_uv_bin", lambda: str(program))
    error = place.fails(make_package("sglang"))
    assert isinstance(error, InstallError)
    assert f"uv cannot be run: {program}: Permission denied" in error.what and error.command
