"""After an interruption at any moment, the next run finishes the job without manual steps."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tasks.git import LocalRepository, present_commits
from tasks.models import Network
from tasks.report import Report
from tests.conftest import Project
from tests.reliability.kills import SCENARIOS, World, kill_once
from tests.sources import Sources, work
from tests.upstream.host import GitHost
from tests.upstream.store import Upstream

FETCH = r"upload-pack\? fetch"
FIRST, KILLS = int(os.environ.get("FIRST_KILL", "0")), int(os.environ.get("KILLS", "3"))  # see tests/reliability


def running(project: Project) -> list[psutil.Process]:
    """The processes that live in the project's environment, by their HOME."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("HOME") == project.environ["HOME"] and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def ended(project: Project, within: float = 10) -> bool:
    """Whether no process of the project lives any more, soon."""
    return not psutil.wait_procs(running(project), within)[1] and not running(project)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + KILLS))
def test_a_run_that_is_killed_at_any_moment_is_finished_by_the_next(
    seed: int, project: Project, host: GitHost, upstream: Upstream, record_property: Callable[[str, object], None]
) -> None:
    scenario = list(SCENARIOS)[seed % len(SCENARIOS)]
    record_property("scenario", scenario)
    record_property("killed", kill_once(World(project, host, upstream), scenario, seed))


@pytest.mark.parametrize("to_all", [True, False], ids=["to the group", "to invoke alone"])
def test_ctrl_c_ends_promptly_with_all_children_and_leaves_no_partial_checkout(
    to_all: bool, project: Project, host: GitHost
) -> None:
    stalled = host.fault("stall", r"flashinfer.*upload-pack\? fetch", after=500)
    process = project.start("clone")
    assert stalled.fired.wait(60)
    (os.killpg if to_all else os.kill)(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert "Interrupted" in err
    assert ended(project)
    assert {path.name for path in project.tmp.iterdir()} <= {".lock", "sglang"}
    stalled.release.set()
    project.invoke("clone")


def test_ctrl_c_ends_the_wait_for_the_next_attempt(project: Project, host: GitHost) -> None:
    host.fault("status", "GET", status=503, times=99)
    process = project.start("clone")
    assert process.stderr
    for line in process.stderr:
        if "Attempt 3 of 5" in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_ctrl_c_during_an_update_leaves_the_checkout_as_it_was(project: Project, host: GitHost) -> None:
    project.invoke("clone", "--flashinfer-branch=v0.3.0")
    before = work(project.tmp / "flashinfer")
    stalled = host.fault("stall", rf"nixl.*{FETCH}", after=50)
    process = project.start("update", "--flashinfer-branch=main")
    assert stalled.fired.wait(60)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    after = work(project.tmp / "flashinfer")
    new = r"^\.git/modules/3rdparty/(cccl|nixl)"  # repositories of submodules that nothing refers to yet
    assert {path: file for path, file in after.items() if not re.search(new, path)} == before


def test_git_processes_of_a_killed_run_do_not_disturb_the_next(
    project: Project, host: GitHost, upstream: Upstream
) -> None:
    stalled = [host.fault("stall", rf"{name}.*{FETCH}", after=300) for name in ("sglang", "cutlass")]
    process = project.start("clone")
    assert all(each.fired.wait(60) for each in stalled)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert running(project), "its children live on"
    host.faults.clear()
    project.invoke("clone")
    for each in stalled:
        each.release.set()
    assert ended(project)
    for name in ("sglang", "flashinfer"):
        assert project.git(name, "rev-parse", "HEAD") == upstream.commit(name)
        assert project.git(name, "status", "--porcelain") == ""
        project.git(name, "fsck", "--connectivity-only")


STALE = ("index.lock", "HEAD.lock", "config.lock", "shallow.lock", "packed-refs.lock", "refs/heads/main.lock",
         "objects/pack/tmp_pack_left")  # fmt: skip


@pytest.mark.parametrize("where", [".git", ".git/modules/3rdparty/cutlass"])
def test_stale_locks_of_a_killed_run_are_removed(where: str, flashinfer: Sources, upstream: Upstream) -> None:
    flashinfer("clone", flashinfer="v0.6.7.post3")
    git_dir = flashinfer.path / "flashinfer" / where
    killed = {"pid": 1, "command": "invoke update", "began": time.time()}
    (flashinfer.path / ".lock-holder").write_text(json.dumps(killed))
    for stale in STALE:
        (git_dir / stale).parent.mkdir(parents=True, exist_ok=True)
        (git_dir / stale).write_text("PACK")
    flashinfer("update", flashinfer="main")
    assert flashinfer.head("flashinfer") == upstream.commit("flashinfer")
    assert not [stale for stale in STALE if (git_dir / stale).exists()]
    assert not (flashinfer.path / ".lock-holder").exists()


def test_a_pack_without_an_index_hides_no_other(sglang: Sources) -> None:
    sglang("clone")
    git_dir = sglang.path / "sglang/.git"
    (git_dir / f"objects/pack/pack-{'0' * 40}.pack").write_text("PACK")
    head = sglang.head("sglang")
    local = LocalRepository(git_dir.parent, git_dir, "sglang", "", Network(1, 1, Report()))
    assert set(present_commits(local, [head, "0" * 40])) == {head}


def test_a_lock_of_another_git_process_is_respected(sglang: Sources, upstream: Upstream) -> None:
    sglang("clone", sglang="v0.5.3")
    lock = sglang.path / "sglang/.git/index.lock"
    lock.touch()
    result = sglang("update", check=5, sglang="main")
    assert f"git is locked by {lock}" in result.err
    assert lock.exists()
    assert sglang.head("sglang") == upstream.commit("sglang", "v0.5.3")
    lock.unlink()
    sglang("update", sglang="main")


def interrupted(sources: Sources, repository: str, moving: str) -> None:
    """Let an update to the commit be interrupted before it wrote a file: it begins when all objects are here."""
    sources.git(repository, "fetch", "-q", "origin", moving)
    sources.git(repository, "archive", f"--output={os.devnull}", moving)
    file = sources.path / repository / ".git/sources.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "moving": moving}))


def test_an_interrupted_update_is_finished_though_the_remote_has_moved_on(sglang: Sources, upstream: Upstream) -> None:
    sglang("clone")
    first = upstream.add_commit("sglang", "main", {"first.txt": "first\n", "README.md": "first\n"})
    interrupted(sglang, "sglang", first)
    for name in ("first.txt", "README.md"):  # written when the update was interrupted
        (sglang.path / "sglang" / name).write_text("first\n")
    second = upstream.force_push("sglang", "main", {"second.txt": "second\n"})
    sglang("update")
    assert sglang.head("sglang") == second
    assert sglang.git("sglang", "status", "--porcelain") == ""
    assert not (sglang.path / "sglang/first.txt").exists()


def test_a_file_that_was_edited_after_an_interruption_is_kept(sglang: Sources, upstream: Upstream) -> None:
    sglang("clone")
    first = upstream.add_commit("sglang", "main", {"README.md": "first\n"})
    interrupted(sglang, "sglang", first)
    (sglang.path / "sglang/README.md").write_text("mine\n")
    result = sglang("update", check=5)
    assert (sglang.path / "sglang/README.md").read_text() == "mine\n"
    sglang.fix(result)
    sglang("update")
    assert (sglang.path / "sglang/README.md.mine").read_text() == "mine\n"


def test_the_end_of_a_shallow_history_is_marked_though_git_was_killed_before_it_did(
    sglang: Sources, upstream: Upstream
) -> None:
    sglang("clone", sglang="v0.5.3")
    sglang("update", sglang="main")
    new = upstream.commit("sglang")
    sglang("update", sglang="v0.5.3")
    for ref in ("refs/heads/main", "refs/remotes/origin/main"):  # which come later
        sglang.git("sglang", "update-ref", "-d", ref)
    shallow = sglang.path / "sglang/.git/shallow"
    shallow.write_text("".join(f"{oid}\n" for oid in shallow.read_text().split() if oid != new))
    sglang("update", sglang="main")
    assert sglang.git("sglang", "log", "--oneline").count("\n") == 0
    sglang.git("sglang", "fsck", "--connectivity-only")


@pytest.mark.parametrize(
    "broken",
    [
        lambda git_dir: (git_dir / "config").write_text("[core]\n\tbare = true\n"),
        lambda git_dir: (git_dir / "HEAD").unlink(),
        lambda git_dir: (git_dir / "config").unlink(),
    ],
    ids=["without remote", "without HEAD", "without config"],
)
def test_a_half_made_repository_of_a_submodule_is_completed(
    broken: Callable[[Path], object], flashinfer: Sources, upstream: Upstream
) -> None:
    flashinfer("clone", flashinfer="v0.6.7.post3")
    git_dir = flashinfer.path / "flashinfer/.git/modules/3rdparty/cccl"
    git_dir.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["git", "init", "-q", "--bare", "--template=", git_dir], check=True)
    broken(git_dir)
    flashinfer("update", flashinfer="main")
    assert flashinfer.git("flashinfer/3rdparty/cccl", "status", "--porcelain") == ""
    assert "cccl" in flashinfer.git("flashinfer/3rdparty/cccl", "config", "remote.origin.url")
    assert flashinfer.git("flashinfer", "status", "--porcelain") == ""


def test_no_process_is_left_running(project: Project) -> None:
    process = project.start("clone")
    process.communicate(timeout=120)
    assert running(project) == []
