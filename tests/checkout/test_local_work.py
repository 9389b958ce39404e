"""Local work is never lost: what an update could lose stays as it is, byte for byte, until the user decides."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sources import Sources, commits, fingerprint, url, work
from tests.thing import MODULES, PRECIOUS, Thing
from tests.upstream.host import GitHost
from tests.upstream.store import Gitlink, Upstream

LEFT_OUT = r"^\.lock|\.git/(objects/|config$|shallow$|info$)"
Act = Callable[[Thing, str], None]


def modified(thing: Thing, place: str) -> None:
    thing.write(place, "a.txt")


def modified_where_nothing_changes(thing: Thing, place: str) -> None:
    thing.write(place, "kept.txt")


def staged(thing: Thing, place: str) -> None:
    thing.write(place, "a.txt")
    thing.git(place, "add", "a.txt")


def staged_and_changed_again(thing: Thing, place: str) -> None:
    staged(thing, place)
    thing.write(place, "a.txt", "again\n")


def staged_new(thing: Thing, place: str) -> None:
    thing.write(place, "mine.txt")
    thing.git(place, "add", "mine.txt")


def staged_new_where_the_target_has_one(thing: Thing, place: str) -> None:
    thing.write(place, "new.txt")
    thing.git(place, "add", "new.txt")


def meant_to_be_added(thing: Thing, place: str) -> None:
    thing.write(place, "mine.txt")
    thing.git(place, "add", "--intent-to-add", "mine.txt")


def deleted(thing: Thing, place: str) -> None:
    (thing.sources.path / place / "a.txt").unlink()


def deleted_in_the_index_alone(thing: Thing, place: str) -> None:
    thing.write(place, "a.txt")
    thing.git(place, "rm", "-q", "--cached", "a.txt")


def renamed(thing: Thing, place: str) -> None:
    thing.git(place, "mv", "b.txt", "B.txt")


def made_executable(thing: Thing, place: str) -> None:
    (thing.sources.path / place / "b.txt").chmod(0o755)


def replaced_by_a_link(thing: Thing, place: str) -> None:
    (thing.sources.path / place / "b.txt").unlink()
    (thing.sources.path / place / "b.txt").symlink_to("kept.txt")


def assumed_unchanged(thing: Thing, place: str) -> None:
    thing.git(place, "update-index", "--assume-unchanged", "a.txt")
    thing.write(place, "a.txt")


def skipped_in_the_worktree(thing: Thing, place: str) -> None:
    thing.git(place, "update-index", "--skip-worktree", "a.txt")
    thing.write(place, "a.txt")


def assumed_unchanged_and_deleted_by_the_target(thing: Thing, place: str) -> None:
    thing.git(place, "update-index", "--assume-unchanged", "gone.txt")
    thing.write(place, "gone.txt")


def untracked_in_the_way(thing: Thing, place: str) -> None:
    thing.write(place, "new.txt")


def ignored_in_the_way(thing: Thing, place: str) -> None:
    thing.write(place, "new.log")


def untracked_folder_in_the_way(thing: Thing, place: str) -> None:
    thing.write(place, "new.txt/mine.txt")


def untracked_file_where_a_folder_comes(thing: Thing, place: str) -> None:
    thing.write(place, "folder")


def link_where_a_folder_comes(thing: Thing, place: str) -> None:
    outside = thing.sources.path / "outside"
    outside.mkdir()
    (outside / "mine.txt").write_text(f"{PRECIOUS}\n")
    (thing.sources.path / place / "folder").symlink_to(outside)


def committed_on_the_branch(thing: Thing, place: str) -> None:
    thing.git(place, "checkout", "-q", "-B", "main")
    thing.commit(place)


def committed_on_a_detached_head(thing: Thing, place: str) -> None:
    thing.git(place, "checkout", "-q", "--detach")
    thing.commit(place)


def _diverge(thing: Thing, place: str) -> None:
    thing.git(place, "checkout", "-q", "-B", "main")
    thing.git(place, "checkout", "-q", "-b", "side")
    thing.commit(place, "a.txt")
    thing.git(place, "checkout", "-q", "main")
    thing.commit(place, "b.txt")
    thing.write(place, "a.txt", "ours\n")
    thing.git(place, "commit", "-q", "-a", "-m", "Ours")


def merge_in_progress(thing: Thing, place: str) -> None:
    _diverge(thing, place)
    thing.git(place, "merge", "side", check=False)


def rebase_in_progress(thing: Thing, place: str) -> None:
    _diverge(thing, place)
    thing.git(place, "rebase", "side", check=False)


def cherry_pick_in_progress(thing: Thing, place: str) -> None:
    _diverge(thing, place)
    thing.git(place, "cherry-pick", "side", check=False)


def revert_in_progress(thing: Thing, place: str) -> None:
    _diverge(thing, place)
    thing.git(place, "revert", "--no-edit", "side", check=False)


def am_in_progress(thing: Thing, place: str) -> None:
    _diverge(thing, place)
    patch = thing.git(place, "format-patch", "-1", "--stdout", "side")
    thing.write(place, "../mail.patch", patch + "\n")
    thing.git(place, "am", str(thing.sources.path / place / "../mail.patch"), check=False)


def bisect_in_progress(thing: Thing, place: str) -> None:
    thing.git(place, "bisect", "start")


def stash_that_did_not_apply(thing: Thing, place: str) -> None:
    thing.write(place, "a.txt")
    thing.git(place, "stash")
    thing.git(place, "checkout", "-q", "-B", "main")
    thing.write(place, "a.txt", "other\n")
    thing.git(place, "commit", "-q", "-a", "-m", "Other")
    thing.git(place, "stash", "pop", check=False)


UNSAFE = [
    modified, modified_where_nothing_changes, staged, staged_and_changed_again, staged_new,
    staged_new_where_the_target_has_one, meant_to_be_added, deleted, deleted_in_the_index_alone, renamed,
    made_executable,
    replaced_by_a_link, assumed_unchanged, skipped_in_the_worktree, assumed_unchanged_and_deleted_by_the_target,
    untracked_in_the_way, ignored_in_the_way, untracked_folder_in_the_way, untracked_file_where_a_folder_comes,
    link_where_a_folder_comes, committed_on_the_branch, committed_on_a_detached_head, merge_in_progress,
    rebase_in_progress, cherry_pick_in_progress, revert_in_progress, am_in_progress, bisect_in_progress,
    stash_that_did_not_apply,
]  # fmt: skip
UNSAFE_IN_A_SUBMODULE = [
    modified, skipped_in_the_worktree, untracked_in_the_way, committed_on_a_detached_head, merge_in_progress,
]  # fmt: skip
WITHOUT_CONTENT = (deleted, renamed, made_executable, replaced_by_a_link, bisect_in_progress)


@pytest.mark.parametrize(
    ("act", "place"),
    [(act, "thing") for act in UNSAFE] + [(act, "thing/deps/lib") for act in UNSAFE_IN_A_SUBMODULE],
    ids=lambda given: getattr(given, "__name__", given),
)
def test_nothing_is_lost(act: Act, place: str, thing: Thing) -> None:
    """ARCHITECTURE.md, guarantee 1: kept byte for byte with exit status 5, and the named command resolves it."""
    act(thing, place)
    top = thing.sources.path / "thing"
    kept = ("--branches",) if act is rebase_in_progress else ()  # to give up a rebase gives up what it has made
    before, known = work(thing.sources.path), {where: thing.own(where, *kept) for where in ("thing", place)}
    new = thing.move_on()
    result = thing.sources("update", check=5)
    assert work(thing.sources.path) == before
    assert str(top) in result.err
    thing.sources.resolve(result=result)
    assert thing.sources.head("thing") == new
    assert thing.git("thing", "status", "--porcelain", "--untracked-files=no") == ""
    assert act in WITHOUT_CONTENT or thing.has()
    for where, had in known.items():
        assert had <= thing.own(where), "a commit was left without a ref"


def stashed(thing: Thing, place: str) -> None:
    thing.write(place, "a.txt")
    thing.git(place, "stash")


def untracked(thing: Thing, place: str) -> None:
    thing.write(place, "mine.txt")
    thing.write(place, "my folder/mine.txt")


def installed_artefacts(thing: Thing, place: str) -> None:
    thing.write(place, "thing.egg-info/PKG-INFO")
    thing.write(place, "build.log")


def another_branch(thing: Thing, place: str) -> None:
    old = thing.git(place, "rev-parse", "--abbrev-ref", "HEAD")
    head = thing.sources.head(place)
    thing.git(place, "checkout", "-q", "-b", "mine")
    thing.commit(place)
    thing.git(place, "checkout", "-q", head if old == "HEAD" else old)


def tagged(thing: Thing, place: str) -> None:
    head = thing.sources.head(place)
    old = thing.git(place, "rev-parse", "--abbrev-ref", "HEAD")
    thing.git(place, "checkout", "-q", "--detach")
    thing.commit(place)
    thing.git(place, "tag", "my-tag")
    thing.git(place, "checkout", "-q", head if old == "HEAD" else old)


def touched(thing: Thing, place: str) -> None:
    another_branch(thing, place)
    os.utime(thing.sources.path / place / "a.txt", (1, 1))


def worktree_elsewhere(thing: Thing, place: str) -> None:
    other = thing.sources.path / "elsewhere"
    thing.git(place, "worktree", "add", "-q", "-b", "mine", str(other))
    thing.commit("elsewhere")


@pytest.mark.parametrize("place", ["thing", "thing/deps/lib"])
@pytest.mark.parametrize(
    "act",
    [stashed, untracked, installed_artefacts, another_branch, tagged, touched, worktree_elsewhere],
    ids=lambda act: act.__name__,
)
def test_work_that_is_not_in_the_way_survives(act: Act, place: str, thing: Thing) -> None:
    act(thing, place)
    known = thing.own(place)
    new = thing.move_on()
    thing.sources("update")
    assert thing.sources.head("thing") == new
    assert thing.has()
    assert known <= thing.own(place)
    assert thing.git("thing", "status", "--porcelain", "--untracked-files=no") == ""


def test_a_branch_of_the_users_does_not_move(thing: Thing) -> None:
    thing.git("thing", "checkout", "-q", "-b", "mine")
    mine = thing.commit("thing")
    new = thing.move_on()
    thing.sources("update")
    assert thing.sources.head("thing") == new
    assert thing.git("thing", "rev-parse", "mine") == mine


def test_commits_on_a_branch_stay_there_when_a_tag_is_checked_out(thing: Thing) -> None:
    mine = thing.commit("thing")
    thing.sources.repositories["thing"]["branch"] = "v1.0"
    thing.sources("update")
    assert thing.sources.head("thing") == thing.upstream.commit("some/thing", "v1.0")
    assert thing.git("thing", "rev-parse", "main") == mine


def test_commits_that_a_force_push_replaced_are_no_obstacle(thing: Thing) -> None:
    thing.move_on()
    thing.sources("update")
    new = thing.upstream.force_push("some/thing", "main", {"forced.txt": "forced\n"})
    thing.sources("update")
    assert thing.sources.head("thing") == new


def test_commits_that_were_pushed_are_no_obstacle(thing: Thing) -> None:
    thing.commit("thing")
    thing.git("thing", "push", "-q", str(thing.upstream.path("some/thing")), "HEAD:refs/heads/mine")
    new = thing.move_on()
    thing.sources("update")
    assert thing.sources.head("thing") == new


def test_a_branch_in_a_submodule_keeps_its_commits_when_head_moves_on(thing: Thing) -> None:
    committed_on_the_branch(thing, "thing/deps/lib")
    mine = thing.sources.head("thing/deps/lib")
    new = thing.move_on()
    assert "thing/deps/lib: HEAD leaves the branch main, which stays" in thing.sources("update").out
    assert thing.sources.head("thing") == new
    assert thing.sources.head("thing/deps/lib") == thing.upstream.commit("some/lib")
    assert thing.git("thing/deps/lib", "rev-parse", "main") == mine


def test_a_submodule_at_another_commit_of_its_remote_moves_on(thing: Thing) -> None:
    thing.git("thing/deps/lib", "fetch", "-q", "--unshallow")
    thing.git("thing/deps/lib", "checkout", "-q", "HEAD~1")
    thing.move_on()
    thing.sources("update")
    assert thing.sources.head("thing/deps/lib") == thing.upstream.commit("some/lib")


@pytest.mark.parametrize("staged", [False, True])
def test_a_commit_in_a_submodule_that_is_meant_for_the_repository_is_kept(staged: bool, thing: Thing) -> None:
    mine = thing.commit("thing/deps/lib")
    if staged:
        thing.git("thing", "add", "deps/lib")
    before = work(thing.sources.path)
    new = thing.move_on()
    result = thing.sources("update", check=5)
    assert work(thing.sources.path) == before
    thing.sources.resolve(result=result)
    assert thing.sources.head("thing") == new
    assert mine in commits(thing.sources.path / "thing/deps/lib")


@pytest.mark.parametrize("detached", [False, True], ids=["on the branch", "on a detached HEAD"])
def test_a_commit_that_is_made_during_a_download_keeps_its_ref(detached: bool, thing: Thing, host: GitHost) -> None:
    if detached:
        thing.sources.repositories["thing"]["branch"] = "v1.0"
        thing.sources("update")
        thing.sources.repositories["thing"]["branch"] = "main"
    new = thing.move_on()
    made: list[str] = []
    host.fault("hook", r"thing\.git.*upload-pack\? fetch", call=lambda: made.append(thing.commit("thing")))
    result = thing.sources("update", check=5)
    assert made[0] in commits(thing.sources.path / "thing")
    thing.sources.resolve(result=result)
    assert thing.sources.head("thing") == new
    assert made[0] in commits(thing.sources.path / "thing")


@pytest.mark.parametrize("name", ["a.txt", "new.txt"])
def test_a_file_that_is_changed_during_a_download_is_kept(name: str, thing: Thing, host: GitHost) -> None:
    new = thing.move_on()
    host.fault("hook", r"lib\.git.*upload-pack\? fetch", call=lambda: thing.write("thing", name))
    result = thing.sources("update", check=5)
    assert (thing.sources.path / "thing" / name).read_text() == f"{PRECIOUS}\n"
    thing.sources.resolve(result=result)
    assert thing.sources.head("thing") == new
    assert thing.has()


def test_a_submodule_that_the_new_commit_lacks_is_removed_and_its_repository_kept(thing: Thing) -> None:
    stashed(thing, "thing/deps/lib")
    new = thing.upstream.add_commit("some/thing", "main", {".gitmodules": None, "deps/lib": None})
    thing.sources("update")
    assert thing.sources.head("thing") == new
    assert not (thing.sources.path / "thing/deps").exists()
    assert thing.git("thing", "status", "--porcelain", "--ignored", "--ignore-submodules=none") == ""
    assert PRECIOUS in thing.git("thing", "--git-dir=.git/modules/lib", "show", "stash:a.txt")
    thing.sources.repositories["thing"]["branch"] = "v1.0"
    thing.sources("update")
    assert thing.sources.head("thing/deps/lib") == thing.upstream.commit("some/lib")
    assert thing.git("thing", "status", "--porcelain", "--ignore-submodules=none") == ""


@pytest.mark.parametrize(
    "act",
    [untracked, installed_artefacts, modified, staged_new, assumed_unchanged, skipped_in_the_worktree],
    ids=lambda act: act.__name__,
)
def test_a_former_submodule_with_local_work_stays_and_is_named_in_a_warning(act: Act, thing: Thing) -> None:
    act(thing, "thing/deps/lib")
    before = work(thing.sources.path / "thing/deps/lib")
    new = thing.upstream.add_commit("some/thing", "main", {".gitmodules": None, "deps/lib": None})
    result = thing.sources("update")
    assert thing.sources.head("thing") == new
    assert work(thing.sources.path / "thing/deps/lib") == before
    assert re.search(r"warning: .*deps/lib", result.err)
    assert thing.git("thing", "status", "--porcelain") == "?? deps/"
    assert "up to date" in thing.sources("update").out
    assert thing.has()


@pytest.mark.parametrize("act", [staged_new, untracked, assumed_unchanged], ids=lambda act: act.__name__)
def test_a_submodule_with_local_work_whose_path_changes_stops_the_update(act: Act, thing: Thing) -> None:
    """At its new path it would take the same repository, and with it the index."""
    act(thing, "thing/deps/lib")
    before, lib = work(thing.top / "deps/lib"), Gitlink(thing.upstream.commit("some/lib"))
    files = {".gitmodules": MODULES.replace("deps/lib", "other/lib"), "deps/lib": None, "other/lib": lib}
    new = thing.upstream.add_commit("some/thing", "main", files)
    result = thing.sources("update", check=5)
    assert work(thing.top / "deps/lib") == before
    thing.sources.resolve(result=result)
    assert thing.sources.head("thing") == new
    assert thing.sources.head("thing/other/lib") == lib.commit
    assert thing.has()


@pytest.mark.parametrize("deleted", [False, True], ids=["", "and was deleted but for its directory"])
def test_a_submodule_with_the_users_sparse_checkout_may_change_its_path(deleted: bool, thing: Thing) -> None:
    thing.git("thing/deps/lib", "sparse-checkout", "set", "deep")
    if deleted:
        shutil.rmtree(thing.top / "deps/lib")
        (thing.top / "deps/lib").mkdir()
    lib = Gitlink(thing.upstream.commit("some/lib"))
    files = {".gitmodules": MODULES.replace("deps/lib", "other/lib"), "deps/lib": None, "other/lib": lib}
    thing.upstream.add_commit("some/thing", "main", files)
    thing.sources("update")
    assert thing.sources.head("thing/other/lib") == lib.commit
    assert thing.git("thing/other/lib", "sparse-checkout", "list") == "deep"


def test_a_submodule_whose_files_were_deleted_is_restored(thing: Thing) -> None:
    shutil.rmtree(thing.sources.path / "thing/deps/lib")
    new = thing.move_on()
    thing.sources.resolve()
    assert thing.sources.head("thing") == new
    assert thing.sources.head("thing/deps/lib") == thing.upstream.commit("some/lib")


def test_a_commit_in_a_former_submodule_that_is_one_again_is_kept(thing: Thing) -> None:
    untracked(thing, "thing/deps/lib")
    thing.upstream.add_commit("some/thing", "main", {".gitmodules": None, "deps/lib": None})
    thing.sources("update")
    mine = thing.commit("thing/deps/lib")
    shutil.rmtree(thing.sources.path / "thing/deps")
    modules = thing.upstream.read("some/thing", ".gitmodules", "v1.0")
    link = Gitlink(thing.upstream.add_commit("some/lib", "main", {"late.txt": "late\n"}))
    thing.upstream.add_commit("some/thing", "main", {".gitmodules": modules, "deps/lib": link})
    thing.sources.resolve()
    assert thing.sources.head("thing/deps/lib") == link.commit
    assert mine in commits(thing.sources.path / "thing/deps/lib")


def test_files_where_a_submodule_comes_are_kept(thing: Thing) -> None:
    link = Gitlink(thing.upstream.commit("some/lib"))
    modules = thing.upstream.read("some/thing", ".gitmodules")
    modules += '[submodule "more"]\n\tpath = deps/more\n\turl = ../lib.git\n'
    thing.write("thing", "deps/more/mine.txt")
    before = work(thing.sources.path)
    new = thing.upstream.add_commit("some/thing", "main", {".gitmodules": modules, "deps/more": link})
    result = thing.sources("update", check=5)
    assert work(thing.sources.path) == before
    thing.sources.resolve(result=result)
    assert thing.sources.head("thing") == new
    assert thing.sources.head("thing/deps/more") == link.commit
    assert thing.has()


@pytest.mark.parametrize("ignored", [False, True])
def test_files_in_a_submodule_that_a_file_replaces_are_kept(ignored: bool, thing: Thing) -> None:
    thing.write("thing", "deps/lib/mine.log" if ignored else "deps/lib/mine.txt")
    before = work(thing.sources.path)
    new = thing.upstream.add_commit("some/thing", "main", {".gitmodules": None, "deps/lib": "a file\n"})
    result = thing.sources("update", check=5)
    assert work(thing.sources.path) == before
    thing.sources.resolve(result=result)
    assert thing.sources.head("thing") == new
    assert thing.has()


def a_file(path: Path, _: Thing) -> None:
    path.write_text(PRECIOUS)


def a_dangling_link(path: Path, _: Thing) -> None:
    path.symlink_to("nowhere")


def a_link_to_a_checkout(path: Path, _: Thing) -> None:
    path.with_name("real").mkdir()
    subprocess.run(["git", "clone", "-q", url("some/thing"), path.with_name("real")], check=True)
    path.symlink_to("real")


def a_folder(path: Path, _: Thing) -> None:
    path.mkdir()
    (path / "mine.txt").write_text(PRECIOUS)


def a_folder_inside_a_repository(path: Path, thing: Thing) -> None:
    subprocess.run(["git", "init", "-q", path.parent], check=True)
    subprocess.run(["git", "remote", "add", "origin", url("some/thing")], cwd=path.parent, check=True)
    a_folder(path, thing)


def a_worktree_of_another_checkout(path: Path, _: Thing) -> None:
    subprocess.run(["git", "clone", "-q", url("some/thing"), path.with_name("real")], check=True)
    subprocess.run(["git", "worktree", "add", "-q", "-b", "mine", path], cwd=path.with_name("real"), check=True)


def a_bare_repository(path: Path, _: Thing) -> None:
    subprocess.run(["git", "clone", "-q", "--bare", url("some/thing"), path], check=True)


def a_checkout_from_elsewhere(path: Path, _: Thing) -> None:
    subprocess.run(["git", "clone", "-q", url("some/thing"), path], check=True)
    subprocess.run(["git", "remote", "set-url", "origin", url("some/lib")], cwd=path, check=True)


def a_checkout_without_a_remote(path: Path, _: Thing) -> None:
    subprocess.run(["git", "clone", "-q", url("some/thing"), path], check=True)
    subprocess.run(["git", "remote", "remove", "origin"], cwd=path, check=True)


def a_repository_without_commits(path: Path, _: Thing) -> None:
    subprocess.run(["git", "init", "-q", path], check=True)
    subprocess.run(["git", "remote", "add", "origin", url("some/thing")], cwd=path, check=True)
    (path / "a.txt").write_text(PRECIOUS)


@pytest.mark.parametrize(
    "what",
    [
        a_file, a_dangling_link, a_link_to_a_checkout, a_folder, a_folder_inside_a_repository,
        a_worktree_of_another_checkout, a_bare_repository, a_checkout_from_elsewhere, a_checkout_without_a_remote,
        a_repository_without_commits,
    ],
    ids=lambda what: what.__name__,
)  # fmt: skip
def test_whatever_is_in_place_of_a_checkout_stays_as_it_is(
    what: Callable[[Path, Thing], None], thing: Thing, upstream: Upstream
) -> None:
    top = thing.sources.path / "thing"
    shutil.rmtree(top)
    what(top, thing)
    before, known = fingerprint(thing.sources.path, LEFT_OUT), thing.has()
    result = thing.sources("update", check=5)
    assert fingerprint(thing.sources.path, LEFT_OUT) == before
    assert str(top) in result.err
    thing.sources.resolve("clone")
    thing.sources("update")
    assert thing.sources.head("thing") == upstream.commit("some/thing")
    assert thing.has() == known


def test_the_other_repository_is_updated(sources: Sources, upstream: Upstream) -> None:
    sources("clone")
    (sources.path / "sglang/README.md").write_text(PRECIOUS)
    upstream.add_commit("sglang", "main")
    new = upstream.add_commit("flashinfer", "main")
    result = sources("update", check=5)
    assert sources.head("flashinfer") == new
    assert "skipped (local changes)" in result.out
    assert (sources.path / "sglang/README.md").read_text() == PRECIOUS


def test_a_changed_file_is_no_obstacle_while_the_checkout_is_up_to_date(thing: Thing) -> None:
    modified(thing, "thing")
    before = fingerprint(thing.sources.path)
    assert "up to date" in thing.sources("update").out
    assert fingerprint(thing.sources.path) == before
