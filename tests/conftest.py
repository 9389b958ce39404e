"""What every test stands on: small upstreams on a real host, a home of its own, a project folder, environments."""

from __future__ import annotations

import compileall
import os
import shutil
import signal
import subprocess
import venv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from uv import find_uv_bin

from tasks.settings import DEFAULTS
from tests.sources import Result, Sources
from tests.thing import nested, thing  # noqa: F401 - fixtures
from tests.upstream import repositories, wheels
from tests.upstream.__main__ import write_configuration
from tests.upstream.host import GitHost
from tests.upstream.store import Upstream

ROOT = Path(__file__).resolve().parent.parent
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background; children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Environment:
    """A virtual environment that shares the project's installed dependencies and holds nothing itself."""

    path: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / "bin/python"

    def run(self, code: str) -> Result:
        """Run Python code in isolated mode."""
        run = subprocess.run([self.python, "-I", "-c", code], capture_output=True, text=True, check=False)
        return Result(run.returncode, run.stdout, run.stderr)


@dataclass
class Project:
    """A folder with a copy of the tasks. `environ` is the whole environment that commands get; tests may change it."""

    path: Path
    environ: dict[str, str]
    make: Callable[[], Environment]

    @cached_property
    def environment(self) -> Environment:
        """The environment that runs Invoke, hence the one that `install` installs into; made when first asked for."""
        return self.make()

    @property
    def tmp(self) -> Path:
        """Where the checkouts go by default."""
        return self.path / "tmp"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `invoke ARGUMENTS` in a process group of its own (`os.killpg` ends all of it); no standard input."""
        command, pipe = [str(self.environment.python), "-m", "invoke", *arguments], subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.path, env=self.environ, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe,
            text=True, errors="replace", start_new_session=True,
        )  # fmt: skip

    def invoke(self, *arguments: str, check: int | None = 0, timeout: float = 240) -> Result:
        """Run `invoke ARGUMENTS` to its end; `check` is the exit status it must have, None for any."""
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        assert check in (None, process.returncode), f"exit status {process.returncode}\n{out}\n{err}"
        return Result(process.returncode, out, err)

    def git(self, repository: str, *arguments: str) -> str:
        """What git prints in a checkout below `tmp`, such as `sglang` or `flashinfer/3rdparty/cutlass`."""
        run = subprocess.run(
            ["git", *arguments], cwd=self.tmp / repository, env=self.environ, capture_output=True, text=True, check=True
        )
        return run.stdout.removesuffix("\n")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Upstream:
    """The small upstream repositories, built once for each worker. Use `upstream`, which is a copy."""
    return repositories.build(tmp_path_factory.mktemp("upstream") / "repositories")


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment variables by which pip and uv install from the tests' wheels."""
    folder = tmp_path_factory.mktemp("wheels")
    return {**wheels.build(folder / "wheels"), "UV_CACHE_DIR": str(folder / "cache")}


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that shares the project's installed dependencies with any environment."""
    folder = tmp_path_factory.mktemp("tools")
    for distribution in wheels.closure(wheels.requirements(ROOT / "tasks/requirements.txt")).values():
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            (folder / top).symlink_to(Path(str(distribution.locate_file(top))))
    (folder / "bin").mkdir()
    (folder / "bin/uv").symlink_to(find_uv_bin())
    return folder


@pytest.fixture
def upstream(built: Upstream, tmp_path: Path) -> Upstream:
    """The small upstream repositories, this test's own to change."""
    return built.copy(tmp_path / "upstream")


@pytest.fixture
def host(upstream: Upstream) -> Iterator[GitHost]:
    """A host that serves `upstream`."""
    with GitHost(upstream.root) as host:
        yield host


@pytest.fixture
def environ(tmp_path: Path, wheelhouse: dict[str, str]) -> dict[str, str]:
    """An environment of a user of whom nothing is known: an empty home, no git identity, wheels instead of an index."""
    return unknown_user(tmp_path / "home", wheelhouse)


def unknown_user(home: Path, wheelhouse: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of a user with a new, empty home."""
    home.mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "TMPDIR", "SYSTEMROOT")}
    return {
        **kept,
        **wheelhouse,
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_LINK_MODE": "copy",
    }


@pytest.fixture
def github(environ: dict[str, str], host: GitHost, tmp_path: Path) -> dict[str, str]:
    """`environ` with `https://github.com/` leading to `host`."""
    config = write_configuration(tmp_path / "gitconfig", host.url)
    return {**environ, "GIT_CONFIG_GLOBAL": str(config)}


@pytest.fixture
def make_environment(tmp_path: Path, tools: Path) -> Callable[..., Environment]:
    """`make_environment(name="venv")` makes a virtual environment below the test's folder, in 50 ms."""
    return lambda name="venv": new_environment(tmp_path / name, tools)


def new_environment(path: Path, shared: Path) -> Environment:
    """Make a virtual environment that finds what the `shared` folder holds."""
    environment = Environment(path)
    venv.EnvBuilder(symlinks=True).create(path)
    (site,) = path.glob("lib/python*/site-packages")
    (site / "tools.pth").write_text(f"{shared}\n")
    return environment


@pytest.fixture
def make_project(
    tmp_path: Path, github: dict[str, str], make_environment: Callable[..., Environment]
) -> Callable[[str], Project]:
    """`make_project(name)` makes a project folder, such as a second worktree."""
    return lambda name: Project(new_folder(tmp_path / name), dict(github), lambda: make_environment(f"{name}-venv"))


def new_folder(folder: Path) -> Path:
    """Make a project folder with a copy of the tasks and of the trace data."""
    folder.mkdir(parents=True)
    compileall.compile_dir(ROOT / "tasks", quiet=2)  # Invoke writes no bytecode, which each command would compile anew
    shutil.copy2(ROOT / "tasks.py", folder)
    for part in ("tasks", "flashinfer_trace"):
        shutil.copytree(ROOT / part, folder / part)
    return folder


@pytest.fixture
def project(make_project: Callable[..., Project]) -> Project:
    """A fresh project folder: nothing cloned, github.com is `host`, an environment of its own."""
    return make_project("project")


@pytest.fixture
def surroundings(github: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process have the environment of a user of whom nothing is known."""
    for name in set(os.environ) - set(github):
        if name.startswith(("GIT_", "INVOKE_", "XDG_", "GITHUB_", "LC_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    for name, value in github.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def sources(surroundings: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Sources:
    """Both repositories, as configured by default, in a directory of their own."""
    repositories = {name: dict(entry) for name, entry in DEFAULTS["repositories"].items()}
    return Sources(tmp_path / "tmp", capsys, repositories)


@pytest.fixture
def flashinfer(sources: Sources) -> Sources:
    """FlashInfer alone."""
    del sources.repositories["sglang"]
    return sources


@pytest.fixture
def sglang(sources: Sources) -> Sources:
    """SGLang alone: no submodules, the quickest."""
    del sources.repositories["flashinfer"]
    return sources
