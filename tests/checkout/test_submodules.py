"""Submodules that move, come and go, at any depth: nothing in them is lost, and what is there in the end is right."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.checkout.test_clone import sound
from tests.checkout.test_local_work import Acts, act, names
from tests.reliability import actions
from tests.reliability.actions import INNER, OUTER, change_inner, change_outer, links, restore
from tests.sources import Sources, exhaustive, fingerprint, url, work
from tests.thing import MODULES, PRECIOUS, Thing, section
from tests.upstream.store import Gitlink, Symlink, Tree, Upstream

PLACE = "thing/deps/outer/inner"
UNSAFE: list[Acts] = [
    ((actions.edit, "deep/er/mine.txt"),),
    ((actions.edit, "mine.log"),),
    ((actions.edit, "a.txt"),),
    ((actions.stage_and_remove, "mine.txt"),),
    ((actions.skip_worktree, "a.txt"),),
    ((actions.to_repository, "mine"),),
    ((actions.own_clone, "mine.txt"),),  # in place of the submodule's
]
NEW = r"\.git/modules/renamed"  # a repository that nothing refers to yet
Change = tuple[Callable[[Upstream, str], None], str]
CHANGES: list[Change] = [*((change_outer, how) for how in OUTER), *((change_inner, how) for how in INNER)]
COMBINED = [(acts, PLACE, *change) for acts in UNSAFE for change in CHANGES]
COMBINED += [(acts, "thing/deps/lib", change_outer, "has a file above it") for acts in UNSAFE]
CHOSEN = COMBINED[:: len(CHANGES) + 3]  # each act with another change
MORE = exhaustive(case for case in COMBINED if case not in CHOSEN)


def label(given: object) -> str | None:
    return names(given) or getattr(given, "__name__", None) or str(given)


@pytest.mark.parametrize(("acts", "place", "change", "how"), [*CHOSEN, *MORE], ids=label)
def test_work_in_a_submodule_that_goes_stops_the_update(
    acts: Acts, place: str, change: Callable[[Upstream, str], None], how: str, nested: Thing
) -> None:
    act(nested, place, acts)
    assert nested.has()
    change(nested.upstream, how)
    before = work(nested.top, NEW)
    result = nested.sources("update", check=None)
    assert nested.has(), f"lost with status {result.status}"
    assert result.status == 5, f"status {result.status}\n{result.err}"
    assert work(nested.top, NEW) == before, "nothing changes where the update is refused"
    if acts == UNSAFE[-1]:
        (nested.sources.path / place).rename(nested.sources.path / "clone")
        (nested.sources.path / place).mkdir()
    else:
        nested.put_away(place)
    completed(nested)


def completed(thing: Thing) -> None:
    thing.sources("update")
    assert thing.has()
    assert thing.sources.head("thing") == thing.upstream.commit("some/thing")
    sound(thing.sources, "thing")
    assert "up to date" in thing.sources("update").out


GOES: list[Change] = [
    (change_outer, "has a file above it"), (change_outer, "becomes a directory"), (change_inner, "drops"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "how"), [*GOES, *exhaustive(change for change in CHANGES if change not in GOES)], ids=label
)
def test_a_submodule_without_work_goes(change: Callable[[Upstream, str], None], how: str, nested: Thing) -> None:
    if how in ("drops", "moves"):
        act(nested, PLACE, ((actions.stash, "a.txt"),))
    nested.write("", "elsewhere.txt")
    change(nested.upstream, how)
    completed(nested)
    left = nested.git("thing", "status", "--porcelain", "--ignored", "--untracked-files=all")
    assert left == "", "no directory is left behind"


def test_commits_in_a_submodule_of_a_submodule_that_goes_are_kept(nested: Thing) -> None:
    nested.commit(PLACE)
    for how in ("drops", "moves"):
        change_outer(nested.upstream, how)
        assert nested.sources("update", check=None).status in (0, 5)
        assert nested.has()


def test_all_refusals_of_one_repository_come_together(nested: Thing) -> None:
    for number in range(5):
        nested.write("thing", f"folder/mine{number}.txt")
        nested.git("thing", "add", f"folder/mine{number}.txt")
    for place in ("thing/deps/lib", PLACE):
        nested.write(place, "a.txt")
    nested.upstream.add_commit("some/lib", "main", {"a.txt": "new\n"})
    nested.upstream.add_commit("some/inner", "main", {"a.txt": "new\n"})
    restore(nested.upstream)
    before = work(nested.sources.path)
    text = nested.sources("update", check=5).text
    assert work(nested.sources.path) == before
    assert "folder/mine0.txt" in text and "2 more" in text
    assert "deps/lib: 1 changed file (a.txt)" in text


def test_a_clone_that_was_made_by_hand_with_shallow_submodules_is_accepted(thing: Thing) -> None:
    thing.upstream.add_commit("some/lib", "main", {"later.txt": "later\n"})
    shutil.rmtree(thing.top)
    command = ["git", "clone", "-q", "--depth", "1", "--recurse-submodules", "--shallow-submodules"]
    subprocess.run([*command, url("some/thing"), thing.top], check=True)
    new = thing.move_on()
    thing.sources("update")
    assert thing.sources.head("thing") == new
    assert thing.sources.head("thing/deps/lib") == thing.upstream.commit("some/lib")
    sound(thing.sources, "thing")


def settled(thing: Thing, expected: Mapping[str, str]) -> None:
    """Each path has its own repository, at the commit and from the remote of the submodule there."""
    thing.sources("update")
    sound(thing.sources, "thing")
    for path, name in expected.items():
        assert thing.sources.head(f"thing/{path}") == thing.upstream.commit(f"some/{name}")
        assert thing.git(f"thing/{path}", "config", "remote.origin.url") == url(f"some/{name}")
        assert thing.git(f"thing/{path}", "status", "--porcelain") == ""
    directories = {thing.git_dir(f"thing/{path}") for path in expected}
    assert len(directories) == len(expected)
    assert "up to date" in thing.sources("update").out


def test_another_submodule_takes_the_path_of_one_that_moved(thing: Thing) -> None:
    """As after `git mv deps/lib deps/old` and another `git submodule add` at deps/lib."""
    other = Gitlink(thing.upstream.add_commit("some/other", "main", {"other.txt": "other\n"}))
    lib = Gitlink(thing.upstream.commit("some/lib"))
    modules = section("lib", "deps/old") + section("other", "deps/lib")
    files: Tree = {".gitmodules": modules, "deps/old": lib, "deps/lib": other}
    thing.upstream.add_commit("some/thing", "main", files)
    settled(thing, {"deps/old": "lib", "deps/lib": "other"})


def test_two_submodules_change_their_places(nested: Thing) -> None:
    link = links(nested.upstream)
    modules = section("lib", "deps/outer") + section("outer", "deps/lib")
    files: Tree = {".gitmodules": modules, "deps/outer": link["lib"], "deps/lib": link["outer"]}
    nested.upstream.add_commit("some/thing", "main", files)
    settled(nested, {"deps/outer": "lib", "deps/lib": "outer", "deps/lib/inner": "inner"})


def test_two_submodules_change_their_names(nested: Thing) -> None:
    modules = section("outer", "deps/lib", "lib") + section("lib", "deps/outer", "outer")
    nested.upstream.add_commit("some/thing", "main", {".gitmodules": modules, "a.txt": "new\n"})
    settled(nested, {"deps/outer": "outer", "deps/lib": "lib", "deps/outer/inner": "inner"})


@pytest.mark.parametrize(("old", "new"), [("group/lib", "group"), ("more.new", "more")])
def test_no_repository_of_a_submodule_takes_the_place_of_another(old: str, new: str, thing: Thing) -> None:
    """A stash is in a repository below .git/modules, whose names are names of submodules."""
    link = Gitlink(thing.upstream.commit("some/lib"))
    files: Tree = {".gitmodules": section(old, "deps/old", "lib"), "deps/lib": None, "deps/old": link}
    thing.upstream.add_commit("some/thing", "main", files)
    thing.sources("update")
    thing.write("thing/deps/old", "a.txt")
    thing.git("thing/deps/old", "stash", "-q")
    assert thing.has()
    files = {".gitmodules": section(new, "deps/new", "lib"), "deps/old": None, "deps/new": link}
    thing.upstream.add_commit("some/thing", "main", files)
    result = thing.sources("update", check=None)
    assert thing.has(), f"lost with status {result.status}"
    assert "Traceback" not in result.err


def test_a_tracked_link_that_becomes_a_submodule_is_not_followed(thing: Thing) -> None:
    thing.upstream.add_commit("some/thing", "main", {"deps/alias": Symlink("lib")})
    thing.sources("update")
    other = Gitlink(thing.upstream.add_commit("some/other", "main", {"other.txt": "other\n"}))
    modules = MODULES + section("other", "deps/alias")
    thing.upstream.add_commit("some/thing", "main", {".gitmodules": modules, "deps/alias": other})
    settled(thing, {"deps/alias": "other", "deps/lib": "lib"})


def test_a_gitlink_without_an_entry_in_gitmodules_is_no_news(flashinfer: Sources, upstream: Upstream) -> None:
    flashinfer("clone", flashinfer="v0.6.7.post3")
    commit = upstream.commit("spdlog")
    new = upstream.add_commit("flashinfer", "main", {"3rdparty/lost": Gitlink(commit)})
    flashinfer("update", flashinfer="main")
    assert flashinfer.head("flashinfer") == new
    before = fingerprint(flashinfer.path)
    assert "up to date" in flashinfer("update").out
    assert fingerprint(flashinfer.path) == before
    checks = flashinfer("verify", check=None).out
    assert not re.search(r"^.*\bfail.*3rdparty/lost", checks, re.M | re.I)


@pytest.mark.parametrize("dangling", [False, *exhaustive([(True,)])])
def test_a_link_of_the_users_in_place_of_a_submodule_stays(dangling: bool, thing: Thing) -> None:
    clone = thing.sources.path / "clone"
    if not dangling:
        subprocess.run(["git", "clone", "-q", url("some/lib"), clone], check=True)
        (clone / "a.txt").write_text(PRECIOUS)
    shutil.rmtree(thing.top / "deps/lib")
    (thing.top / "deps/lib").symlink_to(clone)
    before = work(thing.sources.path)
    new = thing.move_on()
    result = thing.sources("update", check=5)
    assert work(thing.sources.path) == before
    assert "deps/lib" in result.err and "link" in result.err
    assert "reset" not in result.err
    (thing.top / "deps/lib").unlink()
    thing.sources("update")
    assert thing.sources.head("thing") == new
    assert dangling or (clone / "a.txt").read_text() == PRECIOUS
    sound(thing.sources, "thing")


def test_line_endings_that_do_not_fit_their_attribute_are_no_change(thing: Thing) -> None:
    files = {".gitattributes": "*.crlf text\n", "dos.crlf": "one\r\ntwo\r\n"}
    lib = Gitlink(thing.upstream.add_commit("some/lib", "main", files))
    thing.upstream.add_commit("some/thing", "main", {**files, "deps/lib": lib})
    thing.sources("update")
    for place in ("thing", "thing/deps/lib"):
        (thing.sources.path / place / "dos.crlf").touch()
        assert "dos.crlf" in thing.git(place, "status", "--porcelain")
    new = thing.move_on()
    thing.sources("update")
    assert thing.sources.head("thing") == new
    assert "up to date" in thing.sources("update").out
    thing.write("thing/deps/lib", "dos.crlf", "one\r\nmine\r\n")
    lib = Gitlink(thing.upstream.add_commit("some/lib", "main", {"newer.txt": "newer\n"}))
    thing.upstream.add_commit("some/thing", "main", {"newer.txt": "newer\n", "deps/lib": lib})
    assert "deps/lib: 1 changed file (dos.crlf)" in thing.sources("update", check=5).text


def test_a_worktree_of_the_users_in_the_place_of_a_submodule_that_goes_stays(thing: Thing, tmp_path: Path) -> None:
    own, place = tmp_path / "own", thing.top / "deps/lib"
    subprocess.run(["git", "clone", "-q", thing.upstream.path("some/lib"), own], check=True)
    shutil.rmtree(place)
    subprocess.run(["git", "-C", own, "worktree", "add", "-q", "--detach", place], check=True)
    thing.upstream.add_commit("some/thing", "main", {"deps/lib": None, ".gitmodules": None})
    assert "deps/lib" in thing.sources("update", check=5).err
    assert (place / "a.txt").is_file()
