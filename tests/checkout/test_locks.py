"""Only what an interrupted run of this tool left is removed; what other programs hold is left to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.sources import Sources
from tests.thing import MODULES, Thing
from tests.upstream.host import GitHost
from tests.upstream.store import Gitlink, Upstream


def died(directory: Path, began: float, ended: float) -> None:
    """Let a run have been killed in the directory, which lived between these times."""
    holder = {"pid": 1, "command": "invoke update", "began": began}
    (directory / ".lock-holder").write_text(json.dumps(holder))
    os.utime(directory / ".lock-holder", (ended, ended))


def age(file: Path, seconds: float) -> Path:
    """A file of that age."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("PACK")
    os.utime(file, (time.time() - seconds,) * 2)
    return file


@pytest.mark.parametrize("name", ["index.lock", "HEAD.lock", "refs/heads/main.lock", "config.lock", "shallow.lock",
                                  "config.worktree.lock", "packed-refs.lock",
                                  "objects/pack/tmp_pack_mine"])  # fmt: skip
@pytest.mark.parametrize(("seconds", "ours"), [(7200, False), (3000, True), (60, False)],
                         ids=["before the killed run", "during it", "after it"])  # fmt: skip
def test_only_files_from_the_time_of_the_killed_run_are_removed(
    seconds: float, ours: bool, name: str, sglang: Sources
) -> None:
    sglang("clone")
    file = age(sglang.path / "sglang/.git" / name, seconds)
    died(sglang.path, time.time() - 3600, time.time() - 2400)
    sglang("update", check=None)
    assert file.exists() != ours
    if not ours:
        assert file.read_text() == "PACK"


def test_a_submodules_repository_whose_creation_was_killed_is_made_again(thing: Thing) -> None:
    """Killed in git-init(1), it has no HEAD yet."""
    age(thing.top / ".git/modules/renamed/config.lock", 3000)
    (thing.top / ".git/modules/renamed/refs").mkdir()
    died(thing.sources.path, time.time() - 3600, time.time() - 2400)
    modules = MODULES.replace('"lib"', '"renamed"').replace("deps/lib", "other/lib")
    lib = Gitlink(thing.upstream.commit("some/lib"))
    thing.upstream.add_commit("some/thing", "main", {".gitmodules": modules, "deps/lib": None, "other/lib": lib})
    thing.sources("update")
    assert thing.sources.head("thing/other/lib") == lib.commit


def test_a_lock_of_another_program_is_left_and_git_s_advice_given(sglang: Sources, upstream: Upstream) -> None:
    """As `git commit` holds it while its editor is open, wherever it was started."""
    sglang("clone")
    upstream.add_commit("sglang")
    command = ["git", f"--git-dir={sglang.path}/sglang/.git", f"--work-tree={sglang.path}/sglang", "-c",
               "user.name=Me", "-c", "user.email=me@example.org", "commit", "--all", "--allow-empty"]  # fmt: skip
    started = sglang.path / "started"
    editor = {"GIT_EDITOR": f"touch {started}; read line; echo Mine >"}
    with subprocess.Popen(command, cwd="/", env={**os.environ, **editor}, stdin=subprocess.PIPE) as user:
        while not started.exists():
            assert user.poll() is None
            time.sleep(0.01)
        result = sglang("update", check=5)
        assert "index.lock" in result.err
        assert user.poll() is None
        user.communicate(b"\n")
    assert user.returncode == 0
    assert sglang.git("sglang", "log", "-1", "--format=%s") == "Mine"


def test_a_lock_in_a_linked_worktree_is_left(sglang: Sources, upstream: Upstream) -> None:
    sglang("clone")
    sglang.git("sglang", "worktree", "add", "-q", "-b", "mine", "../linked")
    lock = age(sglang.path / "sglang/.git/worktrees/linked/index.lock", 3000)
    died(sglang.path, time.time() - 3600, time.time() - 2400)
    new = upstream.add_commit("sglang")
    sglang("update")
    assert lock.exists()
    assert sglang.head("sglang") == new


def test_a_pack_that_a_repack_is_about_to_publish_is_left(sglang: Sources, upstream: Upstream) -> None:
    sglang("clone")
    pack = age(sglang.path / f"sglang/.git/objects/pack/pack-{'0' * 40}.pack", 3000)
    died(sglang.path, time.time() - 3600, time.time() - 2400)
    upstream.add_commit("sglang")
    sglang("update")
    assert pack.read_text() == "PACK"


def test_the_other_checkouts_are_cleaned_up_when_only_one_is_updated(sources: Sources) -> None:
    sources("clone")
    lock = age(sources.path / "flashinfer/.git/index.lock", 3000)
    died(sources.path, time.time() - 3600, time.time() - 2400)
    del sources.repositories["flashinfer"]
    sources("update")
    assert not lock.exists()


@pytest.mark.parametrize("name", [".lock-holder", ".lock"])
def test_nothing_is_written_through_a_symbolic_link(name: str, sglang: Sources, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious\n")
    sglang.path.mkdir()
    (sglang.path / name).symlink_to(precious)
    sglang("clone", check=None)
    assert precious.read_text() == "precious\n"


def test_a_real_run_that_is_killed_with_its_git_leaves_no_lock_to_the_next(project: Project, host: GitHost) -> None:
    project.invoke("clone", "--only=sglang", "--sglang-branch=v0.5.3")
    attributes = project.tmp / "sglang/.git/info/attributes"
    attributes.parent.mkdir(exist_ok=True)
    attributes.write_text("* filter=stop\n")
    stop = project.path / "stopped"
    project.git("sglang", "config", "filter.stop.smudge", f"touch {stop}; sleep 600")
    process = project.start("update", "--only=sglang", "--sglang-branch=main")
    while not stop.exists():
        assert process.poll() is None
        time.sleep(0.01)
    lock = project.tmp / "sglang/.git/index.lock"
    assert lock.exists()
    holders = [int(path.parts[2]) for path in Path("/proc").glob("[0-9]*/cwd")
               if _cwd(path).is_relative_to(project.tmp / "sglang")]  # fmt: skip
    os.killpg(process.pid, signal.SIGKILL)
    for pid in holders:
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    attributes.unlink()
    project.git("sglang", "config", "--remove-section", "filter.stop")
    assert lock.exists()
    result = project.invoke("update", "--only=sglang", "--sglang-branch=main")
    assert "stale" in result.out
    assert project.git("sglang", "status", "--porcelain") == ""


def _cwd(link: Path) -> Path:
    try:
        return link.readlink()
    except OSError:
        return Path("/")


@pytest.mark.parametrize("moment", ["at once", "in a transfer"])
@pytest.mark.parametrize("times", [1, 2, 5])
def test_ctrl_c_is_130_however_often(times: int, moment: str, project: Project, host: GitHost) -> None:
    stalled = host.fault("stall", r"upload-pack\? fetch", after=300)
    process = project.start("clone")
    if moment == "in a transfer":
        assert stalled.fired.wait(60)
    else:
        while not (project.tmp / ".lock").exists():
            assert process.poll() is None
            time.sleep(0.005)
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.02)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err


def test_a_mount_point_in_place_of_a_checkout_is_reported_before_the_download(sglang: Sources, host: GitHost) -> None:
    place = sglang.path / "sglang"
    place.mkdir(parents=True)
    mount = subprocess.run(["mount", "-t", "tmpfs", "none", place], capture_output=True, text=True, check=False)
    if mount.returncode:
        pytest.skip(f"nothing can be mounted here: {mount.stderr.strip()}")
    try:
        result = sglang("clone", check=4)
        assert "mount point" in result.err
        assert host.count(r"upload-pack\? fetch") == 0
    finally:
        subprocess.run(["umount", place], check=True)
