"""Submodules that move, come and go, at any depth: nothing in them is lost, and what is there in the end is right."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping

import pytest

from tests.checkout.test_clone import sound
from tests.reliability.actions import INNER, OUTER, change_inner, change_outer, links, restore
from tests.sources import Sources, fingerprint, url, work
from tests.thing import MODULES, PRECIOUS, Thing, section
from tests.upstream.store import Gitlink, Symlink, Tree, Upstream

PLACE = "thing/deps/outer/inner"
Act = Callable[[Thing, str], None]


def untracked(thing: Thing, place: str) -> None:
    thing.write(place, "deep/er/mine.txt")


def ignored(thing: Thing, place: str) -> None:
    thing.write(place, "mine.log")


def changed(thing: Thing, place: str) -> None:
    thing.write(place, "a.txt")


def staged_alone(thing: Thing, place: str) -> None:
    thing.write(place, "mine.txt")
    thing.git(place, "add", "mine.txt")
    (thing.sources.path / place / "mine.txt").unlink()


def hidden(thing: Thing, place: str) -> None:
    thing.git(place, "update-index", "--skip-worktree", "a.txt")
    thing.write(place, "a.txt")


def own_repository(thing: Thing, place: str) -> None:
    thing.write(place, "mine/first.txt", "first\n")
    thing.git(f"{place}/mine", "init", "-q")
    thing.commit(f"{place}/mine")
    (thing.sources.path / place / "mine/mine.txt").unlink()
    thing.git(f"{place}/mine", "add", "--all")
    thing.git(f"{place}/mine", "commit", "-q", "-m", "Gone from the files, not from the history")


def own_clone(thing: Thing, place: str) -> None:
    """In place of the submodule's: its work is in no repository of ours."""
    shutil.rmtree(thing.sources.path / place)
    name = place.rpartition("/")[2]
    subprocess.run(["git", "clone", "-q", url(f"some/{name}"), thing.sources.path / place], check=True)
    thing.git(place, "switch", "-q", "-c", "mine")
    thing.commit(place)


def committed(thing: Thing, place: str) -> None:
    thing.commit(place)


def stashed(thing: Thing, place: str) -> None:
    thing.write(place, "a.txt")
    thing.git(place, "stash", "-q")


def nothing(thing: Thing, place: str) -> None:
    thing.write("", "elsewhere.txt")


UNSAFE: tuple[Act, ...] = (untracked, ignored, changed, staged_alone, hidden, own_repository, own_clone)
HARMLESS: tuple[Act, ...] = (stashed, nothing)
Change = tuple[Callable[[Upstream, str], None], str]
CHANGES: list[Change] = [*((change_outer, how) for how in OUTER), *((change_inner, how) for how in INNER)]
COMBINED = [(act, PLACE, *change) for act in UNSAFE for change in CHANGES]
COMBINED += [(act, "thing/deps/lib", change_outer, "has a file above it") for act in UNSAFE]
CHOSEN = COMBINED[:: len(CHANGES) + 3]
ids = {"ids": lambda given: getattr(given, "__name__", given)}


def work_is_kept(act: Act, place: str, change: Callable[[Upstream, str], None], how: str, thing: Thing) -> None:
    act(thing, place)
    change(thing.upstream, how)
    before = work(thing.top)
    result = thing.sources("update", check=None)
    assert thing.has(), f"lost with status {result.status}"
    assert result.status == 5, f"status {result.status}\n{result.err}"
    assert work(thing.top) == before, "nothing changes where the update is refused"
    thing.put_away(place)
    if act is hidden:
        thing.git(place, "update-index", "--no-skip-worktree", "a.txt")
        thing.put_away(place)
    if act is own_clone:
        (thing.sources.path / place).rename(thing.sources.path / "clone")
        (thing.sources.path / place).mkdir()
    completed(thing)


def completed(thing: Thing) -> None:
    thing.sources("update")
    assert thing.has()
    assert thing.sources.head("thing") == thing.upstream.commit("some/thing")
    sound(thing.sources, "thing")
    assert "up to date" in thing.sources("update").out


@pytest.mark.parametrize(("act", "place", "change", "how"), CHOSEN, **ids)  # type: ignore[arg-type]
def test_work_in_a_submodule_that_goes_stops_the_update(
    act: Act, place: str, change: Callable[[Upstream, str], None], how: str, nested: Thing
) -> None:
    work_is_kept(act, place, change, how, nested)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("act", "place", "change", "how"), COMBINED, **ids)  # type: ignore[arg-type]
def test_work_in_a_submodule_that_goes_stops_every_update(
    act: Act, place: str, change: Callable[[Upstream, str], None], how: str, nested: Thing
) -> None:
    work_is_kept(act, place, change, how, nested)


@pytest.mark.parametrize(("change", "how"), CHANGES, **ids)  # type: ignore[arg-type]
def test_a_submodule_without_work_goes(change: Callable[[Upstream, str], None], how: str, nested: Thing) -> None:
    (stashed if how in ("drops", "moves") else nothing)(nested, PLACE)
    change(nested.upstream, how)
    completed(nested)
    left = nested.git("thing", "status", "--porcelain", "--ignored", "--untracked-files=all")
    assert left == "", "no directory is left behind"


@pytest.mark.parametrize("act", [committed], ids=["committed"])
def test_commits_in_a_submodule_of_a_submodule_that_goes_are_kept(act: Act, nested: Thing) -> None:
    act(nested, PLACE)
    change_outer(nested.upstream, "drops")
    result = nested.sources("update", check=None)
    assert result.status in (0, 5)
    assert nested.has()
    change_outer(nested.upstream, "moves")
    assert nested.sources("update", check=None).status in (0, 5)
    assert nested.has()


def test_all_refusals_of_one_repository_come_together(nested: Thing) -> None:
    for number in range(5):
        nested.write("thing", f"folder/mine{number}.txt")
        nested.git("thing", "add", f"folder/mine{number}.txt")
    for place in ("thing/deps/lib", PLACE):
        changed(nested, place)
    nested.upstream.add_commit("some/lib", "main", {"a.txt": "new\n"})
    nested.upstream.add_commit("some/inner", "main", {"a.txt": "new\n"})
    restore(nested.upstream)
    before = work(nested.sources.path)
    text = " ".join(nested.sources("update", check=5).err.split())
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


def remote(thing: Thing, place: str) -> str:
    return thing.git(place, "config", "remote.origin.url")


def settled(thing: Thing, expected: Mapping[str, str]) -> None:
    """Each path has its own repository, at the commit and from the remote of the submodule there."""
    thing.sources("update")
    sound(thing.sources, "thing")
    for path, name in expected.items():
        assert thing.sources.head(f"thing/{path}") == thing.upstream.commit(f"some/{name}")
        assert remote(thing, f"thing/{path}") == url(f"some/{name}")
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


@pytest.mark.parametrize("dangling", [False, True])
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


@pytest.mark.parametrize("place", ["thing", "thing/deps/lib"])
def test_line_endings_that_do_not_fit_their_attribute_are_no_change(place: str, thing: Thing) -> None:
    files = {".gitattributes": "*.crlf text\n", "dos.crlf": "one\r\ntwo\r\n"}
    lib = Gitlink(thing.upstream.add_commit("some/lib", "main", files))
    thing.upstream.add_commit("some/thing", "main", {**files, "deps/lib": lib})
    thing.sources("update")
    (thing.sources.path / place / "dos.crlf").touch()
    assert "dos.crlf" in thing.git(place, "status", "--porcelain")
    new = thing.move_on()
    thing.sources("update")
    assert thing.sources.head("thing") == new
    assert "up to date" in thing.sources("update").out
    thing.write(place, "dos.crlf", "one\r\nmine\r\n")
    thing.upstream.add_commit("some/lib", "main", {"newer.txt": "newer\n"})
    lib = Gitlink(thing.upstream.commit("some/lib"))
    thing.upstream.add_commit("some/thing", "main", {"newer.txt": "newer\n", "deps/lib": lib})
    assert "dos.crlf" in thing.sources("update", check=5).err
