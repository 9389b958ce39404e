"""Both packages installed from their checkouts with one uv command, into real environments."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from invoke.config import Config
from invoke.context import Context

from tasks.errors import InstallError, NetworkError
from tasks.packages.package import Package
from tasks.packages.requirements import missing_requirements
from tasks.packages.uv import DROPPED
from tests.conftest import Environment as VirtualEnvironment
from tests.packages.conftest import Place, package_at
from tests.upstream.host import refused_url
from tests.upstream.store import Upstream
from tests.upstream.wheels import write_wheel

Make = Callable[..., Package]
ROOT = Path(__file__).parents[2]
COMPANIONS = ("flashinfer-cubin", "flashinfer-jit-cache")


def test_both_are_installed_from_their_checkouts_and_type_checkers_find_them(place: Place, checkout: Make) -> None:
    both = checkout("sglang", "v0.5.23"), checkout("flashinfer", "v0.7.2")
    outcomes = place.outcomes(*both)
    assert [(one.action, one.version) for one in outcomes] == [("installed", "0.5.23"), ("installed", "0.7.2")]
    place.assert_installed(*both)
    assert place.version("torch") == "2.9.1"
    for package in both:
        found = place.environment.distribution(package.name)
        assert found is not None
        assert missing_requirements(place.environment, found) == ()
    (place.path / "uses.py").write_text("import sglang, flashinfer\nreveal_type(flashinfer.__version__)\n")
    mypy: list[str | Path] = [sys.executable, "-m", "mypy", "--python-executable", place.environment.python, "uses.py"]
    checked = subprocess.run(mypy, cwd=place.path, capture_output=True, text=True, check=False).stdout
    assert "Cannot find implementation" not in checked and "import-not-found" not in checked


def test_a_second_run_starts_nothing_and_writes_nothing(
    place: Place, checkout: Make, started: Callable[[], list[str]]
) -> None:
    both = checkout("sglang", "v0.5.3"), checkout("flashinfer", "v0.6.7.post3")
    place.install(*both)
    before, log = place.files(), place.log.read_text()
    started()
    processes = len(started())
    assert place.install(*both) == ["already installed"] * 2
    assert (place.files(), place.log.read_text(), len(started())) == (before, log, processes)
    assert place.install(*both, overrides=["torch<3"]) == ["reinstalled"] * 2  # the state has changed


def test_a_pin_on_another_flashinfer_does_not_replace_the_checkout(
    place: Place, make_package: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its release nor its companion's is even downloaded, whoever asks for them; its extras are installed."""
    pins = ["flashinfer_python[cu13]==0.6.7.post3", "flashinfer_cubin==0.6.7.post3", "wants-old", "torch"]
    write_wheel(place.path, "wants-old", "1", {}, ["flashinfer-python==0.3.0", "flashinfer-jit-cache==0.3.0"])
    both = (
        make_package("sglang", "0.5.10.post1", pins),
        make_package("flashinfer-python", "0.6.18", extras={"cu13": ["apache-tvm-ffi"]}),
    )
    monkeypatch.setenv("UV_FIND_LINKS", f"{place.path},{os.environ['UV_FIND_LINKS']}")
    place.install(*both)
    place.assert_installed(*both)
    assert place.version("flashinfer-python") == "0.6.18"
    assert [place.version(name) for name in COMPANIONS] == ["", ""]
    assert place.version("apache-tvm-ffi") and place.version("wants-old")
    assert "flashinfer_cubin-0.6.7" not in place.log.read_text()


def test_a_checkout_of_a_release_is_that_release_though_there_are_newer_tags(
    place: Place, checkout: Make, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in DROPPED:  # what contradicts our own options; the version would count for every package
        monkeypatch.setenv(name, "1")
    upstream.move_tag("sglang", "v0.5.99")
    place.install(checkout("sglang", "v0.5.10.post1"), deps=False)
    assert place.version("sglang") == "0.5.10.post1"


def test_a_checkout_without_tags_is_installed_with_a_warning(place: Place, checkout: Make) -> None:
    package = checkout("sglang", "v0.5.10.post1")
    subprocess.run("git tag | xargs git tag -d", shell=True, cwd=package.checkout.path, check=True, capture_output=True)
    (outcome,) = place.outcomes(package_at(package.checkout.path, "sglang"), deps=False)
    assert outcome.version.startswith("0.0.0")
    assert "no release tag" in place.heard.warnings[0]


def test_requirements_of_an_extra_come_with_it(place: Place, make_package: Make) -> None:
    extras = {"srt": ["torch"], "all": ["sglang[srt]"]}
    place.install(make_package("sglang", "0.4.0", extras=extras))
    assert not place.version("torch")
    place.install(make_package("sglang", "0.4.0", extras=extras, chosen=("all",)))
    assert place.version("torch")
    assert place.heard.warnings == []
    place.install(make_package("sglang", "0.4.0", extras=extras, chosen=("none",)))
    assert place.heard.warnings == ["sglang: 0.4.0 has no extra named none"]


def test_flashinfer_under_its_other_name_is_removed(place: Place, make_package: Make) -> None:
    place.uv("install", "flashinfer-python==0.3.0")
    for name, version in {"flashinfer": "0.2.0", "flashinfer-python": "0.6.18"}.items():
        package = make_package(name, version)
        place.install(package, deps=False)
        place.assert_installed(package)
        assert [place.version(alias) for alias in package.aliases] == [""]


def test_companions_of_another_version_are_removed_and_those_of_the_same_stay(
    place: Place, make_package: Make
) -> None:
    write_wheel(place.path, "flashinfer-jit-cache-cu13", "0.3.0", {})
    place.uv("install", "flashinfer-cubin==0.6.18", "flashinfer-jit-cache==0.3.0",
             str(place.path / "flashinfer_jit_cache_cu13-0.3.0-py3-none-any.whl"))  # fmt: skip
    both = (
        make_package("sglang", "1.0", ["flashinfer-python==0.6.18", "flashinfer-cubin==0.6.18"]),
        make_package("flashinfer-python", "0.6.18"),
    )
    place.install(*both)
    assert [place.version(name) for name in COMPANIONS] == ["0.6.18", ""]
    assert "install: removing flashinfer-jit-cache, flashinfer-jit-cache-cu13" in place.heard.events[1]


def test_a_flashinfer_whose_version_only_its_build_knows_is_installed(place: Place, make_package: Make) -> None:
    place.uv("install", "flashinfer-cubin==0.6.18")
    package = make_package("flashinfer-python", "0.6.18", dynamic=True)
    assert package.version == ""
    place.install(package)
    assert place.version("flashinfer-cubin") == "0.6.18"


def test_an_editable_flashinfer_stays_and_is_not_built_again_when_sglang_alone_is_installed(
    place: Place, make_package: Make, checkout: Make
) -> None:
    flashinfer = checkout("flashinfer", "v0.6.7.post3")
    place.install(flashinfer)
    place.heard.lines.clear()
    sglang = make_package("sglang", "1.0", ["flashinfer_python==0.3.0", "flashinfer_cubin==0.3.0"])
    assert place.install(sglang) == ["installed"]
    place.assert_installed(sglang, flashinfer)
    assert not [line for line in place.heard.lines if "Building flashinfer" in line]
    assert not place.version("flashinfer-cubin")
    assert place.install(sglang) == ["already installed"]


def test_overrides_of_the_configuration_replace_requirements(place: Place, make_package: Make) -> None:
    requires = ["torch==9.9", "flashinfer-python==0.3.0", "flashinfer-cubin==0.3.0"]
    both = make_package("sglang", "1.0", requires), make_package("flashinfer-python", "0.6.18")
    overrides = ["torch==2.9.1", "flashinfer_cubin==0.6.18", "flashinfer-python==0.4.0rc3"]
    place.install(*both, overrides=overrides)
    assert (place.version("torch"), place.version("flashinfer-cubin")) == ("2.9.1", "0.6.18")
    place.assert_installed(*both)
    assert place.heard.warnings == ["install: sources.overrides: flashinfer-python is installed from its checkout"]
    assert place.install(*both, overrides=overrides) == ["already installed"] * 2
    found = place.environment.distribution("sglang")
    assert found is not None
    unmet = [str(one.requirement) for one in missing_requirements(place.environment, found)]
    assert "torch==9.9" in unmet
    assert missing_requirements(place.environment, found, (), [*overrides[:2], "flashinfer-python"]) == ()


def test_changed_versions_of_other_packages_are_named(place: Place, make_package: Make) -> None:
    place.uv("install", "flashinfer-cubin==0.6.18")
    place.install(make_package("sglang", "1.0", ["flashinfer-cubin==0.3.0"]))
    assert place.heard.events[-1] == "install: changed flashinfer-cubin 0.6.18 → 0.3.0"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """The URL of a package index (PEP 503) that has a distribution `only-here`, version 1, and nothing else."""
    project = tmp_path / "index/S3cr3tT0ken/simple/only-here"
    project.mkdir(parents=True)
    wheel = write_wheel(project, "only-here", "1", {"only_here.py": ""})
    (project / "index.html").write_text(f'<!DOCTYPE html><a href="{wheel.name}">{wheel.name}</a>')
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "index"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://user:S3cr3t%20PW@127.0.0.1:{server.server_port}/S3cr3tT0ken/simple"
        server.shutdown()


@pytest.mark.parametrize("told", ["settings", "pip.conf", "PIP_EXTRA_INDEX_URL"])
def test_indexes_of_the_configuration_and_of_pip_are_used_and_their_secrets_are_not_shown(
    place: Place, make_package: Make, index: str, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    for name in ("PIP_NO_INDEX", "UV_OFFLINE", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    (place.path / "nothing").mkdir()
    monkeypatch.setenv("UV_DEFAULT_INDEX", (place.path / "nothing").as_uri())
    if told == "pip.conf":
        file = place.path / "pip.conf"
        file.write_text(f"[global]\nextra-index-url = {index}\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    elif told != "settings":
        monkeypatch.setenv(told, index)
    indexes = [index] if told == "settings" else []
    place.install(make_package("sglang", "1.0", ["only-here"]), indexes=indexes)
    assert place.version("only-here") == "1"
    assert any("pip's configuration" in event and "UV_INDEX" in event for event in place.heard.events) is (
        told != "settings"
    )
    error = place.fails(make_package("sglang", "1.1", ["only-here==2"]), indexes=indexes)
    shown = [*place.heard.events, *place.heard.commands, *place.heard.lines, str(error), place.log.read_text()]
    assert not [text for text in shown if "S3cr3t" in text]
    assert "/…" in error.command


def test_paths_may_have_any_characters(place: Place, make_package: Make) -> None:
    package = make_package("sglang", "1.0", ["torch"], folder=place.path / "a b'c\"d ü漢 100%?; [x] ${HOME} -e")
    place.install(package)
    place.assert_installed(package)
    assert place.version("torch")
    assert place.install(package) == ["already installed"]


def test_a_failed_build_is_one_sentence_with_a_command_that_repeats_it(place: Place, make_package: Make) -> None:
    good = make_package("flashinfer-python")
    action = "[print('line', n) for n in range(60)]; raise ValueError('the kernel is sour')"
    error = place.fails(make_package("sglang", action=action), good)
    assert isinstance(error, InstallError)
    assert error.what.startswith("Failed to build `sglang @ file://")
    assert error.what.endswith("ValueError: the kernel is sour")
    assert len(error.what.splitlines()) == 2
    assert "line 59" in place.log.read_text() and str(place.log) in error.hint
    assert place.heard.lines == [line for line in place.heard.lines if "line 5" not in line]
    assert subprocess.run(["sh", "-c", error.command], capture_output=True, check=False).returncode
    bad = make_package("sglang")
    subprocess.run(["sh", "-c", error.command], check=True, capture_output=True)
    place.assert_installed(bad, good)


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of the only package index that is set up, and that refuses connections."""
    monkeypatch.delenv("UV_OFFLINE")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with refused_url() as url:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{url}/simple")
        yield url


@pytest.mark.parametrize("why", ["build", "index", "requirement", "contradiction", "no dependencies"])
def test_a_failed_installation_changes_no_file_of_the_environment(
    place: Place, make_package: Make, request: pytest.FixtureRequest, why: str
) -> None:
    both = make_package("sglang", "1.0", ["torch"]), make_package("flashinfer-python", "0.6.18")
    place.install(*both)
    place.uv("install", "flashinfer-cubin==0.3.0", "flashinfer==0.1.6")  # what the installation would remove
    before = place.files()
    requires = {"build": [], "index": ["absent"], "requirement": ["no-such-thing>=1"], "no dependencies": [],
                "contradiction": ["packaging<1", "packaging>2"]}[why]  # fmt: skip
    action = "raise ValueError('cargo metadata failed')" if why in ("build", "no dependencies") else "pass"
    url = request.getfixturevalue("unreachable") if why == "index" else ""
    new = make_package("flashinfer-python", "0.3.0"), make_package("sglang", "2.0", ["torch", *requires], action=action)
    error = place.fails(*new, deps=why != "no dependencies")
    assert isinstance(error, NetworkError if why == "index" else InstallError)
    assert {"index": url, "requirement": "no-such-thing", "contradiction": "packaging<1"}.get(why, "") in error.what
    assert place.files() == before
    assert place.version("sglang") == "1.0"


def test_dry_says_what_would_be_installed(place: Place, make_package: Make, started: Callable[[], list[str]]) -> None:
    before = place.files()
    c = Context(Config(overrides={"run": {"dry": True}}))
    assert place.install(make_package("sglang"), c=c) == ["would install"]
    assert place.files() == before and not started()


def test_an_installation_keeps_the_running_program_working(
    make_environment: Callable[..., VirtualEnvironment], make_package: Make, place: Place
) -> None:
    """What the program itself requires is resolved with the rest: a contradiction is an error, not a broken program."""
    package = make_package("sglang", "1.0", ["flashinfer-cubin<0.4"])
    environment = make_environment("own")
    (place.path / "tools.txt").write_text("flashinfer-cubin>0.5  # why\n")
    code = f"""if True:
        import sys; sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from tasks.errors import InstallError
        from tasks.packages import probe
        from tests.packages.conftest import Place, package_at
        sys.modules["tasks.packages.install"].TOOLS = Path({str(place.path / "tools.txt")!r})
        print(Place(probe()).fails(package_at(Path({str(package.checkout.path)!r}), "sglang")).what)
    """
    links = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [environment.python, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **links}
    )
    assert "flashinfer-cubin<0.4" in done.stdout, done.stderr
    assert "flashinfer-cubin>0.5" in done.stdout


def test_output_on_a_terminal_is_uvs_own(place: Place, make_package: Make) -> None:
    """uv draws on a terminal; what it says of a failure stays in the log."""
    code = f"""if True:
        import sys; sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from tasks.packages import probe
        from tests.packages.conftest import Place, package_at
        place = Place(probe({str(place.environment.python)!r}))
        place.heard.terminal = lambda: sys.stdout
        place.fails(package_at(Path(sys.argv[1]), "sglang"))
    """
    package = make_package("sglang", action="raise ValueError('the kernel is sour')")
    parts: list[bytes] = []

    def read(descriptor: int) -> bytes:
        parts.append(os.read(descriptor, 10_000))
        return parts[-1]

    with (place.path / "seen").open("wb") as seen, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm")
        patch.setattr("pty.STDOUT_FILENO", seen.fileno())
        argv = [sys.executable, "-c", code, str(package.checkout.path)]
        assert pty.spawn(argv, read, lambda fd: b"") == 0
    shown = b"".join(parts)
    assert b"\x1b[" in shown and b"Resolved" in shown
    assert b"sour" not in shown
    assert "the kernel is sour" in place.log.read_text()
