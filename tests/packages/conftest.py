"""Environments, checkouts and tiny packages for tests of installations."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sysconfig
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest
from invoke.context import Context

from tasks import packages as tested
from tasks.errors import SourcesError
from tasks.models import Outcome, Repository, Settings
from tasks.packages import uv as uv_module
from tasks.packages.environment import Environment, probe
from tasks.packages.lock import Lock
from tasks.packages.package import Package
from tasks.packages.uv import Uv

FROM_PIP = uv_module.from_pip
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

    def event(self, who: str, message: str) -> None:
        self.events.append(f"{who}: {message}")

    def warn(self, who: str, message: str) -> None:
        self.warnings.append(f"{who}: {message}")

    def progress(self, who: str, doing: str, done: float | None, moved: int, rate: float) -> None: ...

    def command(self, argv: Sequence[str], cwd: Path | None) -> None:
        self.commands.append(shlex.join(argv))

    def checked(self, group: str, checks: object) -> None: ...

    def terminal(self) -> IO[str] | None:
        return None


def package_at(
    path: Path, name: str, extras: tuple[str, ...] = (), head: str = "1" * 40, tags: Mapping[str, str] | None = None
) -> Package:
    """The package of the repository called `name` whose checkout is at `path`."""
    repository = Repository(name, "", "main", path, extras=extras)
    checkout: Any = SimpleNamespace(repository=repository, path=path, git_dir=path / ".git", head=head, tags=tags or {})
    return Package(checkout)


def put(environment: Environment, name: str, version: str, requires: tuple[str, ...] = (), **files: str) -> Path:
    """Put a distribution's metadata into the environment, as an installer would."""
    info = environment.purelib / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {one}" for one in requires)]
    (info / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")
    for file, text in files.items():
        (info / file.replace("_json", ".json")).write_text(text)
    return info


@dataclass
class Place:
    """An environment with nothing in it, not even pip, and what an installation into it reported."""

    environment: Environment
    heard: Heard = field(default_factory=Heard)

    @property
    def path(self) -> Path:
        return self.environment.prefix.parent

    @property
    def log(self) -> Path:
        return self.path / "install.log"

    def tool(self, **values: Any) -> Uv:
        """uv, as a run of `invoke setup --only=sglang` has it, with these settings."""
        settings = replace(Settings(self.path, self.path, None, 1, 30, (), ()), **values)
        return Uv(Context(), self.environment, settings, self.log, self.heard, "invoke setup --only=sglang")

    def install(self, *packages: Package, **options: Any) -> list[str]:
        """Install the packages; return what was done to each. For the options see `outcomes`."""
        return [outcome.action for outcome in self.outcomes(*packages, **options)]

    def outcomes(
        self, *packages: Package, deps: bool = True, lock: Lock | None = None, **settings: Any
    ) -> list[Outcome]:
        return tested.install(self.tool(**settings), packages, deps=deps, reinstall=False, lock=lock)

    def fails(self, *packages: Package, **options: Any) -> SourcesError:
        """Install the packages, which fails; return the error."""
        with pytest.raises(SourcesError) as raised:
            self.install(*packages, **options)
        return raised.value

    def version(self, name: str) -> str:
        return self.environment.version(name)

    def uv(self, *arguments: str) -> str:
        """Run `uv pip` for the environment, as a user would, and return all that it printed."""
        command = ["uv", "pip", *arguments, "--python", str(self.environment.python)]
        return subprocess.run(command, cwd=self.path, check=True, capture_output=True, text=True).stdout

    def files(self) -> dict[str, str]:
        """Every file of the environment with its content, but for locks and what Python compiles."""
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.environment.prefix.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts and not path.name.endswith(".lock")
        }

    def assert_installed(self, *packages: Package) -> None:
        """Each is the checkout, and imports from it."""
        for package in packages:
            found = self.environment.distribution(package.name)
            assert package.is_checkout(found), found
            code = f"import {package.module}; print({package.module}.__file__)"
            file = subprocess.check_output([self.environment.python, "-Ic", code], cwd=self.path, text=True)
            assert Path(file).is_relative_to(package.folder), file


@pytest.fixture
def user(environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has the environment of a user who has nothing but the tests' wheels."""
    for name in {*os.environ} - {*environ, "PYTEST_CURRENT_TEST"}:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{environ['PATH']}:{sysconfig.get_path('scripts')}")  # where the tests' uv is


@pytest.fixture
def place(tmp_path: Path, user: None, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A new environment of a user who has nothing but the tests' wheels, and of whom pip is not asked, to save time."""
    monkeypatch.setattr(uv_module, "from_pip", lambda environ: {})
    venv.create(tmp_path / "venv", symlinks=True)
    return Place(probe(tmp_path / "venv"))


@pytest.fixture
def make_package(tmp_path: Path) -> Callable[..., Package]:
    """`make_package("sglang", "1.0", ["torch"])` writes a tiny package that builds without any requirement."""

    def make(
        name: str, version: str = "1.0", requires: Sequence[str] = (), *,
        extras: Mapping[str, Sequence[str]] | None = None, chosen: tuple[str, ...] = (),
        action: str = "pass", folder: Path | None = None, dynamic: bool = False, build: Sequence[str] = (),
    ) -> Package:  # fmt: skip
        repository = name.removesuffix("-python")
        checkout = folder or tmp_path / "tmp" / repository
        project = checkout / "python" if repository == "sglang" else checkout
        (checkout / ".git").mkdir(parents=True, exist_ok=True)
        (project / repository).mkdir(parents=True, exist_ok=True)
        (project / repository / "__init__.py").write_text(f"__version__ = {version!r}\n")
        marked = [f"{one}; extra == '{extra}'" for extra, more in (extras or {}).items() for one in more]
        values = {"name": name, "module": name.replace("-", "_"), "version": version, "action": action}
        (project / "backend.py").write_text(BACKEND.format(**values, requires=[*requires, *marked]))
        (project / "pyproject.toml").write_text(
            f'[project]\nname = "{name}"\ndependencies = {list(requires)}\n'
            + ('dynamic = ["version"]\n' if dynamic else f'version = "{version}"\n')
            + f'[build-system]\nrequires = {list(build)}\nbuild-backend = "backend"\nbackend-path = ["."]\n'
            + "[project.optional-dependencies]\n"
            + "".join(f"{extra} = {list(more)}\n" for extra, more in (extras or {}).items())
        )
        return package_at(checkout, repository, chosen)

    return make
