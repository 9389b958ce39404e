"""Both packages installed from their checkouts, with real pip and real uv, into real environments."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from invoke.config import Config
from invoke.context import Context

from tasks.errors import DiskError, InstallError, NetworkError
from tasks.packages.environment import Environment
from tasks.packages.installer import LOCK
from tasks.packages.layouts import COMPANIONS
from tasks.packages.package import Package
from tasks.packages.requirements import missing_requirements
from tests.conftest import Environment as VirtualEnvironment
from tests.packages.conftest import Heard, assert_installed, errors, install, put, version_of, with_extras
from tests.upstream.host import refused_url
from tests.upstream.store import Upstream
from tests.upstream.wheels import write_wheel

pytestmark = pytest.mark.usefixtures("user")


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
    empty: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    """Neither its release nor its companion's is even downloaded."""
    pins = ["flashinfer_python[cu13]==0.6.7.post3", "flashinfer_cubin==0.6.7.post3", "torch"]
    both = make_package("sglang", "0.5.10.post1", pins), make_package("flashinfer-python", "0.6.18")
    assert errors(install(both, empty, reporter=heard)) == []
    assert_installed(empty, *both)
    assert version_of(empty, "flashinfer-python") == "0.6.18"
    assert version_of(empty, "flashinfer-cubin") == ""
    assert not any(
        f"{name}-0.6.7" in line for line in heard.lines for name in ("flashinfer_python", "flashinfer_cubin")
    )


def test_a_second_run_starts_and_writes_nothing(
    empty: Environment, make_package: Callable[..., Package], heard: Heard, started: Callable[[], list[str]]
) -> None:
    pins = ["flashinfer_python==0.6.7.post3", "flashinfer_cubin==0.6.7.post3", "torch"]
    both = make_package("sglang", "1.0", pins), make_package("flashinfer-python", "0.6.18")
    assert errors(install(both, empty, reporter=heard)) == []
    again, times = Heard(), {path: path.stat().st_mtime_ns for path in (both[0].repository.path / ".git").iterdir()}
    before = len(started())
    assert [one.action for one in install(both, empty, reporter=again)] == ["already installed"] * 2
    assert started()[before:] == []
    assert {path: path.stat().st_mtime_ns for path in (both[0].repository.path / ".git").iterdir()} == times
    assert again.commands == again.events == []


def test_what_has_changed_is_installed_again(
    empty: Environment, make_package: Callable[..., Package], heard: Heard, tmp_path: Path
) -> None:
    dry = Context(Config(overrides={"run": {"dry": True}}))

    def action(package: Package, c: Context | None = dry, **options: Any) -> str:
        (outcome,) = install([package], empty, reporter=heard, c=c, **options)
        assert not outcome.error
        return outcome.action

    package = make_package("sglang", "1.0", ["torch"])
    assert action(package, None) == "installed"
    assert action(package) == "already installed"
    assert action(package, reinstall=True) == "would install"
    assert action(replace(package, commit="2" * 40)) == "would install"
    assert action(with_extras(package, "srt")) == "would install"
    assert action(make_package("sglang", "1.0", ["torch"], folder=tmp_path / "other")) == "would install"
    (metadata,) = empty.purelib.glob("sglang*/direct_url.json")
    for file in (metadata, package.repository.path / ".git/installed.json"):
        before = file.read_text()
        file.write_text("[[")
        assert action(package) == "would install"
        file.write_text(before)
    assert action(package) == "already installed"
    (package.folder / "setup.cfg").write_text("# new\n")
    assert action(package) == "would install"
    assert action(package, None) == "reinstalled"
    subprocess.run(["uv", "pip", "uninstall", "-q", "--python", empty.python, "torch"], check=True)
    assert action(package) == "would install"
    heard.commands.clear()
    assert action(package, None) == "reinstalled"
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
    requires = ["torch; extra == 'srt'", "sglang[srt]; extra == 'all'"]
    package = make_package("sglang", "0.4.0", requires, extras=("srt", "all"))
    install([package], empty, reporter=heard)
    assert not version_of(empty, "torch")
    install([with_extras(package, "all")], empty, reporter=heard)
    assert version_of(empty, "torch")
    assert heard.warnings == []
    install([with_extras(package, "none")], empty, reporter=heard)
    assert heard.warnings == ["sglang: 0.4.0 has no extra named none"]


def test_the_old_layout_is_built_with_the_torch_that_sglang_brings(
    empty: Environment, checkout: Callable[..., Package], heard: Heard
) -> None:
    both = checkout("sglang", "v0.4.0", extras=("all",)), checkout("flashinfer", "v0.1.6")
    assert errors(install(both, empty, reporter=heard)) == []
    assert_installed(empty, *both)
    assert "'torch': '2.9.1'" in (both[1].folder / "flashinfer/_build_meta.py").read_text()


def test_flashinfer_under_its_other_name_is_removed(
    empty: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    put(empty, "flashinfer-python==0.3.0")
    for name, version in {"flashinfer": "0.2.0", "flashinfer-python": "0.6.18"}.items():
        package = make_package(name, version)
        assert errors(install([package], empty, deps=False, reporter=heard)) == []
        assert_installed(empty, package)
        assert [bool(empty.distribution(alias)) for alias in package.aliases] == [False]


def test_companions_get_the_version_of_the_checkout(
    empty: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    put(empty, "flashinfer-cubin==0.3.0", "flashinfer-jit-cache==0.6.18")
    assert errors(install([make_package("flashinfer-python", "0.6.18")], empty, reporter=heard)) == []
    assert version_of(empty, "flashinfer-cubin") == version_of(empty, "flashinfer-jit-cache") == "0.6.18"
    assert "flashinfer: flashinfer-cubin 0.3.0 replaced by 0.6.18" in heard.events


def test_companions_without_that_version_on_the_index_are_removed(
    empty: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    put(empty, "flashinfer-cubin==0.3.0", "flashinfer-jit-cache==0.3.0")
    (outcome,) = install([make_package("flashinfer-python", "0.7.0")], empty, reporter=heard)
    assert outcome.error is None
    assert version_of(empty, "flashinfer-cubin") == version_of(empty, "flashinfer-jit-cache") == ""
    assert [warning.partition(" removed")[0] for warning in heard.warnings] == [
        f"flashinfer: {name} 0.3.0" for name in COMPANIONS
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
    empty: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    both = (
        make_package("sglang", "1.0", ["flashinfer_python==0.7.0", "flashinfer_cubin==0.7.0", "torch"]),
        make_package("flashinfer-python", "0.7.0"),
    )
    assert errors(install(both, empty, reporter=heard)) == []
    assert version_of(empty, "torch") == "2.9.1"
    assert_installed(empty, *both)
    (warning,) = heard.warnings
    assert warning.startswith("flashinfer: flashinfer-cubin not installed: ")
    assert "flashinfer-python's version, 0.7.0" in warning


def test_a_flashinfer_whose_version_only_its_build_knows_is_installed(
    empty: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    put(empty, "flashinfer-cubin==0.6.18")
    package = make_package("flashinfer-python", "0.6.18")
    project = package.folder / "pyproject.toml"
    project.write_text(project.read_text().replace('version = "0.6.18"', 'dynamic = ["version"]'))
    package = replace(package)  # reads the file again
    assert package.version == ""
    assert errors(install([package], empty, reporter=heard)) == []
    assert version_of(empty, "flashinfer-cubin") == "0.6.18"


def test_a_dependency_that_wants_another_flashinfer_does_not_get_it(
    empty: Environment, make_package: Callable[..., Package], heard: Heard, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    write_wheel(tmp_path, "wants-old", "1", {}, ["flashinfer-python==0.3.0"])
    monkeypatch.setenv("UV_FIND_LINKS", f"{os.environ['UV_FIND_LINKS']},{tmp_path}")
    both = make_package("sglang", "1.0", ["wants-old"]), make_package("flashinfer-python", "0.6.18")
    assert errors(install(both, empty, reporter=heard)) == []
    assert version_of(empty, "wants-old") == "1"
    assert_installed(empty, *both)


def test_paths_may_have_any_characters(
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


def test_a_requirement_that_no_index_has_is_named(
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


def files(environment: Environment) -> dict[str, str]:
    """Every file of the environment with its content, but for the installations' lock and what Python compiles."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in environment.prefix.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != LOCK
    }


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ("uv", "build"), ("pip", "index"), ("uv", "requirement"), ("uv", "no dependencies"),
    ],
    indirect=["environment"],
)  # fmt: skip
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
    empty: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    both = (
        make_package("sglang", "1.0", ["flashinfer-cubin<0.4"]),
        make_package("other", "1.0", ["flashinfer-cubin>0.5"]),
    )
    reason = errors(install(both, empty, reporter=heard))[0].splitlines()[0]
    assert "flashinfer-cubin<0.4" in reason
    assert "flashinfer-cubin>0.5" in reason


def test_a_full_disk_is_reported(empty: Environment, make_package: Callable[..., Package], heard: Heard) -> None:
    package = make_package("sglang", action="raise OSError(28, 'No space left on device')")
    (outcome,) = install([package], empty, reporter=heard)
    assert isinstance(outcome.error, DiskError)


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
        from tasks.packages import Package, install, probe
        from invoke import Context
        from tasks.models import Repository, Settings
        quiet = lambda *_: None
        reporter = type("Quiet", (), dict.fromkeys(["event", "warn", "command", "output", "terminal"], quiet))()
        folder = Path({str(package.repository.path)!r})
        package = Package(Repository("sglang", "", "main", folder), "1" * 40, {{}})
        settings = Settings(folder, folder, None, 1, 30, "auto", (), None, ())
        sys.modules["tasks.packages.install"].TOOLS = Path({str(tmp_path / "tools.txt")!r})
        (outcome,) = install(Context(), [package], probe(), settings=settings, deps=True, reinstall=False,
                             log=folder.parent / "log", reporter=reporter)
        print(outcome.error.what.splitlines()[0])
    """
    done = subprocess.run([environment.python, "-c", code], capture_output=True, text=True, check=True)
    assert "flashinfer-cubin<0.4" in done.stdout
    assert "flashinfer-cubin>0.5" in done.stdout
