"""Runs at the same time in one directory, and a run that is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess

from tests.conftest import Project
from tests.upstream.faults import Fault
from tests.upstream.host import GitHost


def stalled(project: Project, host: GitHost) -> tuple[subprocess.Popen[str], Fault]:
    """A run in the middle of a download, and the fault that holds it."""
    fault = host.fault("stall", r"flashinfer.*upload-pack\? fetch", after=300)
    process = project.start("clone")
    assert fault.fired.wait(60)
    return process, fault


def test_the_second_run_waits_and_names_the_first_and_status_and_dry_do_not_wait(
    project: Project, host: GitHost
) -> None:
    first, fault = stalled(project, host)
    second = project.start("clone")
    assert second.stdout
    waiting = next(line for line in second.stdout if "waiting for" in line)
    assert f"waiting for process {first.pid} (invoke clone" in waiting
    assert "not cloned" in project.invoke("status").out
    assert "waiting" not in project.invoke("--dry", "clone", "--only=sglang").out
    fault.release.set()
    assert first.wait(120) == 0
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, f"{out}\n{err}"
    assert "already cloned at" in out
    first.communicate()


def test_ctrl_c_five_times_at_once_is_130_without_a_traceback(project: Project, host: GitHost) -> None:
    process, fault = stalled(project, host)
    for _ in range(5):
        os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    fault.release.set()
    assert process.returncode == 130, err
    assert "Traceback" not in err and "Exception" not in err
    assert "Interrupted" in err
