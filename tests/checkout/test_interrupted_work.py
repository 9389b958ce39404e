"""What a user does after an update was interrupted is as safe as before: it is kept, or the next update refuses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

from tests.thing import NEW, PRECIOUS, Thing, contents
from tests.upstream.host import GitHost

Act = Callable[[Thing, str], None]


def staged_new_file(thing: Thing, place: str) -> None:
    thing.write(place, "mine.py")
    thing.git(place, "add", "mine.py")


def staged_new_file_whose_copy_is_gone(thing: Thing, place: str) -> None:
    staged_new_file(thing, place)
    (thing.sources.path / place / "mine.py").unlink()


def staged_change_with_the_old_copy(thing: Thing, place: str) -> None:
    thing.write(place, "a.txt")
    thing.git(place, "add", "a.txt")
    thing.write(place, "a.txt", "a\n" * 9)


def staged_change_with_the_new_copy(thing: Thing, place: str) -> None:
    thing.write(place, "a.txt")
    thing.git(place, "add", "a.txt")
    thing.write(place, "a.txt", str(NEW["a.txt"]))


def staged_file_that_the_new_commit_has_too(thing: Thing, place: str) -> None:
    thing.write(place, "folder/new.txt")
    thing.git(place, "add", "folder/new.txt")
    thing.write(place, "folder/new.txt", "new\n")


def staged_change_of_a_file_that_goes(thing: Thing, place: str) -> None:
    thing.write(place, "gone.txt")
    thing.git(place, "add", "gone.txt")
    (thing.sources.path / place / "gone.txt").unlink()


def meant_to_be_added(thing: Thing, place: str) -> None:
    thing.write(place, "mine.txt")
    thing.git(place, "add", "--intent-to-add", "mine.txt")


def edited_where_both_differ(thing: Thing, place: str) -> None:
    thing.write(place, "a.txt")


def edited_elsewhere(thing: Thing, place: str) -> None:
    thing.write(place, "kept.txt")


def edited_while_it_was_to_be_written(thing: Thing, place: str) -> None:
    thing.write(place, "new.txt")


def edited_though_it_goes(thing: Thing, place: str) -> None:
    thing.write(place, "gone.txt")


def folder_in_place_of_a_changed_file(thing: Thing, place: str) -> None:
    (thing.sources.path / place / "a.txt").unlink()
    thing.write(place, "a.txt/mine.txt")


def folder_in_place_of_another_file(thing: Thing, place: str) -> None:
    (thing.sources.path / place / "kept.txt").unlink()
    thing.write(place, "kept.txt/mine.txt")


def folder_in_place_of_a_file_that_comes(thing: Thing, place: str) -> None:
    (thing.sources.path / place / "new.txt").unlink(missing_ok=True)
    thing.write(place, "new.txt/mine.txt")


def folder_in_place_of_a_file_that_goes(thing: Thing, place: str) -> None:
    thing.write(place, "gone.txt/mine.txt")


def link_in_place_of_a_changed_file(thing: Thing, place: str) -> None:
    (thing.sources.path / place / "a.txt").unlink()
    (thing.sources.path / place / "a.txt").symlink_to(f"{PRECIOUS}\n")


def link_in_place_of_another_file(thing: Thing, place: str) -> None:
    (thing.sources.path / place / "kept.txt").unlink()
    (thing.sources.path / place / "kept.txt").symlink_to(f"{PRECIOUS}\n")


def link_in_place_of_a_folder_that_comes(thing: Thing, place: str) -> None:
    shutil.rmtree(thing.sources.path / place / "folder")
    thing.write("outside", "new.txt")
    (thing.sources.path / place / "folder").symlink_to(thing.sources.path / "outside")


def staged_rename_with_changes(thing: Thing, place: str) -> None:
    thing.git(place, "mv", "b.txt", "B.txt")
    thing.write(place, "B.txt")
    thing.git(place, "add", "B.txt")


def merge_without_a_commit(thing: Thing, place: str) -> None:
    tree = thing.git(place, "rev-parse", "HEAD^{tree}")
    thing.write("outside", "mine.txt")
    blob = thing.git(place, "hash-object", "-w", str(thing.sources.path / "outside/mine.txt"))
    shutil.rmtree(thing.sources.path / "outside")
    listing = f"{thing.git(place, 'ls-tree', tree)}\n100644 blob {blob}\tmerged.txt\n"
    (thing.sources.path / "listing").write_text(listing)
    tree = thing.git(place, "-c", f"alias.make=!git mktree <{thing.sources.path}/listing", "make")
    mine = thing.git(place, "commit-tree", "-p", "HEAD", "-m", "Mine", tree)
    thing.git(place, "merge", "--no-commit", "--no-ff", mine)
    assert (thing.sources.path / place / "merged.txt").exists()


def rebase_with_a_conflict(thing: Thing, place: str) -> None:
    thing.git(place, "checkout", "-q", "-f", "-b", "side")
    thing.sources.commit(place, "kept.txt", "side\n")
    thing.git(place, "checkout", "-q", "-f", "-B", "mine", "HEAD~1")
    thing.commit(place, "kept.txt")
    thing.git(place, "rebase", "side", check=False)
    thing.write(place, "kept.txt")


def hidden_from_git(option: str) -> Act:
    def act(thing: Thing, place: str) -> None:
        for name in ("a.txt", "kept.txt"):
            thing.git(place, "update-index", option, name)
            thing.write(place, name)

    act.__name__ = f"hidden_by{option}"
    return act


def hidden_though_it_goes(thing: Thing, place: str) -> None:
    thing.git(place, "update-index", "--skip-worktree", "gone.txt")
    thing.write(place, "gone.txt")


def untracked(thing: Thing, place: str) -> None:
    thing.write(place, "mine.txt")


def ignored(thing: Thing, place: str) -> None:
    thing.write(place, "mine.log")


def ignored_where_one_comes(thing: Thing, place: str) -> None:
    thing.write(place, "new.log")


def committed_on_the_branch(thing: Thing, place: str) -> None:
    thing.git(place, "checkout", "-q", "-B", "main")
    thing.commit(place)


def committed_all_that_is_there(thing: Thing, place: str) -> None:
    thing.git(place, "checkout", "-q", "-B", "main")
    thing.write(place, "mine.txt")
    thing.git(place, "add", "--all")
    thing.git(place, "commit", "-q", "-m", "All")


def committed_on_a_detached_head(thing: Thing, place: str) -> None:
    thing.git(place, "checkout", "-q", "--detach")
    thing.commit(place)


def stashed(thing: Thing, place: str) -> None:
    thing.write(place, "kept.txt")
    thing.git(place, "stash")


def odd_names(thing: Thing, place: str) -> None:
    for name in ("two\nlines.txt", '"quoted', "-dash", "a\tb", "$(touch x)"):
        thing.write(place, name)
        thing.git(place, "add", "--", name)


ACTS = [
    staged_new_file, staged_new_file_whose_copy_is_gone, staged_change_with_the_old_copy,
    staged_change_with_the_new_copy, staged_file_that_the_new_commit_has_too, staged_change_of_a_file_that_goes,
    meant_to_be_added, edited_where_both_differ, edited_elsewhere, edited_while_it_was_to_be_written,
    edited_though_it_goes, folder_in_place_of_a_changed_file, folder_in_place_of_another_file,
    folder_in_place_of_a_file_that_comes, folder_in_place_of_a_file_that_goes, link_in_place_of_a_changed_file,
    link_in_place_of_another_file, link_in_place_of_a_folder_that_comes, staged_rename_with_changes,
    merge_without_a_commit, rebase_with_a_conflict,
    hidden_from_git("--assume-unchanged"), hidden_from_git("--skip-worktree"),
    hidden_though_it_goes, untracked, ignored, ignored_where_one_comes, committed_on_the_branch,
    committed_all_that_is_there, committed_on_a_detached_head, stashed, odd_names,
]  # fmt: skip


@pytest.mark.parametrize(
    ("act", "place"),
    [(act, "thing") for act in ACTS] + [(act, "thing/deps/lib") for act in ACTS[::5]],
    ids=lambda given: getattr(given, "__name__", given),
)
def test_what_is_done_after_an_interruption_is_kept(act: Act, place: str, thing: Thing) -> None:
    """The next update refuses or finishes; the commands that it names resolve it; the content is kept all the way."""
    new = thing.interrupt(place)
    act(thing, place)
    assert thing.has()
    result = thing.sources("update", check=None)
    assert thing.has(), "lost by the update"
    thing.sources.resolve(result=result)
    assert thing.has(), "lost by a command that was suggested"
    assert thing.sources.head("thing") == new
    assert thing.sources.head("thing/deps/lib") == thing.upstream.commit("some/lib")
    assert thing.git("thing", "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty") == ""


@pytest.mark.parametrize("place", ["thing", "thing/deps/lib"])
@pytest.mark.parametrize("at", ["folder/new.txt", "new.log", "new.txt"])
def test_an_interrupted_update_is_finished(at: str, place: str, thing: Thing) -> None:
    new = thing.interrupt(place, at)
    thing.sources("update")
    assert thing.sources.head("thing") == new
    assert thing.git("thing", "status", "--porcelain") == ""
    assert "main" in thing.git("thing", "symbolic-ref", "HEAD")


@pytest.mark.parametrize("text", ["", "n", "ne", "new"])
def test_a_file_that_is_a_beginning_of_what_comes_is_kept(text: str, thing: Thing) -> None:
    new = thing.interrupt()
    thing.write("thing", "new.txt", text)
    thing.sources.resolve()
    assert thing.sources.head("thing") == new
    assert not text or text.encode() in contents(thing.sources.path)


def test_a_mode_that_was_changed_after_an_interruption_is_kept(thing: Thing) -> None:
    new = thing.interrupt()
    for name in ("a.txt", "b.txt"):
        (thing.top / name).chmod(0o755)
    thing.sources("update", check=5)
    assert os.access(thing.top / "b.txt", os.X_OK)
    assert os.access(thing.top / "a.txt", os.X_OK)
    thing.sources.resolve()
    assert thing.sources.head("thing") == new


def test_an_edit_while_a_resumed_update_downloads_is_kept(thing: Thing, host: GitHost) -> None:
    thing.interrupt()
    new = thing.move_on()
    done: list[str] = []

    def edit() -> None:
        thing.write("thing", "a.txt")
        thing.write("thing", "deps/lib/a.txt", "precious too\n")
        done.append("edited")

    host.fault("hook", r"upload-pack\? fetch", call=edit)
    result = thing.sources("update", check=None)
    assert done
    assert thing.has() and thing.has("precious too\n")
    thing.sources.resolve(result=result)
    assert thing.has() and thing.has("precious too\n")
    assert thing.sources.head("thing") == new


def test_an_interruption_leaves_odd_file_names(thing: Thing) -> None:
    """A newline, a leading quote, a tab, and a symbolic link that leads nowhere."""
    from tests.upstream.store import File, Symlink

    names: dict[str, File | None] = dict.fromkeys(("two\nlines.txt", '"quoted', "a\tb", "-dash"), "1\n")
    names["0link"] = Symlink("nowhere")
    thing.upstream.add_commit("some/thing", "main", names)
    thing.sources("update")
    thing.upstream.add_commit("some/thing", "main", dict.fromkeys(names, "2\n") | {"0link": Symlink("elsewhere")})
    new = thing.interrupt()
    thing.sources("update")
    assert thing.sources.head("thing") == new
    assert thing.git("thing", "status", "--porcelain") == ""
    assert (thing.top / "0link").readlink().name == "elsewhere"


def test_a_dangling_link_of_the_users_after_an_interruption(thing: Thing) -> None:
    new = thing.interrupt()
    (thing.top / "new.txt").unlink(missing_ok=True)
    (thing.top / "new.txt").symlink_to("nowhere")
    thing.sources.resolve()
    assert thing.sources.head("thing") == new
    assert thing.has("nowhere")
