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

from tasks.packages.package import Package
from tests.packages.conftest import Place, put

Make = Callable[..., Package]
RUNNER = """
import sys
from pathlib import Path
from tasks.packages import probe
from tests.packages.conftest import Place, package_at

place = Place(probe(sys.argv[1]))
place.heard.event = lambda *words: print(*words, flush=True)
place.install(*[package_at(Path(path), Path(path).name) for path in sys.argv[2:]])
"""


def start(place: Place, *packages: Package) -> subprocess.Popen[str]:
    """Begin an installation in a process of its own, which leads a process group and prints what goes on."""
    paths = [str(package.checkout.path) for package in packages]
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(place.environment.python), *paths], cwd=root, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip


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


def test_what_an_interrupted_installation_left_is_no_obstacle(place: Place, make_package: Make) -> None:
    both = make_package("sglang", "2.0", ["torch"]), make_package("flashinfer-python", "0.6.18")
    place.uv("install", "torch", "packaging", "flashinfer-python==0.3.0")
    site = place.environment.purelib
    next(site.glob("torch-*/RECORD")).unlink()
    next(site.glob("packaging-*/METADATA")).unlink()
    next(site.glob("flashinfer_python-*/METADATA")).unlink()
    put(place.environment, "another", "1", direct_url_json="")
    for version in ("1.0", "1.1"):
        info = f"sglang-{version}.dist-info"
        put(place.environment, "sglang", version, RECORD=f"{info}/METADATA,,\n{info}/RECORD,,\n")
    place.install(*both)
    place.assert_installed(*both)
    assert (site / f"torch-{place.version('torch')}.dist-info/RECORD").exists()
    assert len(list(site.glob("sglang-*.dist-info"))) == 1
    assert len(place.heard.warnings) == 3  # what was removed


def test_ctrl_c_ends_uv_and_the_next_run_completes(place: Place, make_package: Make) -> None:
    """The process group gets the signal, as from a terminal."""
    flag = place.path / "child"
    action = f"import os, time; pathlib.Path({str(flag)!r}).write_text(f'{{os.getpid()}} '); time.sleep(600)"
    process = start(place, make_package("sglang", action=action.replace("{{", "{").replace("}}", "}")))
    until(lambda: flag.exists() and flag.read_text().endswith(" "))
    os.killpg(process.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate()[0]
    until(lambda: not alive(int(flag.read_text())))
    package = make_package("sglang", "1.0", ["torch"])
    place.install(package)
    place.assert_installed(package)


def test_an_installation_waits_for_another(place: Place, make_package: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go, events = place.path / "begun", place.path / "go", list[str]()
    action = f"import time; pathlib.Path({str(begun)!r}).touch()\n"
    action += f"    while not pathlib.Path({str(go)!r}).exists(): time.sleep(.01)"
    first = make_package("sglang", action=action, folder=place.path / "elsewhere/sglang")
    process = start(place, first)
    until(lambda: begun.exists() or process.poll() is not None)

    def event(who: str, message: str) -> None:
        events.append(message)
        go.touch()

    monkeypatch.setattr(place.heard, "event", event)
    second = make_package("flashinfer-python", "0.6.18")
    place.install(second)
    assert events[0].startswith(f"waiting for process {process.pid} (invoke ")
    assert str(place.environment.prefix) in events[0]
    process.communicate()
    place.assert_installed(first, second)


def test_after_a_kill_the_next_run_completes(place: Place, make_package: Make) -> None:
    """The whole process group gets SIGKILL, a moment after uv was started."""
    place.uv("install", "flashinfer-python==0.3.0")
    both = make_package("sglang", "1.0", ["torch"]), make_package("flashinfer-python", "0.6.18")
    process = start(place, *both)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    place.install(*both)
    place.assert_installed(*both)
    assert place.version("torch") == "2.9.1"
