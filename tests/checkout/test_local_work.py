"""Local work is never lost: what an update could lose stays as it is, byte for byte, and what is not in the way stays
beside it. Acts that stop an update and acts that do not are one list, so that a version which always refuses fails."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.reliability import actions
from tests.reliability.actions import Acts, act, names
from tests.sources import Sources, exhaustive, fingerprint, url, work
from tests.thing import LIB, MODULES, PRECIOUS, TOP, Thing, section
from tests.upstream.host import GitHost
from tests.upstream.store import Gitlink, Upstream

DIVERGED: Acts = (("commit on a branch", "a.txt"), ("step back", ""), ("commit", "a.txt"))
HARMLESS: Acts = (
    ("stash", "a.txt"), ("touch", "a.txt"), ("edit", "mine.txt"), ("edit", "folder/mine.txt"),
    ("edit", "mine.log"), ("to a repository", "mine"),
)  # fmt: skip
# (place, acts, whether the update is refused)
CASES: list[tuple[str, Acts, bool]] = [
    (TOP, HARMLESS, False),
    (TOP, (("detach", ""), ("commit", "mine.txt"), ("tag", "")), False),
    (TOP, (("edit", "kept.txt"),), True),  # git would carry it along
    (TOP, (("edit", "new.log"),), True),  # ignored
    (TOP, (("sparse", "deep"), ("edit", "new.txt")), True),  # git overwrites it then
    (TOP, (("stage and put back", "a.txt"),), True),
    (TOP, (("to a repository", "new.txt"),), True),
    (TOP, (("assume unchanged", "gone.txt"),), True),
    (TOP, (("commit", "mine.txt"),), True),
    (TOP, (("detach", ""), ("commit", "mine.txt")), True),
    (TOP, (("detach", ""), ("link a worktree", "")), True),  # the linked worktree has main
    (TOP, (("bisect", ""),), True),
    (LIB, HARMLESS, False),
    (LIB, (("stage", "kept.txt"),), True),
    (LIB, (("commit", "mine.txt"),), True),
]
MORE: list[tuple[str, Acts, bool]] = [
    (TOP, (("sparse", "deep"),), False),
    (TOP, (("sparse", "deep"), ("edit", "folder")), True),
    (TOP, (("commit on a branch", "mine.txt"), ("back to main", "")), False),
    (TOP, (("link a detached worktree", ""),), False),
    (TOP, (*DIVERGED, ("merge", "")), True),
    (TOP, (*DIVERGED, ("rebase", "")), True),
    (LIB, (("commit on a branch", "mine.txt"), ("detach", "")), False),
    (LIB, (*DIVERGED, ("cherry-pick", "")), True),
]
SINGLE = [action for action in actions.ACTIONS if action != "own clone"]  # which test_submodules has
EVERY = [(place, ((action, name),)) for place in (TOP, LIB) for action in SINGLE for name in actions.NAMES]


def settle(place: str, acts: Acts, thing: Thing, interrupted: str = "") -> bool:
    """Update, let the user put away what is in the way, update again; where an update was `interrupted`, to the commit
    that it led to. Returns whether the first was refused."""
    act(thing, place, acts)
    before, had = work(thing.sources.path), thing.has()
    known = {where: thing.own(where) for where in {TOP, place}}
    new = interrupted or thing.move_on()
    result = thing.sources("update", check=None)
    assert result.status in (0, 5) and result.text
    assert thing.has() == had, "lost"
    if result.status:
        assert interrupted or work(thing.sources.path) == before, "nothing changes where an update is refused"
        assert str(thing.sources.path) in result.err
        thing.put_away(place)
        if ("link a worktree", "") in acts:
            thing.git("linked", "switch", "-q", "--detach")
        assert thing.sources("update", check=None).status == 0
        assert thing.has() == had, "lost in the end"
    assert all(commits <= thing.own(where) for where, commits in known.items()), "a commit was left without a ref"
    if thing.git(TOP, "branch", "--show-current") in ("main", ""):  # on a branch of the user's everything stays
        assert thing.sources.head(TOP) == new
        assert thing.git(TOP, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=untracked") == ""
    return bool(result.status)


@pytest.mark.parametrize(("place", "acts", "refused"), CASES + exhaustive(MORE), ids=names)
def test_work_in_the_way_stops_an_update_and_other_work_does_not(
    place: str, acts: Acts, refused: bool, thing: Thing
) -> None:
    """ARCHITECTURE.md, guarantee 1."""
    assert settle(place, acts, thing) == refused


@pytest.mark.exhaustive
@pytest.mark.parametrize(("place", "acts"), EVERY, ids=names)
def test_no_act_loses_anything(place: str, acts: Acts, thing: Thing) -> None:
    settle(place, acts, thing)


def test_no_change_is_an_obstacle_while_the_checkout_is_up_to_date(thing: Thing) -> None:
    act(thing, TOP, (("edit", "a.txt"), ("stage", "b.txt")))
    before = fingerprint(thing.sources.path)
    assert "up to date" in thing.sources("update").out
    assert fingerprint(thing.sources.path) == before


def test_commits_on_the_branch_stay_there_when_a_tag_is_checked_out(thing: Thing) -> None:
    mine = thing.commit(TOP)
    thing.sources.repositories[TOP]["branch"] = "v1.0"
    thing.sources("update")
    assert thing.sources.head(TOP) == thing.upstream.commit("some/thing", "v1.0")
    assert thing.git(TOP, "rev-parse", "main") == mine


def test_commits_that_were_pushed_and_older_ones_of_a_submodules_remote_are_no_obstacle(thing: Thing) -> None:
    thing.git(LIB, "fetch", "-q", "--unshallow")
    thing.git(LIB, "checkout", "-q", "HEAD~1")
    thing.git(TOP, "checkout", "-q", "--detach")
    thing.commit(TOP)
    thing.git(TOP, "push", "-q", str(thing.upstream.path("some/thing")), "HEAD:refs/heads/mine")
    new = thing.move_on()
    thing.git(TOP, "fetch", "-q", "origin", "mine:refs/remotes/origin/mine")
    thing.sources("update")
    assert thing.sources.head(TOP) == new
    assert thing.sources.head(LIB) == thing.upstream.commit("some/lib")


def test_a_commit_that_was_fetched_from_another_place_is_the_users(thing: Thing) -> None:
    """A fetch with --depth writes the commit into .git/shallow, as this tool's own do."""
    fork = thing.sources.path / "fork"
    subprocess.run(["git", "clone", "-q", thing.upstream.path("some/thing"), fork], check=True)
    mine = thing.commit("fork")
    thing.git(TOP, "fetch", "-q", "--depth=1", f"file://{fork}", "HEAD")
    thing.git(TOP, "checkout", "-q", "FETCH_HEAD")
    shutil.rmtree(fork)
    thing.move_on()
    thing.sources("update", check=5)
    assert thing.sources.head(TOP) == mine


DURING: list[tuple[str, Acts]] = [
    (TOP, (("detach", ""), ("commit", "mine.txt"))),
    (TOP, (("edit", "new.txt"),)),
    (LIB, (("edit", "a.txt"),)),
]
MORE_DURING = [(TOP, (("commit", "mine.txt"),)), (TOP, (("edit", "a.txt"),))]


@pytest.mark.parametrize(("place", "acts"), DURING + exhaustive(MORE_DURING), ids=names)
def test_what_is_done_during_a_download_is_kept(place: str, acts: Acts, thing: Thing, host: GitHost) -> None:
    new = thing.move_on()
    host.fault("hook", r"(thing|lib)\.git.*upload-pack\? fetch", call=lambda: act(thing, place, acts))
    thing.sources("update", check=5)
    assert thing.has()
    thing.put_away(place)
    thing.sources("update")
    assert thing.sources.head(TOP) == new and thing.has()


def test_files_where_a_submodule_comes_are_kept_and_deleted_ones_of_a_submodule_restored(thing: Thing) -> None:
    shutil.rmtree(thing.top / "deps/lib")
    (thing.top / "deps/lib").mkdir()
    link = Gitlink(thing.upstream.commit("some/lib"))
    thing.write(TOP, "deps/more/mine.txt")
    before = fingerprint(thing.top, r"^\.git/")
    modules = MODULES + section("more", "deps/more", "lib")
    thing.upstream.add_commit("some/thing", "main", {".gitmodules": modules, "deps/more": link})
    assert "deps/more" in thing.sources("update", check=5).err
    assert fingerprint(thing.top, r"^\.git/") == before
    shutil.move(thing.top / "deps/more", thing.sources.path / "away")
    thing.sources("update")
    assert thing.sources.head("thing/deps/more") == link.commit == thing.sources.head(LIB)
    assert thing.git(TOP, "status", "--porcelain") == ""


def a_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def a_directory_inside_a_repository(path: Path) -> None:
    subprocess.run(["git", "init", "-q", path.parent], check=True)
    subprocess.run(["git", "remote", "add", "origin", url("some/thing")], cwd=path.parent, check=True)
    path.mkdir()
    (path / "mine.txt").write_text(PRECIOUS)


def a_bare_repository(path: Path) -> None:
    subprocess.run(["git", "clone", "-q", "--bare", url("some/thing"), path], check=True)


def a_checkout_from_elsewhere(path: Path) -> None:
    subprocess.run(["git", "clone", "-q", url("some/lib"), path], check=True)


INSTEAD = (a_dangling_link, a_bare_repository, a_checkout_from_elsewhere, a_directory_inside_a_repository)


def test_whatever_is_in_place_of_a_checkout_stays_as_it_is(thing: Thing) -> None:
    shutil.rmtree(thing.top)
    for number, what in enumerate(INSTEAD):
        what(thing.top)
        before = fingerprint(thing.sources.path, r"^\.lock|\.git/(objects/|config$|shallow$|info$)")
        for task in ("update", "clone"):
            result = thing.sources(task, check=5)
            after = fingerprint(thing.sources.path, r"^\.lock|\.git/(objects/|config$|shallow$|info$)")
            assert after == before, f"{task}, {what.__name__}"
            assert str(thing.top) in result.err
            assert "local changes" not in result.out + result.err
        thing.top.rename(thing.sources.path / f"away{number}")
    thing.sources("clone")
    assert thing.sources.head(TOP) == thing.upstream.commit("some/thing")


def test_the_other_repository_is_updated_where_one_is_refused_or_not_cloned(
    sources: Sources, upstream: Upstream
) -> None:
    sources("clone")
    (sources.path / "sglang/README.md").write_text(PRECIOUS)
    upstream.add_commit("sglang", "main")
    new = upstream.add_commit("flashinfer", "main")
    assert "README.md" in sources("update", check=5).err
    assert sources.head("flashinfer") == new
    assert (sources.path / "sglang/README.md").read_text() == PRECIOUS
    shutil.rmtree(sources.path / "sglang")
    result = sources("update", check=1)
    assert re.search(r"sglang: .*not cloned.*\n +invoke clone", result.err)
    assert "flashinfer: up to date: main (" in result.out
