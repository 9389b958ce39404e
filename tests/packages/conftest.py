"""Environments, checkouts and tiny packages for tests of installations."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from invoke.context import Context

from tasks import packages as tested
from tasks.models import Outcome, Reporter, Repository, Settings
from tasks.packages.environment import Environment, import_check, probe
from tasks.packages.package import Package
from tests.conftest import Environment as VirtualEnvironment
from tests.upstream.store import Upstream

ROOT = Path(__file__).parents[2]
STARTS = ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty", "os.exec", "os.system")
_seen: list[str] = []
_hooked: list[bool] = []
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

    def checked(self, group: str, checks: object) -> None: ...

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


@pytest.fixture
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

    def make(name: str, revision: str, extras: tuple[str, ...] = ()) -> Package:
        folder = tmp_path / "tmp" / name
        if not folder.exists():
            subprocess.run(["git", "clone", "-q", "-n", upstream.path(name), folder], check=True)
        subprocess.run(["git", "-c", "advice.detachedHead=false", "checkout", "-q", revision], cwd=folder, check=True)
        commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=folder, text=True).strip()
        tags = subprocess.check_output(["git", "tag", "--points-at", "HEAD"], cwd=folder, text=True).split()
        return Package(Repository(name, "", "main", folder, extras=extras), commit, dict.fromkeys(tags, commit))

    return make


@pytest.fixture
def make_package(tmp_path: Path) -> Callable[..., Package]:
    """`make_package("sglang", "1.0", ["torch"])` writes a tiny package that builds without any requirement."""

    def make(
        name: str, version: str = "1.0", requires: Sequence[str] = (), *, extras: Sequence[str] = (),
        action: str = "pass", folder: Path | None = None, python: str = ">=3.8", body: str = "",
    ) -> Package:  # fmt: skip
        repository = name.removesuffix("-python")
        checkout = folder or tmp_path / "tmp" / repository
        project = checkout / "python" if repository == "sglang" else checkout
        (checkout / ".git").mkdir(parents=True, exist_ok=True)
        (project / repository).mkdir(parents=True, exist_ok=True)
        (project / repository / "__init__.py").write_text(body or f"__version__ = {version!r}\n")
        module = name.replace("-", "_")
        values = {"name": name, "module": module, "version": version, "requires": list(requires), "action": action}
        (project / "backend.py").write_text(BACKEND.format(**values))
        (project / "pyproject.toml").write_text(
            f'[project]\nname = "{name}"\nversion = "{version}"\nrequires-python = "{python}"\n'
            f"dependencies = {list(requires)}\n"
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
            "[project.optional-dependencies]\n" + "".join(f"{extra} = []\n" for extra in extras)
        )
        return Package(Repository(repository, "", "main", checkout), "1" * 40, {})

    return make


def with_extras(package: Package, *extras: str) -> Package:
    return replace(package, repository=replace(package.repository, extras=extras))


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


@pytest.fixture
def started() -> Callable[[], list[str]]:
    """A function that tells what processes were started in this test so far."""
    if not _hooked:  # an audit hook (PEP 578) cannot be taken off again
        sys.addaudithook(lambda event, args: _seen.append(f"{event} {args}") if event in STARTS else None)
        _hooked.append(True)
    _seen.clear()
    return lambda: list(_seen)


@pytest.fixture
def managed(tmp_path: Path) -> Path:
    """The interpreter of a Python that is no virtual environment, and is the operating system's to manage (PEP 668)."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    base, copy = Path(sys.base_prefix), tmp_path / "usr"
    (copy / "bin").mkdir(parents=True)
    (copy / "lib" / name / "site-packages").mkdir(parents=True)
    shutil.copy2(Path(sys._base_executable).resolve(), copy / "bin" / name)  # type: ignore[attr-defined]
    for entry in (base / "lib" / name).iterdir():
        if entry.name not in ("site-packages", "dist-packages", "EXTERNALLY-MANAGED"):
            (copy / "lib" / name / entry.name).symlink_to(entry)
    for library in (base / "lib").glob("libpython*"):
        (copy / "lib" / library.name).symlink_to(library)
    (copy / "lib" / name / "EXTERNALLY-MANAGED").write_text("[externally-managed]\nError=Use apt.\n")
    python = copy / "bin" / name
    prefix = subprocess.check_output([python, "-c", "import sys; print(sys.prefix)"], text=True).strip()
    if Path(prefix) != copy:
        pytest.skip("a copy of this Python does not stand on its own")
    return python
