"""Both packages installed from their checkouts with one uv command, into real environments."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from invoke.context import Context

from tasks.errors import DiskError, InstallError, NetworkError
from tasks.packages import preflight
from tasks.packages import uv as uv_module
from tasks.packages.environment import Environment
from tasks.packages.install import find_overrides
from tasks.packages.package import Package
from tasks.packages.uv import DROPPED
from tests.packages.conftest import FROM_PIP, Place
from tests.upstream.wheels import write_wheel

Make = Callable[..., Package]
COMPANIONS = ("flashinfer-cubin", "flashinfer-jit-cache")


def test_both_are_installed_from_their_checkouts_and_a_second_run_starts_and_writes_nothing(
    place: Place, make_package: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in DROPPED:  # what contradicts our own options; the version would count for every package
        monkeypatch.setenv(name, "1")
    both = make_package("sglang", "1.0", ["torch"]), make_package("flashinfer-python", "0.6.18", ["packaging"])
    outcomes = [(outcome.action, outcome.version) for outcome in place.outcomes(*both)]
    assert outcomes == [("installed", "1.0"), ("installed", "0.6.18")]
    place.assert_installed(*both)
    assert place.version("torch") == "2.9.1"
    before, log = place.files(), place.log.read_text()
    monkeypatch.setattr("subprocess.Popen", None)
    monkeypatch.setattr(Context, "run", None)
    assert place.install(*both) == ["already installed"] * 2
    assert (place.files(), place.log.read_text()) == (before, log)


@pytest.mark.parametrize(
    ("pins", "overrides", "expected"),
    [
        (["flashinfer_python[cu13]==0.3.0"], [], {"flashinfer", *COMPANIONS}),
        (["flashinfer_cubin==0.6.18"], [], {"flashinfer", "flashinfer-jit-cache"}),
        (["flashinfer_cubin==0.3.0"], ["torch==2.9.1"], {"torch==2.9.1", "flashinfer", *COMPANIONS}),
    ],
)
def test_overrides_hold_the_checkouts_companions_of_the_same_version_and_what_the_user_wants(
    place: Place, make_package: Make, pins: list[str], overrides: list[str], expected: set[str]
) -> None:
    sglang, flashinfer = make_package("sglang", "1.0", pins), make_package("flashinfer-python", "0.6.18")
    lines = find_overrides(place.tool(overrides=overrides), [sglang, flashinfer])
    extras = "[cu13]" if "[cu13]" in str(pins) else ""
    assert lines[:2] == [f"-e {sglang.folder.as_uri()}", f"-e {flashinfer.folder.as_uri()}{extras}"]
    assert {line.removesuffix('; python_version < "0"') for line in lines[2:]} == expected
    if not overrides:  # SGLang alone, in an environment without FlashInfer
        assert find_overrides(place.tool(), [sglang]) == [f"-e {sglang.folder.as_uri()}"]


def test_a_pin_on_another_flashinfer_does_not_replace_the_checkout_whose_companions_follow_it(
    place: Place, make_package: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What must not stay is removed, and what is replaced is named; overrides count for the next run, too."""
    write_wheel(place.path, "wants-old", "1", {}, ["flashinfer-python==0.3.0", "flashinfer-jit-cache==0.3.0"])
    write_wheel(place.path, "flashinfer-jit-cache-cu13", "0.3.0", {})
    monkeypatch.setenv("UV_FIND_LINKS", f"{place.path},{os.environ['UV_FIND_LINKS']}")
    place.uv("install", "flashinfer==0.2.0", "flashinfer-jit-cache-cu13==0.3.0", "wants-old")
    write_wheel(place.path, "wants-old", "2", {}, ["flashinfer-python==0.3.0"])
    pins = ["flashinfer_python[cu13]==0.6.7.post3", "flashinfer_cubin==0.6.18", "wants-old>1", "torch==9"]
    both = (
        make_package("sglang", "0.5.10.post1", pins),
        make_package("flashinfer-python", "0.6.18", extras={"cu13": ["apache-tvm-ffi"]}),
    )
    overrides = ["torch==2.9.1"]
    place.install(*both, overrides=overrides)
    place.assert_installed(*both)
    assert [place.version(name) for name in COMPANIONS] == ["0.6.18", ""]
    assert place.version("apache-tvm-ffi") and place.version("torch") == "2.9.1"
    assert not place.version("flashinfer") and not place.version("flashinfer-jit-cache-cu13")
    assert "install: - wants-old==1" in place.heard.events
    assert place.install(*both, overrides=overrides) == ["already installed"] * 2
    assert place.install(*both, overrides=["torch<3", "wants-old", "Flashinfer_cubin==0.3.0"]) == ["reinstalled"] * 2
    assert place.version("torch") == "2.9.1"
    assert "install.overrides.txt" in place.fails(*both, overrides=["torch=="]).what


def test_an_editable_flashinfer_stays_and_is_not_built_again_when_sglang_alone_is_installed(
    place: Place, make_package: Make
) -> None:
    flashinfer = make_package("flashinfer-python", "0.6.18", dynamic=True)  # its version is known only to its build
    assert flashinfer.version == ""
    place.uv("install", "flashinfer-cubin==0.6.18")
    place.install(flashinfer)
    place.heard.events.clear()
    sglang = make_package("sglang", "1.0", ["flashinfer_python==0.3.0", "flashinfer_cubin==0.3.0"])
    assert place.install(sglang) == ["installed"]
    place.assert_installed(sglang, flashinfer)
    assert not [line for line in place.heard.events if "Building flashinfer" in line]
    assert place.version("flashinfer-cubin") == "0.6.18"
    assert place.install(sglang) == ["already installed"]


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
        place.install(make_package("sglang", build=["setuptools-rust"]))
    assert "rustup" in caught.value.hint and "gRPC" in caught.value.hint
    assert caught.value.command == "SGLANG_BUILD_RUST_EXTS=none invoke setup --only=sglang"
    old = make_package("flashinfer-python")
    old.installable = False
    with pytest.raises(InstallError, match=r"has no pyproject\.toml") as caught:
        place.install(old)
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


def test_a_build_without_rust_is_a_warning(place: Place, make_package: Make) -> None:
    package = make_package("sglang", "0.0.0.dev0", dynamic=True)  # the checkout has no tag
    package.built_with = {"setuptools-rust"}
    assert place.outcomes(package, deps=False)[0].version == "0.0.0.dev0"
    warning = "sglang: installed without its Rust extensions; SGLang's native gRPC server"
    assert place.heard.warnings[0].startswith(warning)
    place.install(package, deps=False)
    assert len(place.heard.warnings) == 1


@pytest.fixture
def urls(tmp_path: Path) -> Iterator[Sequence[str]]:
    """The URLs of two package indexes (PEP 503): one has a distribution `here`, the other `there`, version 1."""
    for name in ("here", "there"):
        project = tmp_path / f"index/S3cr3tT0ken/{name}/{name}"
        project.mkdir(parents=True)
        wheel = write_wheel(project, name, "1", {f"{name}.py": ""})
        (project / "index.html").write_text(f'<!DOCTYPE html><a href="{wheel.name}">{wheel.name}</a>')
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "index"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://user:S3cr3t%20PW@127.0.0.1:{server.server_port}/S3cr3tT0ken"
        yield f"{root}/here", f"{root}/there"
        server.shutdown()


def test_indexes_of_the_configuration_and_of_pip_are_used_and_their_secrets_are_not_shown(
    place: Place, make_package: Make, urls: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_NO_INDEX", "UV_OFFLINE", "UV_FIND_LINKS"):
        monkeypatch.delenv(name)
    (place.path / "nothing").mkdir()
    monkeypatch.setenv("UV_DEFAULT_INDEX", (place.path / "nothing").as_uri())
    (place.path / "pip.conf").write_text(f"[global]\nextra-index-url = {urls[1]}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(place.path / "pip.conf"))
    monkeypatch.setattr(uv_module, "from_pip", FROM_PIP)
    place.install(make_package("sglang", "1.0", ["here", "there"]), indexes=urls[:1])
    assert (place.version("here"), place.version("there")) == ("1", "1")
    error = place.fails(make_package("sglang", "1.1", ["here==2"]), indexes=urls[:1])
    shown = [*place.heard.events, *place.heard.commands, str(error), place.log.read_text()]
    assert not [text for text in shown if "S3cr3t" in text]
    assert "/…" in error.command


def test_a_failed_build_is_one_sentence_with_a_command_that_repeats_it(place: Place, make_package: Make) -> None:
    """Whatever characters are in the paths."""
    folder = place.path / "a b'c\"d ü漢 100%?; [x] ${HOME} -e"
    good = make_package("flashinfer-python")
    action = "[print('line', n) for n in range(60)]; raise ValueError('the kernel is sour')"
    error = place.fails(make_package("sglang", action=action, folder=folder), good)
    assert isinstance(error, InstallError)
    assert error.what.startswith("Failed to build `sglang @ file://")
    assert error.what.endswith("ValueError: the kernel is sour")
    assert len(error.what.splitlines()) == 2
    assert "line 59" in place.log.read_text() and str(place.log) in error.hint
    assert place.heard.events == [line for line in place.heard.events if "line 5" not in line]
    bad = make_package("sglang", folder=folder)
    subprocess.run(["sh", "-c", error.command], check=True, capture_output=True)
    place.assert_installed(bad, good)


def test_a_failed_installation_changes_no_file_of_the_environment(
    place: Place, make_package: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.install(make_package("sglang", "1.0", ["torch"]), make_package("flashinfer-python", "0.6.18"))
    place.uv("install", "flashinfer-cubin==0.3.0", "flashinfer==0.1.6")  # what the installation would remove
    before = place.files()
    flashinfer = make_package("flashinfer-python", "0.3.0")

    def fails(kind: type[Exception], what: str, requires: str = "", action: str = "pass", deps: bool = True) -> None:
        sglang = make_package("sglang", "2.0", ["torch", *requires.split()], action=action)
        error = place.fails(flashinfer, sglang, deps=deps)
        assert type(error) is kind and what in error.what
        assert place.files() == before

    fails(InstallError, "no-such-thing", "no-such-thing>=1")
    fails(InstallError, "packaging<1", "packaging<1 packaging>2")
    fails(InstallError, "Failed to build", action="raise ValueError('cargo metadata failed')", deps=False)
    monkeypatch.delenv("UV_OFFLINE")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:1/simple")  # nobody listens there
    fails(NetworkError, "Failed to fetch: http://127.0.0.1:1", "absent")
    assert place.version("sglang") == "1.0"


def test_an_installation_keeps_the_running_program_working(
    place: Place, make_package: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the program itself requires is resolved with the rest: a contradiction is an error, not a broken program."""
    (place.path / "tools.txt").write_text("flashinfer-cubin>0.5  # why\n")
    monkeypatch.setattr(sys.modules[find_overrides.__module__], "TOOLS", place.path / "tools.txt")
    package = make_package("sglang", "1.0", ["flashinfer-cubin<0.4"])
    monkeypatch.setattr(Environment, "current", property(lambda environment: True))
    error = place.fails(package)
    assert "flashinfer-cubin<0.4" in error.what and "flashinfer-cubin>0.5" in error.what


def test_output_on_a_terminal_is_uvs_own(place: Place, make_package: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(place.heard, "terminal", lambda: terminal)
    for descriptor, name in enumerate(("stdin", "stdout")):  # Invoke makes a pseudo-terminal of these descriptors
        monkeypatch.setattr(sys, name, os.fdopen(descriptor, "rw"[descriptor], closefd=False))
    place.fails(make_package("sglang", action="raise ValueError('the kernel is sour')"))
    shown = terminal.getvalue()
    assert "\x1b[" in shown and "Resolved" in shown and "the kernel is sour" in shown
    assert "\x1b[" not in place.log.read_text() and "the kernel is sour" in place.log.read_text()
