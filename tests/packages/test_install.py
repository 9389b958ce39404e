"""Both packages installed from their checkouts, with real pip and real uv, into real environments."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.errors import DiskError, InstallError
from tasks.models import Outcome
from tasks.packages.environment import Environment, import_check, probe
from tasks.packages.install import install
from tasks.packages.installer import run
from tasks.packages.layouts import COMPANIONS, find_layout
from tasks.packages.metadata import read_metadata
from tasks.packages.package import Package
from tasks.packages.requirements import missing_requirements
from tests.conftest import Environment as VirtualEnvironment
from tests.surroundings import managed, started, unprivileged
from tests.upstream.host import refused_url
from tests.upstream.store import Upstream
from tests.upstream.wheels import write_wheel

__all__ = ["managed", "started", "unprivileged"]

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


def test_uv_is_taken_where_it_is_on_the_path(
    empty: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    install([make_package("sglang")], empty, reporter=heard)
    assert all("uv pip install --python" in command for command in heard.commands)


def test_asking_for_an_absent_uv_is_an_error(
    empty: Environment,
    make_package: Callable[..., Package],
    heard: Heard,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hide_uv(tmp_path, monkeypatch)
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
    with pytest.raises(InstallError, match="may not be written to"):
        install([make_package("sglang")], replace(empty, writable=False), reporter=heard)
    assert heard.commands == []


def test_a_python_that_is_too_old_stops_that_package_alone(
    empty: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    new, fine = make_package("sglang", python=">=4"), make_package("flashinfer-python")
    outcomes = install([new, fine], empty, reporter=heard)
    assert [one.action for one in outcomes] == ["", "installed"]
    assert f"requires Python >=4; {empty.python} is {empty.version}" in errors(outcomes)[0]
    assert_installed(empty, fine)


def test_a_build_that_needs_rust_is_not_begun_without_cargo(
    empty: Environment, checkout: Callable[..., Package], heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = checkout("sglang", "rust", "0.5.11.dev1")
    hide_uv(tmp_path, monkeypatch)  # nor cargo
    (message,) = errors(install([package], empty, reporter=heard))
    assert "`cargo`" in message
    assert heard.commands == []


def test_the_old_layout_is_not_begun_without_torch(
    empty: Environment, checkout: Callable[..., Package], heard: Heard
) -> None:
    (message,) = errors(install([checkout("flashinfer", "v0.1.6")], empty, reporter=heard))
    assert "torch" in message
    assert f"{empty.python} -m pip install torch" in message
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
    assert errors(install([make_package("flashinfer-python", "0.7.0")], empty, reporter=heard)) == []
    assert version_of(empty, "flashinfer-cubin") == version_of(empty, "flashinfer-jit-cache") == ""
    assert [warning.partition(",")[0] for warning in heard.warnings] == [
        f"flashinfer-python: {name} 0.3.0 removed" for name in COMPANIONS
    ]


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
    assert [one.action for one in outcomes] == ["", "installed"]
    error = outcomes[0].error
    assert isinstance(error, InstallError)
    assert error.what.startswith("sglang: the build raised ValueError: the kernel is sour.\n")
    assert len(error.what.splitlines()) <= 16
    again = subprocess.run(["sh", "-c", error.hint], capture_output=True, text=True, check=False)
    assert again.returncode
    assert "the kernel is sour" in again.stdout + again.stderr
    make_package("sglang")
    subprocess.run(["sh", "-c", error.hint], check=True)
    assert_installed(environment, bad, good)


def test_a_requirement_that_is_not_to_be_had_is_named(
    environment: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    both = make_package("sglang", "1.0", ["no-such-thing>=3"]), make_package("flashinfer-python")
    outcomes = install(both, environment, reporter=heard)
    assert [one.action for one in outcomes] == ["", ""]
    assert "no release of no-such-thing" in errors(outcomes)[0].splitlines()[0]
    assert outcomes[0].error
    again = subprocess.run(["sh", "-c", outcomes[0].error.hint], capture_output=True, text=True, check=False)
    assert "no-such-thing" in again.stdout + again.stderr
    assert [one.action for one in install(both, environment, deps=False, reporter=heard)] == ["reinstalled"] * 2


def test_an_index_that_cannot_be_reached_is_told_as_such(
    environment: Environment, make_package: Callable[..., Package], heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_NO_INDEX", "UV_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with refused_url() as url:
        for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"):
            monkeypatch.setenv(name, f"{url}/simple")
        (message,) = errors(install([make_package("sglang", "1.0", ["nothing"])], environment, reporter=heard))
    assert "index could not be reached" in message.splitlines()[0]


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


def test_an_installer_that_is_killed_is_told_as_such(heard: Heard) -> None:
    with pytest.raises(InstallError, match=r"signal 9"):
        run("sglang", ["sh", "-c", "kill -9 $$"], {}, heard)


def test_output_is_heard_while_the_installer_works(tmp_path: Path) -> None:
    """The command ends only after its first line has been heard."""
    flag = tmp_path / "heard"

    class Answering(Heard):
        def output(self, who: str, line: str) -> None:
            super().output(who, line)
            flag.touch()

    heard = Answering()
    wait = f"while not pathlib.Path({str(flag)!r}).exists(): time.sleep(.01)"
    code = f"import pathlib, time\nprint('first')\n{wait}\nprint('last')"
    run("sglang", [sys.executable, "-c", code], {}, heard)
    assert heard.lines == ["sglang: first", "sglang: last"]


def test_an_installation_keeps_the_running_program_working(
    make_environment: Callable[..., VirtualEnvironment], make_package: Callable[..., Package], tmp_path: Path
) -> None:
    """What the program itself requires is resolved with the rest: a contradiction is an error, not a broken program."""
    package = make_package("sglang", "1.0", ["flashinfer-cubin<0.4"])
    environment = make_environment("own")
    code = f"""if True:
        import sys; sys.path.insert(0, {str(Path(__file__).parent.parent.parent)!r})
        from pathlib import Path
        from tasks.packages.environment import probe
        from tasks.packages.install import install
        quiet = lambda *told: None
        reporter = type("Quiet", (), dict.fromkeys(["event", "warn", "command", "output"], quiet))()
        from tasks.packages.package import Package
        from tasks.packages.metadata import read_metadata
        folder = Path({str(package.folder)!r})
        metadata = read_metadata({{"pyproject.toml": (folder / "pyproject.toml").read_bytes()}}, "")
        package = Package("sglang", folder, metadata, "1.0", "sglang", "1" * 40, folder / ".git")
        (outcome,) = install([package], probe(), tools=["flashinfer-cubin>0.5"], reporter=reporter)
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


def test_ctrl_c_ends_the_installer_and_the_next_run_completes(
    environment: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    class Impatient(Heard):
        def output(self, who: str, line: str) -> None:
            raise KeyboardInterrupt

    package = make_package("sglang", "1.0", ["torch"])
    with pytest.raises(KeyboardInterrupt):
        install([package], environment, reporter=Impatient())
    assert errors(install([package], environment, reporter=heard)) == []
    assert_installed(environment, package)


RUNNER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tasks.packages.environment import probe
from tasks.packages.install import install
from tasks.packages.metadata import read_metadata
from tasks.packages.package import Package

def package(folder):
    metadata = read_metadata({"pyproject.toml": (folder / "pyproject.toml").read_bytes()}, "")
    name = metadata.distribution
    module = name.removesuffix("-python")
    return Package(name, folder, metadata, metadata.version, module, "1" * 40, folder / ".git")

say = lambda *told: print(*told, flush=True)
reporter = type("Loud", (), dict.fromkeys(["event", "warn", "command", "output"], staticmethod(say)))()
install([package(Path(folder)) for folder in sys.argv[3:]], probe(Path(sys.argv[2])), reporter=reporter)
"""


@pytest.mark.parametrize("lines", [2, 5, 8])
def test_killed_at_any_moment_the_next_run_completes(
    environment: Environment, make_package: Callable[..., Package], heard: Heard, lines: int
) -> None:
    """The whole process group gets SIGKILL after so many lines have been heard."""
    put(environment, "flashinfer-python==0.3.0")
    both = make_package("sglang", "1.0", ["torch"]), make_package("flashinfer-python", "0.6.18")
    folders = [str(package.folder) for package in both]
    root = str(Path(__file__).parent.parent.parent)
    command = [sys.executable, "-c", RUNNER, root, str(environment.python), *folders]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    for _ in range(lines):
        process.stdout.readline()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert errors(install(both, environment, reporter=heard)) == []
    assert_installed(environment, *both)
    assert version_of(environment, "torch") == "2.9.1"
