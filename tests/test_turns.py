"""Runs at the same time in one directory, and runs that are interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import time

from tests.conftest import Project
from tests.upstream.faults import Fault
from tests.upstream.host import GitHost

FETCH = r"upload-pack\? fetch"


def stalled(project: Project, host: GitHost) -> tuple[subprocess.Popen[str], Fault]:
    """A run in the middle of a download, and the fault that holds it."""
    fault = host.fault("stall", rf"flashinfer.*{FETCH}", after=300)
    process = project.start("clone")
    assert fault.fired.wait(60)
    return process, fault


def until_it_waits(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return next(line for line in process.stdout if "waiting for" in line)


def test_the_second_run_waits_and_names_the_first_and_status_and_dry_do_not_wait(
    project: Project, host: GitHost
) -> None:
    first, fault = stalled(project, host)
    second = project.start("clone")
    assert f"waiting for process {first.pid} (invoke clone" in until_it_waits(second)
    assert "not cloned" in project.invoke("status").out
    assert "waiting" not in project.invoke("--dry", "clone", "--only=sglang").out
    fault.release.set()
    assert first.wait(120) == 0
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, f"{out}\n{err}"
    assert "already cloned at" in out
    first.communicate()


def test_the_lock_of_a_killed_run_is_free(project: Project, host: GitHost) -> None:
    first, fault = stalled(project, host)
    second = project.start("clone")
    until_it_waits(second)
    os.killpg(first.pid, signal.SIGKILL)
    fault.release.set()  # the git of the first run holds the lock until it has ended
    first.communicate()
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, f"{out}\n{err}"
    assert project.git("flashinfer", "status", "--porcelain", "--ignore-submodules=none") == ""


def test_ctrl_c_five_times_at_once_is_130_without_a_traceback(project: Project, host: GitHost) -> None:
    process, fault = stalled(project, host)
    for _ in range(5):
        os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    fault.release.set()
    assert process.returncode == 130, err
    assert "Traceback" not in err and "Exception" not in err
    assert "Interrupted" in out


def test_a_waiting_run_can_be_interrupted_and_again_until_it_has_ended(project: Project, host: GitHost) -> None:
    first, fault = stalled(project, host)
    second = project.start("clone")
    until_it_waits(second)
    while second.poll() is None:
        os.kill(second.pid, signal.SIGINT)
        time.sleep(0.02)
    _, err = second.communicate(timeout=20)
    assert second.returncode == 130
    assert "Traceback" not in err
    fault.release.set()
    first.communicate(timeout=120)
    assert first.returncode == 0
