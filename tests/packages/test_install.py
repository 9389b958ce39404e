"""Both packages installed from their checkouts, with real pip and real uv, into real environments."""

from __future__ import annotations

import hashlib
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from invoke.config import Config
from invoke.context import Context

from tasks import packages as tested
from tasks.errors import DiskError, InstallError, NetworkError, SourcesError
from tasks.models import Outcome, Reporter, Settings
from tasks.packages.environment import Environment, import_check, probe
from tasks.packages.environment_lock import NAME
from tasks.packages.failures import explain
from tasks.packages.installer import Installer
from tasks.packages.layouts import COMPANIONS, COSTS, find_layout
from tasks.packages.metadata import read_metadata
from tasks.packages.package import Package
from tasks.packages.preflight import check
from tasks.packages.requirements import missing_requirements
from tests.conftest import Environment as VirtualEnvironment
from tests.upstream.host import refused_url
from tests.upstream.store import Upstream
from tests.upstream.wheels import write_wheel

BACKEND = '''
"""Builds an editable wheel in no time."""
import pathlib, sys, zipfile

def build_editable(directory, config_settings=None, metadata_directory=None):
    here = pathlib.Path(__file__).resolve().parent
    {action}
    stem = "{module}-{version}"
    requires = "".join(f"Requires-Dist: {{one}}\\n" for one in {requires!r})
    name = f"{{stem}}-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(directory) / name, "w") as wheel:
        wheel.writestr("{module}.pth", f"{{here}}\\n")
        wheel.writestr(f"{{stem}}.dist-info/METADATA",
                       "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n" + requires)
        wheel.writestr(f"{{stem}}.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{{stem}}.dist-info/RECORD", "")
    return name

build_wheel = build_editable
'''


class Heard:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.warnings: list[str] = []
        self.commands: list[str] = []
        self.lines: list[str] = []

    def event(self, who: str, message: str) -> None:
        self.events.append(f"{who}: {message}")

    def warn(self, who: str, message: str) -> None:
        self.warnings.append(f"{who}: {message}")

    def progress(self, who: str, doing: str, done: float | None, moved: int, rate: float) -> None: ...

    def command(self, argv: Sequence[str], cwd: Path | None) -> None:
        self.commands.append(shlex.join(argv))

    def output(self, who: str, line: str) -> None:
        self.lines.append(f"{who}: {line}")

    def terminal(self) -> None: ...


def install(
    packages: Sequence[Package], environment: Environment, *, reporter: Reporter, installer: Any = "",
    indexes: tuple[str, ...] = (), deps: bool = True, reinstall: bool = False, c: Context | None = None,
) -> list[Outcome]:  # fmt: skip
    """With pip where the environment has it, else with uv, unless said otherwise; the log lies beside it."""
    directory = environment.prefix.parent
    chosen: Any = installer or ("pip" if environment.has_pip else "auto")
    settings = Settings(directory, directory, None, 1, 30, chosen, indexes, None, ())
    return tested.install(
        c or Context(), packages, environment, settings=settings, deps=deps, reinstall=reinstall,
        log=log_of(environment), reporter=reporter,
    )  # fmt: skip


def log_of(environment: Environment) -> Path:
    return environment.prefix.parent / f"{environment.prefix.name}.log"


@pytest.fixture(autouse=True)
def user(environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has the environment of a user who has nothing but the tests' wheels."""
    for name in {*os.environ} - {*environ, "PYTEST_CURRENT_TEST"}:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{environ['PATH']}:{sysconfig.get_path('scripts')}")  # where the tests' uv is


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def empty(tmp_path: Path) -> Environment:
    """An environment with nothing in it, not even pip: for uv."""
    venv.create(tmp_path / "venv", symlinks=True)
    return probe(tmp_path / "venv")


@pytest.fixture(params=["uv", "pip"])
def environment(
    request: pytest.FixtureRequest, empty: Environment, make_environment: Callable[..., VirtualEnvironment],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> Environment:  # fmt: skip
    """For uv an environment without pip; for pip one with it, and no uv to be found."""
    if request.param == "uv":
        return empty
    hide_uv(tmp_path, monkeypatch)
    return probe(make_environment("with-pip", pip=True).python)


def hide_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("git", "sh"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.fixture
def checkout(upstream: Upstream, tmp_path: Path) -> Callable[..., Package]:
    """`checkout("flashinfer", "v0.2.0")` checks out a small upstream repository and says what to install of it."""

    def make(name: str, revision: str, version: str = "", extras: tuple[str, ...] = ()) -> Package:
        folder = tmp_path / "tmp" / name
        if not folder.exists():
            subprocess.run(["git", "clone", "-q", "-n", upstream.path(name), folder], check=True)
        subprocess.run(["git", "-c", "advice.detachedHead=false", "checkout", "-q", revision], cwd=folder, check=True)
        commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=folder, text=True).strip()
        layout = find_layout(name, lambda path: (folder / path).exists())
        files = {path: (folder / path).read_bytes() for path in layout.metadata_files if (folder / path).is_file()}
        metadata = read_metadata(files, layout.folder)
        version = version or metadata.version or revision.lstrip("v")
        return Package(
            name, folder / layout.folder, metadata, version, layout.module, commit, folder / ".git", extras,
            layout.companions,
        )  # fmt: skip

    return make


@pytest.fixture
def make_package(tmp_path: Path) -> Callable[..., Package]:
    """`make_package("sglang", "1.0", ["torch"])` writes a tiny package that builds without any requirement."""

    def make(
        name: str, version: str = "1.0", requires: Sequence[str] = (), *,
        action: str = "pass", folder: Path | None = None, python: str = ">=3.8", body: str = "",
    ) -> Package:  # fmt: skip
        folder = folder or tmp_path / "tmp" / name
        module = name.replace("-", "_")
        module = "flashinfer" if module == "flashinfer_python" else module
        (folder / module).mkdir(parents=True, exist_ok=True)
        (folder / ".git").mkdir(exist_ok=True)
        (folder / module / "__init__.py").write_text(body or f"__version__ = {version!r}\n")
        values = {"name": name, "module": module, "version": version, "requires": list(requires), "action": action}
        if name == "flashinfer-python":
            values["module"] = "flashinfer_python"
        (folder / "backend.py").write_text(BACKEND.format(**values))
        project = f'[project]\nname = "{name}"\nversion = "{version}"\nrequires-python = "{python}"\n'
        build = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        (folder / "pyproject.toml").write_text(project + f"dependencies = {list(requires)}\n" + build)
        metadata = read_metadata({"pyproject.toml": (folder / "pyproject.toml").read_bytes()}, "")
        companions = COMPANIONS if name == "flashinfer-python" else ()
        return Package(name, folder, metadata, version, module, "1" * 40, folder / ".git", (), companions)

    return make


def version_of(environment: Environment, name: str) -> str:
    found = environment.distribution(name)
    return found.version if found else ""


def put(environment: Environment, *wheels: str) -> None:
    """Install from the tests' wheels, with whatever is there."""
    python = str(environment.python)
    tool = [python, "-m", "pip", "install"] if environment.has_pip else ["uv", "pip", "install", "--python", python]
    subprocess.run([*tool, "-q", *wheels], check=True)


def errors(outcomes: Sequence[Outcome]) -> list[str]:
    return [str(outcome.error) for outcome in outcomes if outcome.error]


def assert_installed(environment: Environment, *packages: Package) -> None:
    """Each is the checkout, and imports from it."""
    for package in packages:
        assert package.is_checkout(environment.distribution(package.name)), environment.distribution(package.name)
        ok, detail = import_check(environment, package.module, package.folder)
        assert ok, detail


def test_both_are_installed_from_their_checkouts_with_what_they_require(
    environment: Environment, checkout: Callable[..., Package], heard: Heard
) -> None:
    both = checkout("sglang", "v0.5.10.post1"), checkout("flashinfer", "v0.6.7.post3")
    outcomes = install(both, environment, reporter=heard)
    assert errors(outcomes) == []
    assert_installed(environment, *both)
    assert [(one.action, one.version) for one in outcomes] == [
        ("installed", "0.5.10.post1"),
        ("installed", "0.6.7.post3"),
    ]
    assert version_of(environment, "torch") == "2.9.1"
    assert version_of(environment, "flashinfer-cubin") == "0.6.7.post3"
    for package in both:
        found = environment.distribution(package.name)
        assert found is not None
        assert missing_requirements(environment, found) == ()
    if environment.has_pip:
        subprocess.run([environment.python, "-m", "pip", "check"], check=True)


def test_a_pin_on_another_flashinfer_does_not_replace_the_checkout(
    environment: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    """Neither its release nor its companion's is even downloaded."""
    pins = ["flashinfer_python[cu13]==0.6.7.post3", "flashinfer_cubin==0.6.7.post3", "torch"]
    both = make_package("sglang", "0.5.10.post1", pins), make_package("flashinfer-python", "0.6.18")
    assert errors(install(both, environment, reporter=heard)) == []
    assert_installed(environment, *both)
    assert version_of(environment, "flashinfer-python") == "0.6.18"
    assert version_of(environment, "flashinfer-cubin") == ""
    assert not any(
        f"{name}-0.6.7" in line for line in heard.lines for name in ("flashinfer_python", "flashinfer_cubin")
    )


def test_a_second_run_starts_and_writes_nothing(
    empty: Environment, make_package: Callable[..., Package], heard: Heard, started: Callable[[], list[str]]
) -> None:
    pins = ["flashinfer_python==0.6.7.post3", "flashinfer_cubin==0.6.7.post3", "torch"]
    both = make_package("sglang", "1.0", pins), make_package("flashinfer-python", "0.6.18")
    assert errors(install(both, empty, reporter=heard)) == []
    again, times = Heard(), {path: path.stat().st_mtime_ns for path in both[0].git_dir.iterdir()}
    before = len(started())
    assert [one.action for one in install(both, empty, reporter=again)] == ["already installed"] * 2
    assert started()[before:] == []
    assert {path: path.stat().st_mtime_ns for path in both[0].git_dir.iterdir()} == times
    assert again.commands == again.events == []


@pytest.mark.parametrize(
    "change", ["commit", "file", "extras", "requirement", "other folder", "metadata", "stamp", "reinstall"]
)
def test_what_has_changed_is_installed_again(
    empty: Environment, make_package: Callable[..., Package], heard: Heard, tmp_path: Path, change: str
) -> None:
    package = make_package("sglang", "1.0", ["torch"])
    install([package], empty, reporter=heard)
    heard.commands.clear()
    if change == "commit":
        package = replace(package, commit="2" * 40)
    elif change == "file":
        (package.folder / "setup.cfg").write_text("# new\n")
    elif change == "extras":
        package = replace(package, extras=("srt",))
    elif change == "requirement":
        subprocess.run(["uv", "pip", "uninstall", "-q", "--python", empty.python, "torch"], check=True)
    elif change == "other folder":
        package = make_package("sglang", "1.0", ["torch"], folder=tmp_path / "other")
    elif change == "metadata":
        next(empty.purelib.glob("sglang*/direct_url.json")).write_text("no JSON")
    elif change == "stamp":
        (package.git_dir / "installed.json").write_text("[[")
    (outcome,) = install([package], empty, reinstall=change == "reinstall", reporter=heard)
    assert (outcome.action, outcome.error) == ("reinstalled", None)
    assert heard.commands
    assert_installed(empty, package)
    assert version_of(empty, "torch")


def test_without_dependencies_just_the_two_are_installed(
    empty: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    both = make_package("sglang", "1.0", ["torch"]), make_package("flashinfer-python", "0.6.18")
    assert errors(install(both, empty, deps=False, reporter=heard)) == []
    assert_installed(empty, *both)
    assert {path.name.partition("-")[0] for path in empty.purelib.glob("*.dist-info")} == {
        "sglang",
        "flashinfer_python",
    }
    assert [one.action for one in install(both, empty, deps=False, reporter=heard)] == ["already installed"] * 2
    assert [one.action for one in install(both, empty, reporter=heard)] == ["reinstalled"] * 2
    assert version_of(empty, "torch")
    assert [one.action for one in install(both, empty, deps=False, reporter=heard)] == ["already installed"] * 2


def test_a_checkout_of_a_release_is_that_release_though_there_are_newer_tags(
    empty: Environment, checkout: Callable[..., Package], upstream: Upstream, heard: Heard
) -> None:
    upstream.move_tag("sglang", "v0.5.99")
    package = checkout("sglang", "v0.5.10.post1")
    assert errors(install([package], empty, deps=False, reporter=heard)) == []
    assert version_of(empty, "sglang") == "0.5.10.post1"


def test_requirements_of_an_extra_come_with_it(
    empty: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    package = make_package("sglang", "0.4.0", ["torch; extra == 'srt'", "sglang[srt]; extra == 'all'"])
    install([package], empty, reporter=heard)
    assert not version_of(empty, "torch")
    extras = {"srt": (), "all": ()}
    package = replace(package, extras=("all",), metadata=replace(package.metadata, extras=extras))
    install([package], empty, reporter=heard)
    assert version_of(empty, "torch")
    assert heard.warnings == []
    install([replace(package, extras=("none",))], empty, reporter=heard)
    assert heard.warnings == ["sglang: 0.4.0 has no extra named none"]


def test_an_environment_without_pip_gets_it(
    empty: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    package = make_package("sglang")
    assert errors(install([package], empty, installer="pip", reporter=heard)) == []
    assert_installed(empty, package)
    assert "-m ensurepip" in heard.commands[0]


def test_uv_is_taken_from_beside_the_interpreter(
    empty: Environment, make_package: Callable[..., Package], heard: Heard, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    hide_uv(tmp_path, monkeypatch)
    install([make_package("sglang")], empty, reporter=heard)
    assert all("uv pip install --python" in command for command in heard.commands)


def test_where_no_uv_runs_pip_is_used(
    empty: Environment, make_package: Callable[..., Package], heard: Heard, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    hide_uv(tmp_path, monkeypatch)
    (tmp_path / "bin/uv").write_text("no program for this kind of machine")
    (tmp_path / "bin/uv").chmod(0o755)
    monkeypatch.setattr("uv.find_uv_bin", lambda: str(tmp_path / "bin/uv"))
    assert errors(install([make_package("sglang")], empty, reporter=heard)) == []
    assert all("-m pip install" in command for command in heard.commands[1:])


def test_asking_for_an_absent_uv_is_an_error(
    empty: Environment,
    make_package: Callable[..., Package],
    heard: Heard,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hide_uv(tmp_path, monkeypatch)
    monkeypatch.setitem(sys.modules, "uv", None)  # nor is the package
    with pytest.raises(InstallError, match="uv"):
        install([make_package("sglang")], empty, installer="uv", reporter=heard)


def test_an_environment_that_belongs_to_the_operating_system_is_left_alone(
    managed: Path, make_package: Callable[..., Package], heard: Heard
) -> None:
    with pytest.raises(InstallError, match="PEP 668") as caught:
        install([make_package("sglang")], probe(managed), reporter=heard)
    assert "venv" in caught.value.hint
    assert heard.commands == []


def test_a_read_only_environment_is_told_before_anything_starts(
    empty: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    with pytest.raises(InstallError, match="cannot be written"):
        install([make_package("sglang")], replace(empty, writable=False), reporter=heard)
    assert heard.commands == []


@pytest.fixture
def cargo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`cargo("1.65.0")` is the only cargo there is; `cargo("")`: there is none."""
    hide_uv(tmp_path, monkeypatch)

    def make(version: str) -> None:
        if version:
            (tmp_path / "bin/cargo").write_text(f"#!/bin/sh\necho 'cargo {version} (1234567 2026-01-01)'\n")
            (tmp_path / "bin/cargo").chmod(0o755)

    return make


def test_everything_that_is_known_to_be_in_the_way_is_said_at_once_and_nothing_is_started(
    empty: Environment, make_package: Callable[..., Package], checkout: Callable[..., Package], heard: Heard,
    cargo: Callable[[str], None],
) -> None:  # fmt: skip
    rust = checkout("sglang", "rust", "0.5.11.dev1")
    (rust.folder.parent / "rust/grpc").mkdir(parents=True)
    (rust.folder.parent / "rust/Cargo.toml").write_text('[workspace]\nresolver = "3"\npackage.edition = "2024"\n')
    build = '[package]\nname = "grpc"\nrust-version = "1.70"\n[build-dependencies]\ntonic-build = "0.12"\n'
    (rust.folder.parent / "rust/grpc/Cargo.toml").write_text(build)
    cargo("1.65.0")
    old = make_package("other", python=">=4")
    with pytest.raises(InstallError) as caught:
        install([rust, old], empty, reporter=heard)
    what = caught.value.what
    assert "sglang 0.5.11.dev1 needs Rust 1.85 or newer; `cargo` is 1.65.0" in what
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
    package = checkout("sglang", "rust", "0.5.11.dev1")
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
    package = checkout("sglang", "rust", "0.5.11.dev1")
    check([package], [package], empty, deps=False)


def test_an_old_flashinfer_that_compiles_at_build_time_needs_cuda_and_a_gpu_or_its_name(
    empty: Environment, checkout: Callable[..., Package], cargo: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cargo("")
    monkeypatch.setenv("CUDA_HOME", "/nowhere")
    package = checkout("flashinfer", "v0.1.6")
    package = replace(package, metadata=replace(package.metadata, needs_cuda_to_build=True))
    with pytest.raises(InstallError) as caught:
        check([package], [package], empty, deps=True)
    for missing in ("torch", "nvcc", "GPU"):
        assert missing in caught.value.what
    assert "TORCH_CUDA_ARCH_LIST=9.0 invoke install" in caught.value.command


def test_too_little_space_for_the_requirements_is_said_before_anything_starts(
    empty: Environment, make_package: Callable[..., Package], heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = {"sglang": replace(COSTS["sglang"], install=10**18)}
    monkeypatch.setattr("tasks.packages.layouts.COSTS", huge)
    with pytest.raises(DiskError, match=r"needs 1\.0 EB for the packages"):
        install([make_package("sglang")], empty, reporter=heard)
    assert heard.commands == []
    assert errors(install([make_package("sglang")], empty, deps=False, reporter=heard)) == []


def test_the_old_layout_is_not_begun_without_torch(
    empty: Environment, checkout: Callable[..., Package], heard: Heard
) -> None:
    with pytest.raises(InstallError, match="torch") as caught:
        install([checkout("flashinfer", "v0.1.6")], empty, reporter=heard)
    assert caught.value.command == f"{empty.python} -m pip install torch"
    assert heard.commands == []


def test_the_old_layout_is_built_with_the_torch_that_sglang_brings(
    empty: Environment, checkout: Callable[..., Package], heard: Heard
) -> None:
    both = checkout("sglang", "v0.4.0", extras=("all",)), checkout("flashinfer", "v0.1.6")
    assert errors(install(both, empty, reporter=heard)) == []
    assert_installed(empty, *both)
    assert "'torch': '2.9.1'" in (both[1].folder / "flashinfer/_build_meta.py").read_text()


def test_flashinfer_under_its_other_name_makes_room(
    empty: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    put(empty, "flashinfer-python==0.3.0")
    for name, version in {"flashinfer": "0.2.0", "flashinfer-python": "0.6.18"}.items():
        package = make_package(name, version)
        assert errors(install([package], empty, deps=False, reporter=heard)) == []
        assert_installed(empty, package)
        assert [bool(empty.distribution(alias)) for alias in package.aliases] == [False]


def test_companions_get_the_version_of_the_checkout(
    environment: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    put(environment, "flashinfer-cubin==0.3.0", "flashinfer-jit-cache==0.6.18")
    assert errors(install([make_package("flashinfer-python", "0.6.18")], environment, reporter=heard)) == []
    assert version_of(environment, "flashinfer-cubin") == version_of(environment, "flashinfer-jit-cache") == "0.6.18"
    assert "flashinfer-python: flashinfer-cubin 0.3.0 replaced by 0.6.18" in heard.events


def test_companions_that_are_not_to_be_had_in_that_version_are_removed(
    empty: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    put(empty, "flashinfer-cubin==0.3.0", "flashinfer-jit-cache==0.3.0")
    (outcome,) = install([make_package("flashinfer-python", "0.7.0")], empty, reporter=heard)
    assert outcome.error is None
    assert version_of(empty, "flashinfer-cubin") == version_of(empty, "flashinfer-jit-cache") == ""
    assert [warning.partition(" removed")[0] for warning in heard.warnings] == [
        f"flashinfer-python: {name} 0.3.0" for name in COMPANIONS
    ]
    assert all("compiles or downloads kernels at first use" in warning for warning in heard.warnings)


def test_an_editable_flashinfer_stays_when_sglang_alone_is_installed(
    empty: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    flashinfer = make_package("flashinfer-python", "0.6.18")
    assert errors(install([flashinfer], empty, reporter=heard)) == []
    sglang = make_package("sglang", "1.0", ["flashinfer_python==0.3.0"])
    assert errors(install([sglang], empty, reporter=heard)) == []
    assert_installed(empty, sglang, flashinfer)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """The URL of a package index (PEP 503) that has flashinfer-cubin 0.7.0 and nothing else."""
    project = tmp_path / "index/flashinfer-cubin"
    project.mkdir(parents=True)
    wheel = write_wheel(project, "flashinfer-cubin", "0.7.0", {"flashinfer_cubin/__init__.py": ""})
    (project / "index.html").write_text(f'<!DOCTYPE html><a href="{wheel.name}">{wheel.name}</a>')
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "index"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_companion_that_only_an_additional_index_has_comes_from_there(
    environment: Environment, make_package: Callable[..., Package], heard: Heard, tmp_path: Path, index: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in ("PIP_NO_INDEX", "UV_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "nothing").mkdir()
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.setenv(name, (tmp_path / "nothing").as_uri())
    both = (
        make_package("sglang", "1.0", ["flashinfer_python==0.7.0", "flashinfer_cubin==0.7.0", "torch"]),
        make_package("flashinfer-python", "0.7.0"),
    )
    assert errors(install(both, environment, indexes=(index,), reporter=heard)) == []
    assert version_of(environment, "flashinfer-cubin") == "0.7.0"
    assert heard.warnings == []


def test_a_pinned_companion_that_no_index_has_stops_nothing_else(
    environment: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    both = (
        make_package("sglang", "1.0", ["flashinfer_python==0.7.0", "flashinfer_cubin==0.7.0", "torch"]),
        make_package("flashinfer-python", "0.7.0"),
    )
    assert errors(install(both, environment, reporter=heard)) == []
    assert version_of(environment, "torch") == "2.9.1"
    assert_installed(environment, *both)
    (warning,) = heard.warnings
    assert warning.startswith("flashinfer-python: flashinfer-cubin not installed: 0.7.0")


def test_a_dependency_that_wants_another_flashinfer_does_not_get_it(
    environment: Environment,
    make_package: Callable[..., Package],
    heard: Heard,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_wheel(tmp_path, "wants-old", "1", {}, ["flashinfer-python==0.3.0"])
    for name in ("PIP_FIND_LINKS", "UV_FIND_LINKS"):
        monkeypatch.setenv(name, f"{os.environ[name]}{' ' if name.startswith('PIP') else ','}{tmp_path}")
    both = make_package("sglang", "1.0", ["wants-old"]), make_package("flashinfer-python", "0.6.18")
    assert errors(install(both, environment, reporter=heard)) == []
    assert version_of(environment, "wants-old") == "1"
    assert_installed(environment, *both)


def test_paths_may_have_any_letters(
    environment: Environment, make_package: Callable[..., Package], heard: Heard, tmp_path: Path
) -> None:
    package = make_package("sglang", "1.0", ["torch"], folder=tmp_path / "a b'c\"d ü漢 100%?; [x] ${HOME} -e")
    assert errors(install([package], environment, reporter=heard)) == []
    assert_installed(environment, package)
    assert version_of(environment, "torch")
    assert [one.action for one in install([package], environment, reporter=heard)] == ["already installed"]


def test_a_failed_build_shows_its_end_the_reason_and_a_command_that_repeats_it(
    environment: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    bad = make_package("sglang", action="print('line'); raise ValueError('the kernel is sour')")
    good = make_package("flashinfer-python")
    outcomes = install([bad, good], environment, reporter=heard)
    assert [one.action for one in outcomes] == ["failed", "installed"]
    error = outcomes[0].error
    assert isinstance(error, InstallError)
    assert error.what.startswith("sglang: the build raised ValueError: the kernel is sour.\n")
    assert len(error.what.splitlines()) <= 16
    again = subprocess.run(["sh", "-c", error.command], capture_output=True, text=True, check=False)
    assert again.returncode
    assert "the kernel is sour" in again.stdout + again.stderr
    make_package("sglang")
    subprocess.run(["sh", "-c", error.command], check=True)
    assert_installed(environment, bad, good)


def test_a_requirement_that_is_not_to_be_had_is_named(
    environment: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    both = make_package("sglang", "1.0", ["no-such-thing>=3"]), make_package("flashinfer-python")
    outcomes = install(both, environment, reporter=heard)
    assert [one.action for one in outcomes] == ["failed"] * 2
    assert "no release of no-such-thing" in errors(outcomes)[0].splitlines()[0]
    assert outcomes[0].error
    again = subprocess.run(["sh", "-c", outcomes[0].error.command], capture_output=True, text=True, check=False)
    assert "no-such-thing" in again.stdout + again.stderr
    assert [one.action for one in install(both, environment, deps=False, reporter=heard)] == ["installed"] * 2


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of the only package index that is set up, and that refuses connections."""
    for name in ("PIP_NO_INDEX", "UV_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with refused_url() as url:
        for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"):
            monkeypatch.setenv(name, f"{url}/simple")
        yield url


def test_an_index_that_cannot_be_reached_is_a_network_error_that_names_it(
    environment: Environment, make_package: Callable[..., Package], heard: Heard, unreachable: str
) -> None:
    (outcome,) = install([make_package("sglang", "1.0", ["nothing"])], environment, reporter=heard)
    assert isinstance(outcome.error, NetworkError)
    assert re.search(rf"package index.* could not be reached.*{unreachable}|{unreachable}.* could not be reached",
                     outcome.error.what.splitlines()[0])  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "kind", "sentence"),
    [
        (
            ["error: failed to get `bytes` as a dependency of package `grpc`", "Caused by:", "  failed to download",
             "  [6] Could not resolve hostname (Could not resolve host: index.crates.io)"],
            NetworkError, "crates.io, where Rust packages come from, could not be reached",
        ),
        (["error: Unable to update registry `crates-io`"], NetworkError, "crates.io"),
        (["error: Failed to fetch: `https://host.example/simple/torch/`"], NetworkError, "https://host.example"),
        (
            ["Looking in indexes: https://a.example/simple, https://b.example/whl",
             "WARNING: Retrying after connection broken by 'NewConnectionError('<x>: Failed')': /torch/"],
            NetworkError, "https://a.example/simple, https://b.example/whl",
        ),
        (["WARNING: Retrying after connection broken by 'ReadTimeoutError(Read timed out.)': /simple/torch/"],
         NetworkError, "the package index could not be reached"),
        (["error: could not compile `libc`", "ValueError: x"], InstallError, "ValueError: x"),
    ],
)  # fmt: skip
def test_the_reason_of_a_failure_is_read_from_the_output(
    lines: list[str], kind: type[SourcesError], sentence: str, tmp_path: Path
) -> None:
    error = explain("sglang", 1, lines, tmp_path / "log", "pip install x")
    assert type(error) is kind
    assert sentence in error.what.splitlines()[0]
    assert (error.command, f"{tmp_path}/log" in error.hint) == ("pip install x", True)


def files(environment: Environment) -> dict[str, str]:
    """Every file of the environment with its content, but for the installations' lock and what Python compiles."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in environment.prefix.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != NAME
    }


@pytest.mark.parametrize("why", ["build", "index", "requirement", "no dependencies"])
def test_a_failed_installation_changes_no_file_of_the_environment(
    environment: Environment, make_package: Callable[..., Package], heard: Heard, request: pytest.FixtureRequest,
    why: str,
) -> None:  # fmt: skip
    put(environment, "flashinfer-cubin==0.6.18", "flashinfer==0.1.6")
    both = make_package("sglang", "1.0", ["torch"]), make_package("flashinfer-python", "0.6.18")
    assert errors(install(both, environment, reporter=heard)) == []
    put(environment, "flashinfer==0.1.6")  # what the installation would replace
    before = files(environment)
    action = "raise ValueError('cargo metadata failed')" if why in ("build", "no dependencies") else "pass"
    requires = ["torch", "no-such-thing>=1"] if why in ("index", "requirement") else ["torch"]
    if why == "index":
        request.getfixturevalue("unreachable")
    new = [make_package(*each, action=action) for each in (("sglang", "2.0", requires), ("flashinfer-python", "0.3.0"))]
    outcomes = install(new, environment, deps=why != "no dependencies", reporter=heard)
    assert [type(one.error) for one in outcomes] == [NetworkError if why == "index" else InstallError] * 2
    assert files(environment) == before
    found = environment.distribution("sglang")
    assert found is not None
    assert (found.version, found.editable) == ("1.0", True)


def test_requirements_that_contradict_each_other_are_both_named(
    environment: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    both = (
        make_package("sglang", "1.0", ["flashinfer-cubin<0.4"]),
        make_package("other", "1.0", ["flashinfer-cubin>0.5"]),
    )
    reason = errors(install(both, environment, reporter=heard))[0].splitlines()[0]
    assert "flashinfer-cubin<0.4" in reason
    assert "flashinfer-cubin>0.5" in reason


def test_a_full_disk_is_told_as_such(empty: Environment, make_package: Callable[..., Package], heard: Heard) -> None:
    package = make_package("sglang", action="raise OSError(28, 'No space left on device')")
    (outcome,) = install([package], empty, reporter=heard)
    assert isinstance(outcome.error, DiskError)


def test_an_installer_that_is_killed_is_said_to_be(empty: Environment, heard: Heard) -> None:
    tool = Installer(Context(), empty, log_of(empty), heard)
    with pytest.raises(InstallError, match=r"signal 9"):
        tool.run("sglang", "installing", ["sh", "-c", "kill -9 $$"])


def test_phases_are_shown_while_the_installer_works_and_everything_is_in_the_log(
    empty: Environment, heard: Heard, tmp_path: Path
) -> None:
    """The command ends only after its first line has been shown."""
    flag = tmp_path / "shown"

    class Answering(Heard):
        def output(self, who: str, line: str) -> None:
            super().output(who, line)
            flag.touch()

    shown = Answering()
    wait = f"while not pathlib.Path({str(flag)!r}).exists(): time.sleep(.01)"
    lines = ["Collecting b", "Requirement already satisfied: c", "Installing collected packages: " + 99 * "a, "]
    code = f"import pathlib, time\nprint('Collecting a')\n{wait}\nprint({chr(10).join(lines)!r})"
    Installer(Context(), empty, log_of(empty), shown).run("sglang", "installing", [sys.executable, "-c", code])
    assert [line[:29] for line in shown.lines] == ["sglang: Collecting a", "sglang: Installing collected "]
    assert all(len(line) < 140 for line in shown.lines)
    log = log_of(empty).read_text().splitlines()
    assert log[0].startswith("$ ")
    assert log[-4:] == ["Collecting a", *lines[:2], lines[2].strip()]


def test_a_silent_installer_is_said_to_be_at_work(
    empty: Environment, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.packages.runner.SILENCE", 0.1)
    code = "import time; print('Preparing x', flush=True); time.sleep(1)"
    tool = Installer(Context(), empty, log_of(empty), heard)
    tool.run("sglang", "installing requirements", [sys.executable, "-c", code])
    assert "sglang: still installing requirements, 0 s: Preparing x" in heard.lines


def test_on_a_terminal_the_installer_draws_its_own_progress(empty: Environment, tmp_path: Path) -> None:
    """It gets a terminal, what it draws arrives unchanged, and the log has its lines."""
    code = f"""if True:
        import sys; sys.path.insert(0, {str(Path(__file__).parent.parent.parent)!r})
        from invoke import Context
        from pathlib import Path
        from tasks.packages.installer import Installer
        from tasks.packages.environment import probe
        quiet = lambda *_: None
        reporter = type("Terminal", (), {{"command": quiet, "event": quiet, "terminal": lambda self: sys.stdout}})()
        draw = "import sys; print(sys.stdout.isatty(), '\\033[1mdrawn\\033[0m'); print('------ 1/2', end='')"
        tool = Installer(Context(), probe(), Path({str(tmp_path / "log")!r}), reporter)
        tool.run("x", "installing", [sys.executable, "-c", draw])
    """
    parts: list[bytes] = []

    def read(fd: int) -> bytes:
        parts.append(os.read(fd, 1024))
        return parts[-1]

    (tmp_path / "code.py").write_text(code)
    with (tmp_path / "seen").open("wb") as seen, pytest.MonkeyPatch.context() as patch:
        patch.setattr("pty.STDOUT_FILENO", seen.fileno())
        assert pty.spawn([sys.executable, str(tmp_path / "code.py")], read, lambda fd: b"") == 0
    assert b"True \x1b[1mdrawn\x1b[0m" in b"".join(parts)
    assert b"------ 1/2" in b"".join(parts)
    assert (tmp_path / "log").read_text().splitlines()[-1] == "True drawn"


def test_a_process_that_outlives_the_installer_is_not_waited_for(empty: Environment, heard: Heard) -> None:
    tool = Installer(Context(), empty, log_of(empty), heard)
    tool.run("sglang", "installing", ["sh", "-c", "sleep 600 & echo $!"])
    os.kill(int(log_of(empty).read_text().split()[-1]), signal.SIGKILL)


def test_invokes_own_time_limit_for_commands_holds(empty: Environment, heard: Heard) -> None:
    tool = Installer(Context(Config(overrides={"timeouts": {"command": 1}})), empty, log_of(empty), heard)
    with pytest.raises(InstallError, match="did not end within 1 s"):
        tool.run("sglang", "installing", ["sleep", "600"])


def test_an_installation_keeps_the_running_program_working(
    make_environment: Callable[..., VirtualEnvironment], make_package: Callable[..., Package], tmp_path: Path
) -> None:
    """What the program itself requires is resolved with the rest: a contradiction is an error, not a broken program."""
    package = make_package("sglang", "1.0", ["flashinfer-cubin<0.4"])
    environment = make_environment("own")
    (tmp_path / "tools.txt").write_text("flashinfer-cubin>0.5  # why\n")
    code = f"""if True:
        import sys; sys.path.insert(0, {str(Path(__file__).parent.parent.parent)!r})
        from pathlib import Path
        from tasks.packages import install, probe
        from invoke import Context
        from tasks.models import Settings
        quiet = lambda *_: None
        reporter = type("Quiet", (), dict.fromkeys(["event", "warn", "command", "output", "terminal"], quiet))()
        from tasks.packages.package import Package
        from tasks.packages.metadata import read_metadata
        folder = Path({str(package.folder)!r})
        metadata = read_metadata({{"pyproject.toml": (folder / "pyproject.toml").read_bytes()}}, "")
        package = Package("sglang", folder, metadata, "1.0", "sglang", "1" * 40, folder / ".git")
        settings = Settings(folder, folder, None, 1, 30, "auto", (), None, ())
        sys.modules["tasks.packages.install"].TOOLS = Path({str(tmp_path / "tools.txt")!r})
        (outcome,) = install(Context(), [package], probe(), settings=settings, deps=True, reinstall=False,
                             log=folder.parent / "log", reporter=reporter)
        print(outcome.error.what.splitlines()[0])
    """
    done = subprocess.run([environment.python, "-c", code], capture_output=True, text=True, check=True)
    assert "flashinfer-cubin<0.4" in done.stdout
    assert "flashinfer-cubin>0.5" in done.stdout


def test_the_rest_of_a_broken_off_installation_is_no_obstacle(
    environment: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    both = make_package("sglang", "2.0", ["torch"]), make_package("flashinfer-python", "0.6.18")
    put(environment, "torch", "flashinfer-python==0.3.0")
    next(environment.purelib.glob("torch-*/RECORD")).unlink()
    next(environment.purelib.glob("flashinfer_python-*/METADATA")).unlink()
    for version in ("1.0", "1.1"):
        info = environment.purelib / f"sglang-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: sglang\nVersion: {version}\n")
        (info / "RECORD").write_text(f"{info.name}/METADATA,,\n{info.name}/RECORD,,\n")
    assert errors(install(both, environment, reporter=heard)) == []
    assert_installed(environment, *both)
    assert version_of(environment, "torch") == "2.9.1"
    assert environment.copies("sglang") == 1


RUNNER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from invoke import Context
from tasks.models import Settings
from tasks.packages import Package, install, probe, read_metadata

def package(folder):
    metadata = read_metadata({"pyproject.toml": (folder / "pyproject.toml").read_bytes()}, "")
    name = metadata.distribution
    module = name.removesuffix("-python")
    return Package(name, folder, metadata, metadata.version, module, "1" * 40, folder / ".git")

say = lambda *words: print(*words, flush=True)
reporter = type("Loud", (), dict.fromkeys(["event", "warn", "command", "output"], staticmethod(say)))
reporter.terminal = lambda self: None
environment = probe(Path(sys.argv[2]))
directory = environment.prefix.parent
settings = Settings(directory, directory, None, 1, 30, "pip" if environment.has_pip else "uv", (), None, ())
install(Context(), [package(Path(folder)) for folder in sys.argv[3:]], environment, settings=settings, deps=True,
        reinstall=False, log=directory / "runner.log", reporter=reporter())
"""


def start(environment: Environment, *packages: Package) -> subprocess.Popen[str]:
    """Begin an installation in a process of its own, which leads a process group and prints what goes on."""
    root, folders = str(Path(__file__).parent.parent.parent), [str(package.folder) for package in packages]
    command = [sys.executable, "-c", RUNNER, root, str(environment.python), *folders]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_ctrl_c_ends_the_installer_with_its_children_and_the_next_run_completes(
    environment: Environment, make_package: Callable[..., Package], heard: Heard, tmp_path: Path
) -> None:
    """Only this program gets the signal, as from another shell; the child ignores it, as some compilers do."""
    flag = tmp_path / "child"
    child = (
        "import os, signal, time; signal.signal(2, signal.SIG_IGN); "
        f"open({str(flag)!r}, 'w').write(f'{{os.getpid()}} '); time.sleep(600)"
    )
    package = make_package("sglang", action=f"import subprocess; subprocess.run([sys.executable, '-c', {child!r}])")
    process = start(environment, package)
    until(lambda: flag.exists() and flag.read_text().endswith(" "))
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate()[0]
    until(lambda: not alive(int(flag.read_text())))
    package = make_package("sglang", "1.0", ["torch"])
    assert errors(install([package], environment, reporter=heard)) == []
    assert_installed(environment, package)


def waiting_build(begun: Path, go: Path) -> str:
    """A build that says that it has begun and waits until it may go on."""
    return (
        f"import time; pathlib.Path({str(begun)!r}).touch()\n"
        f"    while not pathlib.Path({str(go)!r}).exists(): time.sleep(.01)"
    )


class Releasing(Heard):
    """Lets a waiting build go on as soon as an event is reported."""

    def __init__(self, go: Path) -> None:
        super().__init__()
        self.go = go

    def event(self, who: str, message: str) -> None:
        super().event(who, message)
        self.go.touch()


def test_two_installations_into_one_environment_take_turns_and_the_waiting_one_says_for_what(
    empty: Environment, make_package: Callable[..., Package], heard: Heard, tmp_path: Path
) -> None:
    """The first ends only after the second has said that it waits; its sources are elsewhere."""
    begun, go = tmp_path / "begun", tmp_path / "go"
    first = make_package("sglang", action=waiting_build(begun, go), folder=tmp_path / "elsewhere")
    process = start(empty, first)
    until(lambda: begun.exists() or process.poll() is not None)
    assert begun.exists(), process.communicate()

    second, waiting = make_package("flashinfer-python", "0.6.18"), Releasing(go)
    assert errors(install([second], empty, reporter=waiting)) == []
    assert f"install: waiting for process {process.pid} (invoke " in waiting.events[0]
    assert str(empty.prefix) in waiting.events[0]
    process.communicate()
    assert_installed(empty, first, second)


def test_after_a_kill_the_next_run_waits_for_the_installer_that_is_still_at_work(
    empty: Environment, make_package: Callable[..., Package], tmp_path: Path
) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    package = make_package("sglang", action=waiting_build(begun, go))
    process = start(empty, package)
    until(lambda: begun.exists() or process.poll() is not None)
    assert begun.exists(), process.communicate()
    process.kill()
    process.communicate()

    waiting = Releasing(go)
    assert errors(install([package], empty, reporter=waiting)) == []
    assert "waiting for process" in waiting.events[0]
    assert_installed(empty, package)


@pytest.mark.parametrize("lines", [2, 5, 8])
def test_killed_at_any_moment_the_next_run_completes(
    environment: Environment, make_package: Callable[..., Package], heard: Heard, lines: int
) -> None:
    """The whole process group gets SIGKILL after so many lines have been heard."""
    put(environment, "flashinfer-python==0.3.0")
    both = make_package("sglang", "1.0", ["torch"]), make_package("flashinfer-python", "0.6.18")
    process = start(environment, *both)
    assert process.stdout is not None
    for _ in range(lines):
        process.stdout.readline()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert errors(install(both, environment, reporter=heard)) == []
    assert_installed(environment, *both)
    assert version_of(environment, "torch") == "2.9.1"
