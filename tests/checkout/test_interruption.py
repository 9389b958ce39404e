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
from pathlib import Path

import psutil
import pytest

from tests.checkout.test_clone import sound
from tests.checkout.test_local_work import Acts, act, names
from tests.conftest import Project
from tests.reliability import actions
from tests.reliability.kills import SCENARIOS, World, kill_once
from tests.sources import COMING, Result, Sources, exhaustive, work
from tests.thing import PRECIOUS, Thing
from tests.upstream.host import GitHost
from tests.upstream.store import Gitlink, Upstream

FETCH = r"upload-pack\? fetch"
FIRST, KILLS = int(os.environ.get("FIRST_KILL", "1")), int(os.environ.get("KILLS", "1"))  # see tests/reliability


def rescued(thing: Thing, place: str) -> list[str]:
    return thing.git(place, "for-each-ref", "--format=%(refname)", "refs/rescue").split()


def shown(thing: Thing, result: Result) -> str:
    """What the commands print that the run names."""
    commands = re.findall(r"git -C \S+ (?:show|log)[^\n]*?refs/rescue/[^\s),.]+", result.out + result.err)
    assert commands
    return "".join(
        subprocess.run(["sh", "-c", command], cwd=thing.sources.path, capture_output=True, text=True, check=True).stdout
        for command in dict.fromkeys(commands)
    )


@pytest.mark.parametrize("seed", range(FIRST, FIRST + KILLS))
def test_a_run_that_is_killed_at_any_moment_is_finished_by_the_next(
    seed: int, project: Project, host: GitHost, upstream: Upstream
) -> None:
    scenario = list(SCENARIOS)[seed % len(SCENARIOS)]
    print(kill_once(World(project, host, upstream), scenario, seed))


@pytest.mark.parametrize("place", ["thing", "thing/deps/lib"])
def test_edits_after_an_interruption_are_kept_and_the_switch_finished(place: str, thing: Thing) -> None:
    new = thing.interrupt(place)
    for name in ("a.txt", "kept.txt"):
        thing.write(place, name)
    thing.write(place, "staged.txt", "precious and staged\n")
    thing.git(place, "add", "staged.txt")
    (thing.sources.path / place / "staged.txt").unlink()
    result = thing.sources("update")
    assert thing.sources.head("thing") == new
    sound(thing.sources, "thing")
    assert rescued(thing, place)
    text = shown(thing, result)
    assert PRECIOUS in text and "precious and staged" in text
    again = thing.sources("update")
    assert "refs/rescue" not in again.out + again.err, "named once"
    assert "up to date" in again.out


CASES: list[tuple[str, str, Acts]] = [
    ("thing", "new.txt", ((actions.to_folder, "a.txt"), (actions.stash, "kept.txt"))),
    ("thing", "new.txt", ((actions.skip_worktree, "a.txt"), (actions.assume_unchanged, "gone.txt"))),
    ("thing", "new.txt", ((actions.edit, "new.log"),)),  # ignored, and the next commit has it
    ("thing", "new.txt", ((actions.detach, ""), (actions.commit, "a.txt"))),
    ("thing/deps/lib", "new.txt", ((actions.stage_and_remove, "mine.txt"), (actions.edit, "gone.txt"))),
]
EVERY = [(place, "new.txt", ((action, name),)) for place in ("thing", "thing/deps/lib") for action in actions.ACTIONS
         for name in actions.NAMES]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "at", "acts"),
    CASES + exhaustive(EVERY),
    ids=names,
)
def test_what_is_done_after_an_interruption_is_kept(place: str, at: str, acts: Acts, thing: Thing) -> None:
    new = thing.interrupt(place, at)
    act(thing, place, acts)
    had, known = thing.has(), {where: thing.own(where) for where in {"thing", place}}
    result = thing.sources("update", check=None)
    assert result.status in (0, 5), result.err
    assert thing.has() == had, "lost"
    if result.status:
        thing.put_away(place)
        thing.sources("update")
        assert thing.has() == had, "lost in the end"
    assert all(commits <= thing.own(where) for where, commits in known.items()), "a commit was left without a ref"
    if thing.git("thing", "branch", "--show-current") in ("main", ""):
        assert thing.sources.head("thing") == new
        assert thing.git("thing", "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty") == ""


def test_a_repository_of_the_users_that_appears_after_an_interruption_is_kept(thing: Thing) -> None:
    thing.interrupt()
    act(thing, "thing", ((actions.to_repository, "new.txt"),))
    result = thing.sources("update", check=5)
    assert thing.has() and (thing.top / "new.txt/.git").is_dir() and "new.txt" in result.err
    shutil.move(thing.top / "new.txt", thing.sources.path / "away")
    thing.sources("update")
    sound(thing.sources, "thing")


def test_an_interrupted_update_is_finished_though_the_remote_has_moved_on(thing: Thing, host: GitHost) -> None:
    thing.interrupt()
    new = thing.upstream.force_push("some/thing", "main", {"second.txt": "second\n"})
    host.fault("hook", FETCH, call=lambda: thing.write("thing", "a.txt"))
    thing.sources("update", check=5)
    assert thing.has(), "an edit while the next update downloads"
    thing.put_away("thing")
    thing.sources("update")
    assert thing.sources.head("thing") == new
    sound(thing.sources, "thing")


def test_a_clone_that_is_continued_has_the_files_that_are_named_like_locks(thing: Thing) -> None:
    lib = Gitlink(thing.upstream.add_commit("some/lib", "main", {"Cargo.lock": "locked\n"}))
    thing.upstream.add_commit("some/thing", "main", {"deps/lib": lib, "Cargo.lock": "locked\n"})
    thing.sources("update")
    thing.top.rename(thing.top.with_name(".thing.partial"))  # as if killed just before the end
    thing.sources("clone")
    assert (thing.top / "deps/lib/Cargo.lock").exists()
    sound(thing.sources, "thing")


@pytest.mark.parametrize("place", ["thing", *exhaustive([("thing/deps/lib",)])])
def test_a_git_that_is_killed_in_a_switch_leaves_no_lock(place: str, thing: Thing) -> None:
    """As by a machine without memory: git alone; the run goes on, and ends as any other that failed."""
    new = thing.move_on()
    git_dir = thing.git_dir(place)
    (git_dir / "info").mkdir(exist_ok=True)
    (git_dir / "info/attributes").write_text("new.txt filter=stop\n")
    thing.git(place, "config", "filter.stop.smudge", "head -c 2; kill -KILL 0")
    result = thing.sources("update", check=None)
    assert result.status
    assert re.search("SIGKILL|signal 9|killed", result.err, re.I)
    thing.git(place, "config", "--remove-section", "filter.stop")
    thing.sources("update")
    assert thing.sources.head("thing") == new
    sound(thing.sources, "thing")


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


def test_a_lock_of_another_git_process_is_left(sglang: Sources, upstream: Upstream) -> None:
    """As `git commit` holds it while its editor is open, wherever it was started."""
    sglang("clone")
    upstream.add_commit("sglang")
    started = sglang.path / "started"
    command = ["git", f"--git-dir={sglang.path}/sglang/.git", f"--work-tree={sglang.path}/sglang", "-c",
               "user.name=Me", "-c", "user.email=me@example.org", "commit", "--all", "--allow-empty"]  # fmt: skip
    editor = {"GIT_EDITOR": f"touch {started}; read line; echo Mine >"}
    with subprocess.Popen(command, cwd="/", env={**os.environ, **editor}, stdin=subprocess.PIPE) as user:
        while not started.exists():
            assert user.poll() is None
            time.sleep(0.01)
        assert "index.lock" in sglang("update", check=5).err
        assert user.poll() is None
        user.communicate(b"\n")
    assert user.returncode == 0
    assert sglang.git("sglang", "log", "-1", "--format=%s") == "Mine"


def test_nothing_is_written_through_a_symbolic_link(sglang: Sources) -> None:
    precious = sglang.path.with_name("precious")
    precious.write_text(PRECIOUS)
    sglang.path.mkdir()
    (sglang.path / ".lock").symlink_to(precious)
    sglang("clone", check=None)
    assert precious.read_text() == PRECIOUS


def running(project: Project) -> list[psutil.Process]:
    """The processes that live in the project's environment, by their HOME."""
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("HOME") == project.environ["HOME"] and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
    return processes


@pytest.mark.parametrize(("times", "to_all"), [(1, True), *exhaustive([(1, False), (5, True)])])
def test_ctrl_c_ends_a_clone_promptly_with_all_children(
    times: int, to_all: bool, project: Project, host: GitHost
) -> None:
    stalled = host.fault("stall", rf"flashinfer.*{FETCH}", after=500)
    process = project.start("clone")
    assert stalled.fired.wait(60)
    for _ in range(times):
        (os.killpg if to_all else os.kill)(process.pid, signal.SIGINT)
        time.sleep(0.02)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in out + err and "Interrupted" in err
    assert not psutil.wait_procs(running(project), 10)[1]
    assert not (project.tmp / "flashinfer").exists()
    stalled.release.set()
    project.invoke("clone")


def test_ctrl_c_ends_the_wait_for_the_next_attempt(project: Project, host: GitHost) -> None:
    host.fault("status", "GET", status=503, times=99)
    process = project.start("clone")
    assert process.stderr
    for line in process.stderr:
        if "attempt 2 of 5" in line.lower():
            break
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130 and "Traceback" not in err


def test_ctrl_c_during_a_download_leaves_the_checkout_as_it_was(project: Project, host: GitHost) -> None:
    project.invoke("clone", "--only=flashinfer", "--flashinfer-branch=v0.3.0")
    before = work(project.tmp / "flashinfer", COMING)
    stalled = host.fault("stall", rf"cccl.*{FETCH}", after=50)
    process = project.start("update", "--only=flashinfer", "--flashinfer-branch=main")
    assert stalled.fired.wait(60)
    thread = max(int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir())  # any may get a signal
    os.kill(thread, signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert work(project.tmp / "flashinfer", COMING) == before


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
    assert project.git("flashinfer", "status", "--porcelain") == ""
    project.git("flashinfer", "fsck", "--connectivity-only")
