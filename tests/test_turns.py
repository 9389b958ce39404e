"""Two runs at once: in one directory one waits for the other, in two they share the cache."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.conftest import Environment, Project
from tests.upstream.faults import Fault
from tests.upstream.host import GitHost
from tests.upstream.store import Upstream

FETCH = r"upload-pack\? fetch"


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """What the process prints, until it names the run that it waits for."""
    assert process.stdout
    for line in process.stdout:
        yield line
        if "waiting for" in line:
            return


Both = tuple["subprocess.Popen[str]", Fault, "subprocess.Popen[str]"]


def both(project: Project, host: GitHost) -> Both:
    """Two runs in one directory: the first in the middle of a download, the second waiting for it."""
    stalled = host.fault("stall", rf"flashinfer.*{FETCH}", after=300)
    first = project.start("clone")
    assert stalled.fired.wait(60)
    second = project.start("clone")
    *_, last = lines(second)
    assert f"waiting for process {first.pid} (invoke clone" in last
    return first, stalled, second


def sound(project: Project, upstream: Upstream) -> None:
    for name in ("sglang", "flashinfer"):
        assert project.git(name, "rev-parse", "HEAD") == upstream.commit(name)
        assert project.git(name, "status", "--porcelain", "--ignore-submodules=none") == ""
        project.git(name, "fsck", "--connectivity-only")


def test_the_second_run_in_one_directory_waits_and_names_the_first(
    project: Project, host: GitHost, upstream: Upstream
) -> None:
    first, stalled, second = both(project, host)
    stalled.release.set()
    told = {process: process.communicate(timeout=120) for process in (first, second)}
    assert [first.returncode, second.returncode] == [0, 0], told
    assert "already cloned at" in told[second][0]
    sound(project, upstream)
    assert not (project.tmp / ".lock-holder").exists()


def test_the_lock_of_a_killed_run_is_free(project: Project, host: GitHost, upstream: Upstream) -> None:
    first, _, second = both(project, host)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, f"{out}\n{err}"
    sound(project, upstream)


def test_a_waiting_run_can_be_interrupted(project: Project, host: GitHost) -> None:
    first, stalled, second = both(project, host)
    os.killpg(second.pid, signal.SIGINT)
    _, err = second.communicate(timeout=20)
    assert second.returncode == 130
    assert "Traceback" not in err
    stalled.release.set()
    first.communicate(timeout=120)
    assert first.returncode == 0


def test_two_directories_share_one_cache_at_the_same_time(
    make_project: Callable[..., Project], make_environment: Callable[..., Environment],
    host: GitHost, upstream: Upstream, tmp_path: Path,
) -> None:  # fmt: skip
    environment = make_environment()
    projects = [make_project(name, environment) for name in ("one", "two")]
    together = threading.Barrier(2)
    for nth in (1, 2):
        host.fault("hook", rf"flashinfer.*{FETCH}", nth=nth, call=lambda: together.wait(60))
    running = [project.start("clone") for project in projects]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, f"{out}\n{err}"
    for project in projects:
        sound(project, upstream)
    host.reset()
    third = make_project("three", environment)
    third.invoke("clone")
    sound(third, upstream)
    assert host.count(FETCH) == 0
    assert not [path for path in tmp_path.rglob("*.new") if path.is_file()]
