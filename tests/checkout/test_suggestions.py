"""A suggested command can be run as it is, resolves what stops the update in a few steps, and destroys nothing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

import pytest

from tests.sources import commits, url
from tests.thing import MODULES, PRECIOUS, Thing
from tests.upstream.store import Gitlink, Symlink

Act = Callable[[Thing], object]


def replaced_by_a_folder(name: str) -> Act:
    def act(thing: Thing) -> None:
        (thing.top / name).unlink()
        thing.write("thing", f"{name}/mine.txt")

    act.__name__ = f"folder_in_place_of_{name}"
    return act


def replaced_by_a_folder_beside_a_change(thing: Thing) -> None:
    thing.write("thing", "a.txt", "changed\n")
    (thing.top / "kept.txt").unlink()
    thing.write("thing", "kept.txt/mine.txt")


def replaced_by_a_repository(thing: Thing) -> None:
    (thing.top / "a.txt").unlink()
    thing.write("thing", "a.txt/mine.txt")
    thing.git("thing/a.txt", "init", "-q")


def replaced_in_the_submodule(thing: Thing) -> None:
    (thing.top / "deps/lib/a.txt").unlink()
    thing.write("thing/deps/lib", "a.txt/mine.txt")


def skipped_everywhere(thing: Thing) -> None:
    for name in ("a.txt", "b.txt", "kept.txt"):
        thing.git("thing", "update-index", "--skip-worktree", name)
        thing.write("thing", name, f"{PRECIOUS}\n" if name == "a.txt" else f"{name}\n")


def assumed_unchanged_beside_a_change(thing: Thing) -> None:
    thing.git("thing", "update-index", "--assume-unchanged", "kept.txt")
    thing.write("thing", "kept.txt")
    thing.write("thing", "a.txt", "changed\n")


def hidden_beside_a_change(prepare: tuple[str, ...], name: str, option: str) -> Act:
    def act(thing: Thing) -> None:
        thing.write("thing", name)
        thing.git("thing", *prepare, name)
        thing.git("thing", "update-index", option, name)
        thing.write("thing", name, f"{PRECIOUS} again\n")
        thing.write("thing", "a.txt", "changed\n")

    act.__name__ = f"{'_'.join(prepare)}_{name}_{option}"
    return act


def untracked_inside_the_folder_in_the_way(thing: Thing) -> None:
    thing.write("thing", "new.txt/mine.txt")
    thing.write("thing", "new.txt/more/mine.txt")


def repository_in_the_way(thing: Thing) -> None:
    thing.write("thing", "new.txt/mine.txt")
    thing.git("thing/new.txt", "init", "-q")
    thing.commit("thing/new.txt", "committed.txt")


def modules_deleted(thing: Thing) -> None:
    thing.write("thing", "deps/lib/mine.txt")
    shutil.rmtree(thing.top / ".git/modules/lib")


def modules_without_head(thing: Thing) -> None:
    thing.write("thing", "deps/lib/mine.txt")
    (thing.top / ".git/modules/lib/HEAD").unlink()


def own_clone_beside_the_module(thing: Thing) -> None:
    shutil.rmtree(thing.top / "deps/lib")
    subprocess.run(["git", "clone", "-q", url("some/lib"), thing.top / "deps/lib"], check=True)
    thing.commit("thing/deps/lib")


def own_clone_without_the_module(thing: Thing) -> None:
    own_clone_beside_the_module(thing)
    shutil.rmtree(thing.top / ".git/modules/lib")


def head_on_a_ref_that_is_no_branch(thing: Thing) -> None:
    thing.git("thing", "update-ref", "refs/wip/x", "HEAD")
    thing.git("thing", "symbolic-ref", "HEAD", "refs/wip/x")
    thing.commit("thing")


def head_without_a_commit(thing: Thing) -> None:
    thing.git("thing", "symbolic-ref", "HEAD", "refs/heads/unborn")
    thing.write("thing", "mine.txt")


def head_of_the_submodule_without_a_commit(thing: Thing) -> None:
    thing.git("thing/deps/lib", "symbolic-ref", "HEAD", "refs/heads/unborn")
    thing.write("thing/deps/lib", "mine.txt")


def orphan_with_everything_staged(thing: Thing) -> None:
    thing.git("thing", "checkout", "-q", "--orphan", "unborn")
    thing.write("thing", "a.txt")
    thing.git("thing", "add", "a.txt")


def merge_of_a_commit_that_only_fetch_head_names(thing: Thing) -> None:
    fork = thing.sources.path / "fork"
    subprocess.run(["git", "clone", "-q", thing.upstream.path("some/thing"), fork], check=True)
    thing.commit("fork", "a.txt")
    thing.git("thing", "fetch", "-q", f"file://{fork}", "HEAD")
    shutil.rmtree(fork)
    thing.git("thing", "merge", "--no-commit", "--no-ff", "FETCH_HEAD")


def conflict_that_was_half_resolved(thing: Thing) -> None:
    thing.git("thing", "checkout", "-q", "-b", "side")
    thing.sources.commit("thing", "a.txt", "side\n")
    thing.git("thing", "checkout", "-q", "main")
    thing.sources.commit("thing", "a.txt", "ours\n")
    thing.git("thing", "merge", "side", check=False)
    thing.write("thing", "a.txt")


def rebase_with_a_resolution(thing: Thing) -> None:
    conflict_that_was_half_resolved(thing)
    thing.git("thing", "merge", "--abort")
    thing.git("thing", "rebase", "side", check=False)
    thing.write("thing", "a.txt")


def branch_with_a_name_in_the_way(thing: Thing) -> None:
    thing.git("thing", "checkout", "-q", "--detach")
    thing.git("thing", "branch", "-D", "main")
    thing.git("thing", "branch", "main/mine")
    thing.git("thing", "checkout", "-q", "main/mine")
    thing.commit("thing")


ACTS = [
    replaced_by_a_folder("a.txt"), replaced_by_a_folder("kept.txt"), replaced_by_a_folder("gone.txt"),
    replaced_by_a_folder_beside_a_change, replaced_by_a_repository, replaced_in_the_submodule,
    skipped_everywhere, assumed_unchanged_beside_a_change,
    hidden_beside_a_change(("add",), "mine.txt", "--skip-worktree"),
    hidden_beside_a_change(("add", "-N"), "mine.txt", "--assume-unchanged"),
    hidden_beside_a_change(("add",), "b.txt", "--skip-worktree"), untracked_inside_the_folder_in_the_way,
    repository_in_the_way, modules_deleted, modules_without_head, own_clone_beside_the_module,
    own_clone_without_the_module, head_on_a_ref_that_is_no_branch, head_without_a_commit,
    head_of_the_submodule_without_a_commit, orphan_with_everything_staged,
    merge_of_a_commit_that_only_fetch_head_names, conflict_that_was_half_resolved, rebase_with_a_resolution,
    branch_with_a_name_in_the_way,
]  # fmt: skip


UNREADABLE = (head_without_a_commit, orphan_with_everything_staged)


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_what_is_suggested_resolves_it_and_destroys_nothing(act: Act, thing: Thing) -> None:
    act(thing)
    assert thing.has()
    new = thing.move_on()
    result = thing.sources("update", check=None)
    assert thing.has(), "lost by the update"
    if act in UNREADABLE:  # moved aside as a whole
        assert thing.sources.fix(result).startswith("mv ")
        result = thing.sources("clone")
    thing.sources.resolve(result=result)
    assert thing.has(), "lost by a command that was suggested"
    assert thing.sources.head("thing") == new
    assert thing.sources.head("thing/deps/lib") == thing.upstream.commit("some/lib")
    thing.sources("update")


def own_clone(thing: Thing) -> None:
    pinned = thing.sources.head("thing/deps/lib")
    shutil.rmtree(thing.top / "deps/lib")
    subprocess.run(["git", "clone", "-q", url("some/lib"), thing.top / "deps/lib"], check=True)
    thing.git("thing/deps/lib", "checkout", "-q", "-b", "mine")
    thing.commit("thing/deps/lib")
    thing.write("thing/deps/lib", "a.txt", "stashed\n")
    thing.git("thing/deps/lib", "stash")
    thing.git("thing/deps/lib", "checkout", "-q", pinned)


def branch_in_the_submodule(thing: Thing) -> None:
    head = thing.sources.head("thing/deps/lib")
    thing.git("thing/deps/lib", "checkout", "-q", "-b", "mine")
    thing.commit("thing/deps/lib")
    thing.git("thing/deps/lib", "checkout", "-q", head)


def hidden_edit(thing: Thing) -> None:
    thing.git("thing/deps/lib", "update-index", "--assume-unchanged", "a.txt")
    thing.write("thing/deps/lib", "a.txt")


def hidden_edit_skipped(thing: Thing) -> None:
    thing.git("thing/deps/lib", "update-index", "--skip-worktree", "a.txt")
    thing.write("thing/deps/lib", "a.txt")


def staged_alone(thing: Thing) -> None:
    thing.write("thing/deps/lib", "mine.txt")
    thing.git("thing/deps/lib", "add", "mine.txt")
    (thing.top / "deps/lib/mine.txt").unlink()


def ignored_file(thing: Thing) -> None:
    thing.write("thing/deps/lib", "mine.log")


def untracked_file(thing: Thing) -> None:
    thing.write("thing/deps/lib", "folder/mine.txt")


def commit_on_its_detached_head(thing: Thing) -> None:
    thing.commit("thing/deps/lib")


def linked_worktree_of_the_submodule(thing: Thing) -> None:
    thing.git("thing/deps/lib", "worktree", "add", "-q", "-b", "mine", str(thing.sources.path / "other"))
    thing.write("other", "mine.txt")
    thing.git("other", "add", "mine.txt")


IN_THE_SUBMODULE = [
    own_clone, branch_in_the_submodule, hidden_edit, hidden_edit_skipped, staged_alone, ignored_file, untracked_file,
    commit_on_its_detached_head, linked_worktree_of_the_submodule,
]  # fmt: skip
ROOM = ("a file", "a folder", "nothing", "a link")


@pytest.mark.parametrize(
    ("act", "then"),
    [(act, ROOM[number % 4]) for number, act in enumerate(IN_THE_SUBMODULE)] + [(own_clone, then) for then in ROOM[1:]],
    ids=lambda given: getattr(given, "__name__", given),
)
def test_what_is_in_a_submodule_that_makes_room_is_kept(act: Act, then: str, thing: Thing) -> None:
    act(thing)
    assert thing.has()
    files = {"a file": {"deps/lib": "file\n"}, "a folder": {"deps/lib": None, "deps/lib/file.txt": "file\n"},
             "nothing": {"deps/lib": None}, "a link": {"deps/lib": Symlink("../a.txt")}}[then]  # fmt: skip
    new = thing.upstream.add_commit("some/thing", "main", {".gitmodules": None, **files})  # type: ignore[dict-item]
    result = thing.sources("update", check=None)
    assert thing.has(), "lost by the update"
    thing.sources.resolve(result=result)
    assert thing.has(), "lost by a command that was suggested"
    assert thing.sources.head("thing") == new
    assert thing.git("thing", "status", "--porcelain", "--untracked-files=no") == ""
    link = Gitlink(thing.upstream.add_commit("some/lib", "main", {"late.txt": "late\n"}))
    gone = {"deps/lib/file.txt": None} if then == "a folder" else {}
    new = thing.upstream.add_commit("some/thing", "main", {**gone, ".gitmodules": MODULES, "deps/lib": link})
    thing.sources.resolve()
    assert thing.has(), "lost when it is a submodule again"
    assert thing.sources.head("thing") == new
    assert thing.sources.head("thing/deps/lib") == link.commit


def test_a_suggested_branch_has_the_commit(thing: Thing) -> None:
    thing.git("thing", "checkout", "-q", "--detach")
    mine = thing.commit("thing")
    thing.move_on()
    thing.sources.resolve()
    assert mine in commits(thing.top, "--branches")
