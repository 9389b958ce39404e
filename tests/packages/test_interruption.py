"""Installations that are interrupted, killed, or started at the same time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.packages.environment import Environment
from tasks.packages.package import Package
from tests.packages.conftest import Heard, assert_installed, errors, install, put, version_of

pytestmark = pytest.mark.usefixtures("user")


def test_an_interrupted_installation_is_no_obstacle(
    environment: Environment, make_package: Callable[..., Package], heard: Heard
) -> None:
    both = make_package("sglang", "2.0", ["torch"]), make_package("flashinfer-python", "0.6.18")
    put(environment, "torch", "flashinfer-python==0.3.0")
    next(environment.purelib.glob("torch-*/RECORD")).unlink()
    next(environment.purelib.glob("flashinfer_python-*/METADATA")).unlink()
    another = environment.purelib / "another-1.dist-info"
    another.mkdir()
    (another / "METADATA").write_text("Metadata-Version: 2.1\nName: another\nVersion: 1\n")
    (another / "RECORD").write_text(f"{another.name}/METADATA,,\n")
    (another / "direct_url.json").touch()
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
from tasks.models import Repository, Settings
from tasks.packages import Package, install, probe

def package(argument):
    name, _, path = argument.partition("=")
    return Package(Repository(name, "", "main", Path(path)), "1" * 40, {})

say = lambda *words: print(*words, flush=True)
reporter = type("Loud", (), dict.fromkeys(["event", "warn", "command", "output"], staticmethod(say)))
reporter.terminal = lambda self: None
environment = probe(Path(sys.argv[2]))
directory = environment.prefix.parent
settings = Settings(directory, directory, None, 1, 30, "pip" if environment.has_pip else "uv", (), None, ())
install(Context(), [package(argument) for argument in sys.argv[3:]], environment, settings=settings, deps=True,
        reinstall=False, log=directory / "runner.log", reporter=reporter())
"""


def start(environment: Environment, *packages: Package) -> subprocess.Popen[str]:
    """Begin an installation in a process of its own, which leads a process group and prints what goes on."""
    root = str(Path(__file__).parent.parent.parent)
    checkouts = [f"{package.repository.name}={package.repository.path}" for package in packages]
    command = [sys.executable, "-c", RUNNER, root, str(environment.python), *checkouts]
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
    empty: Environment, make_package: Callable[..., Package], heard: Heard, tmp_path: Path
) -> None:
    """Only this program gets the signal, as from another shell; the child ignores it, as some compilers do."""
    flag = tmp_path / "child"
    child = (
        "import os, signal, time; signal.signal(2, signal.SIG_IGN); "
        f"open({str(flag)!r}, 'w').write(f'{{os.getpid()}} '); time.sleep(600)"
    )
    package = make_package("sglang", action=f"import subprocess; subprocess.run([sys.executable, '-c', {child!r}])")
    process = start(empty, package)
    until(lambda: flag.exists() and flag.read_text().endswith(" "))
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate()[0]
    until(lambda: not alive(int(flag.read_text())))
    package = make_package("sglang", "1.0", ["torch"])
    assert errors(install([package], empty, reporter=heard)) == []
    assert_installed(empty, package)


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


def test_two_installations_into_one_environment_wait_for_each_other_and_name_the_other(
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


def test_after_a_kill_the_next_run_waits_for_the_installer_that_is_still_running(
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


@pytest.mark.parametrize(
    ("environment", "lines"), [("uv", 2), ("uv", 5), ("uv", 8), ("pip", 5)], indirect=["environment"]
)
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
