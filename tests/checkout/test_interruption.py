"""After an interruption at any moment the next run finishes the job without manual steps, and what it finds is kept:
an interrupted switch is finished after working tree and index were kept below refs/rescue/ as they were found."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress

import psutil
import pytest

from tests.checkout.test_local_work import EVERY, settle
from tests.conftest import Project
from tests.reliability.actions import Acts, act, names
from tests.sources import Result, Sources, exhaustive, sound, work
from tests.thing import LIB, MODULES, NEW, PRECIOUS, TOP, Thing
from tests.upstream.host import GitHost
from tests.upstream.store import Upstream

FETCH = r"upload-pack\? fetch"


def shown(thing: Thing, result: Result) -> str:
    """What the commands print that the run names."""
    commands = re.findall(r"git -C \S+ (?:show|log)[^\n]*?refs/rescue/[^\s),.]+", result.out + result.err)
    assert commands
    return "".join(
        subprocess.run(["sh", "-c", command], cwd=thing.sources.path, capture_output=True, text=True, check=True).stdout
        for command in dict.fromkeys(commands)
    )


@pytest.mark.parametrize("place", [TOP, LIB])
def test_edits_after_an_interruption_are_kept_and_the_switch_finished(place: str, thing: Thing) -> None:
    new = thing.interrupt(place)
    for name in ("a.txt", "kept.txt"):
        thing.write(place, name)
    thing.write(place, "staged.txt", "precious and staged\n")
    thing.git(place, "add", "staged.txt")
    (thing.sources.path / place / "staged.txt").unlink()
    result = thing.sources("update")
    assert thing.sources.head(TOP) == new
    sound(thing.sources, TOP)
    assert thing.git(place, "for-each-ref", "refs/rescue")
    text = shown(thing, result)
    assert PRECIOUS in text and "precious and staged" in text
    again = thing.sources("update")
    assert "refs/rescue" not in again.out + again.err, "named once"
    assert "up to date" in again.out


CASES: list[tuple[str, Acts]] = [
    (TOP, (("stash", "kept.txt"), ("to a directory", "a.txt"), ("edit", "new.log"))),
    (TOP, (("detach", ""), ("commit", "a.txt"), ("assume unchanged", "gone.txt"))),
    (TOP, (("intend", "mine.log"),)),
]


@pytest.mark.parametrize(("place", "acts"), CASES + exhaustive(EVERY), ids=names)
def test_what_is_done_after_an_interruption_is_kept(place: str, acts: Acts, thing: Thing) -> None:
    settle(place, acts, thing, thing.interrupt(place))


def test_an_interrupted_update_is_finished_though_the_remote_has_moved_on_and_a_repository_of_the_users_is_kept(
    thing: Thing, host: GitHost
) -> None:
    thing.interrupt()
    act(thing, TOP, (("to a repository", "a.txt"),))
    result = thing.sources("update", check=5)
    assert thing.has() and (thing.top / "a.txt/.git").is_dir() and "a.txt" in result.err
    shutil.rmtree(thing.top / "a.txt")
    new = thing.upstream.force_push("some/thing", "main", {"second.txt": "second\n"})
    host.fault("hook", FETCH, call=lambda: thing.write(TOP, "a.txt"))
    thing.sources("update", check=5)
    assert thing.has(), "an edit while the next update downloads"
    thing.put_away(TOP)
    thing.sources("update")
    assert thing.sources.head(TOP) == new
    sound(thing.sources, TOP)


def test_new_files_that_git_wrote_before_the_interruption_are_no_obstacle(thing: Thing) -> None:
    new = thing.interrupt()
    thing.write(TOP, "folder/new.txt", NEW["folder/new.txt"] or "")
    thing.sources("update")
    assert thing.sources.head(TOP) == new
    sound(thing.sources, TOP)


@pytest.mark.parametrize("place", [TOP, *exhaustive([(LIB,)])])
def test_a_git_that_is_killed_in_a_switch_is_said_to_be_and_leaves_no_lock(place: str, thing: Thing) -> None:
    """As by a machine without memory: git alone; the run goes on, and ends as any other that failed."""
    result = thing.kill_a_switch(place, "new.txt")
    assert re.search("SIGKILL|signal 9|killed", result.err, re.I)
    thing.sources("update")
    assert thing.sources.head(TOP) == thing.upstream.commit("some/thing")
    sound(thing.sources, TOP)


def test_a_lock_of_another_git_process_is_left(thing: Thing) -> None:
    """As `git commit` holds it while its editor is open, wherever it was started."""
    thing.move_on()
    started = thing.sources.path / "started"
    command = ["git", f"--git-dir={thing.top}/.git", f"--work-tree={thing.top}", "-c", "user.name=Me", "-c",
               "user.email=me@example.org", "commit", "--all", "--allow-empty"]  # fmt: skip
    editor = {"GIT_EDITOR": f"touch {started}; read line; echo Mine >"}
    with subprocess.Popen(command, cwd="/", env={**os.environ, **editor}, stdin=subprocess.PIPE) as user:
        while not started.exists():
            assert user.poll() is None
            time.sleep(0.01)
        assert "index.lock" in thing.sources("update", check=5).err
        assert user.poll() is None
        user.communicate(b"\n")
    assert user.returncode == 0
    assert thing.git(TOP, "log", "-1", "--format=%s") == "Mine"


def running(project: Project) -> list[psutil.Process]:
    """The processes that live in the project's environment, by their HOME."""
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("HOME") == project.environ["HOME"] and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
    return processes


def test_ctrl_c_ends_a_run_promptly_with_all_children_and_leaves_what_was_there(
    project: Project, host: GitHost
) -> None:
    def interrupt(*command: str) -> None:
        process = project.start(*command, "--only=flashinfer")
        assert stalled.fired.wait(60)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 130
        assert "Traceback" not in out + err and "Interrupted" in err
        assert not psutil.wait_procs(running(project), 10)[1]
        stalled.release.set()

    stalled = host.fault("stall", rf"flashinfer.*{FETCH}", after=500)
    interrupt("clone", "--flashinfer-branch=v0.3.0")
    assert not (project.tmp / "flashinfer").exists()
    project.invoke("clone", "--only=flashinfer", "--flashinfer-branch=v0.3.0")
    before = work(project.tmp / "flashinfer")
    stalled = host.fault("stall", rf"cccl.*{FETCH}", after=50)
    interrupt("update", "--flashinfer-branch=main")
    assert work(project.tmp / "flashinfer") == before


def test_ctrl_c_ends_the_wait_for_the_next_attempt(project: Project, host: GitHost) -> None:
    host.fault("status", "GET", status=503, times=99)
    process = project.start("clone", "--only=sglang")
    assert process.stderr
    for line in process.stderr:
        if "attempt 2 of 5" in line.lower():
            break
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130 and "Traceback" not in err


def test_git_processes_of_a_killed_run_do_not_disturb_the_next(
    project: Project, host: GitHost, upstream: Upstream
) -> None:
    stalled = host.fault("stall", rf"cutlass.*{FETCH}", after=300)
    process = project.start("clone", "--only=flashinfer")
    assert stalled.fired.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    host.faults.clear()
    project.invoke("clone", "--only=flashinfer")
    stalled.release.set()
    assert not psutil.wait_procs(running(project), 10)[1]
    assert project.git("flashinfer", "rev-parse", "HEAD") == upstream.commit("flashinfer")
    sound(project, "flashinfer")


def test_empty_directories_of_a_submodule_that_went_before_the_interruption_are_no_obstacle(nested: Thing) -> None:
    nested.upstream.add_commit("some/thing", "main", {".gitmodules": MODULES, "deps/outer": None})
    new = nested.interrupt()
    assert not (nested.top / "deps/outer").exists()
    (nested.top / "deps/outer/inner/empty").mkdir(parents=True)
    nested.sources("update")
    assert nested.sources.head("thing") == new
    assert not (nested.top / "deps/outer").exists()


def test_files_that_git_wrote_in_the_place_of_a_submodule_before_the_interruption_are_no_obstacle(
    nested: Thing,
) -> None:
    nested.upstream.add_commit("some/thing", "main", {".gitmodules": MODULES, "deps/outer": None})
    nested.upstream.add_commit("some/thing", "main", {"deps/outer/a.txt": "vendored\n"})
    new = nested.interrupt()
    assert (nested.top / "deps/outer/a.txt").is_file()
    nested.sources("update")
    assert nested.sources.head("thing") == new
    sound(nested.sources, TOP)


def test_a_git_that_is_killed_in_a_fetch_is_said_to_be(sglang: Sources, host: GitHost, upstream: Upstream) -> None:
    sglang("clone")
    new = upstream.add_commit("sglang", "main", {"large": os.urandom(100_000)})

    def kill() -> None:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if "fetch" in process.cmdline() and "git" in process.name():
                    process.send_signal(signal.SIGKILL)

    host.fault("hook", FETCH, after=1000, call=kill, times=9)
    result = sglang("update", check=None)
    assert result.status
    assert re.search("SIGKILL|signal 9", result.err)
    assert "check the url" not in result.err.lower() and "without a message" not in result.err
    host.reset()
    sglang("update")
    assert sglang.head("sglang") == new
