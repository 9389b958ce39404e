"""Submodules that move, come and go, at any depth: nothing in them is lost, and what is there in the end is right."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.reliability.actions import INNER, OUTER, Acts, act, change_inner, change_outer, links, names, restore
from tests.sources import Sources, exhaustive, fingerprint, sound, url, work
from tests.thing import LIB, MODULES, PRECIOUS, TOP, Thing, section
from tests.upstream.store import Gitlink, Symlink, Tree, Upstream

PLACE = "thing/deps/outer/inner"
UNSAFE: list[Acts] = [
    (("edit", "deep/er/mine.txt"),),
    (("edit", "mine.log"),),
    (("edit", "a.txt"),),
    (("stage and remove", "mine.txt"),),
    (("skip worktree", "a.txt"),),
    (("to a repository", "mine"),),
    (("own clone", "mine.txt"),),  # in place of the submodule's
]
Change = tuple[Callable[[Upstream, str], None], str]
CHANGES: list[Change] = [*((change_outer, how) for how in OUTER), *((change_inner, how) for how in INNER)]
COMBINED = [(acts, PLACE, *change) for acts in UNSAFE for change in CHANGES]
COMBINED += [(acts, LIB, change_outer, "has a file above it") for acts in UNSAFE]
CHOSEN = COMBINED[:: len(CHANGES) + 3]  # each act with another change
GOES: list[Change] = [(change_outer, "has a file above it"), (change_inner, "drops")]


def label(given: object) -> str | None:
    return names(given) or getattr(given, "__name__", None) or str(given)


@pytest.mark.parametrize(
    ("acts", "place", "change", "how"),
    [*CHOSEN, *exhaustive(case for case in COMBINED if case not in CHOSEN)],
    ids=label,
)
def test_work_in_a_submodule_that_goes_stops_the_update(
    acts: Acts, place: str, change: Callable[[Upstream, str], None], how: str, nested: Thing
) -> None:
    act(nested, place, acts)
    assert nested.has()
    change(nested.upstream, how)
    before = work(nested.top)
    result = nested.sources("update", check=None)
    assert nested.has(), f"lost with status {result.status}"
    assert result.status == 5, f"status {result.status}\n{result.err}"
    assert work(nested.top) == before, "nothing changes where the update is refused"
    if acts == UNSAFE[-1]:
        (nested.sources.path / place).rename(nested.sources.path / "clone")
        (nested.sources.path / place).mkdir()
    else:
        nested.put_away(place)
    completed(nested)


def completed(thing: Thing) -> None:
    thing.sources("update")
    assert thing.has()
    assert thing.sources.head(TOP) == thing.upstream.commit("some/thing")
    sound(thing.sources, TOP)
    assert "up to date" in thing.sources("update").out


@pytest.mark.parametrize(
    ("change", "how"), [*GOES, *exhaustive(change for change in CHANGES if change not in GOES)], ids=label
)
def test_a_submodule_without_work_goes(change: Callable[[Upstream, str], None], how: str, nested: Thing) -> None:
    if how in ("drops", "moves"):
        act(nested, PLACE, (("stash", "a.txt"),))
    nested.write("", "elsewhere.txt")
    change(nested.upstream, how)
    completed(nested)
    left = nested.git(TOP, "status", "--porcelain", "--ignored", "--untracked-files=all")
    assert left == "", "no directory is left behind"
    restore(nested.upstream)
    completed(nested)


def test_commits_in_a_submodule_of_a_submodule_that_goes_are_kept(nested: Thing) -> None:
    nested.commit(PLACE)
    for how in ("drops", "moves"):
        change_outer(nested.upstream, how)
        assert nested.sources("update", check=None).status in (0, 5)
        assert nested.has()


def test_all_refusals_of_one_repository_come_together(nested: Thing) -> None:
    for number in range(5):
        nested.write(TOP, f"folder/mine{number}.txt")
        nested.git(TOP, "add", f"folder/mine{number}.txt")
    for place in (LIB, PLACE):
        nested.write(place, "a.txt")
    nested.upstream.add_commit("some/lib", "main", {"a.txt": "new\n"})
    nested.upstream.add_commit("some/inner", "main", {"a.txt": "new\n"})
    restore(nested.upstream)
    before = work(nested.sources.path)
    text = nested.sources("update", check=5).text
    assert work(nested.sources.path) == before
    assert "folder/mine0.txt" in text and "2 more" in text
    assert "deps/lib: 1 changed file (a.txt)" in text


def settled(thing: Thing, expected: Mapping[str, str]) -> None:
    """Each path has its own repository, at the commit and from the remote of the submodule there."""
    thing.sources("update")
    sound(thing.sources, TOP)
    for path, name in expected.items():
        assert thing.sources.head(f"thing/{path}") == thing.upstream.commit(f"some/{name}")
        assert thing.git(f"thing/{path}", "config", "remote.origin.url") == url(f"some/{name}")
    directories = {thing.git_dir(f"thing/{path}") for path in expected}
    assert len(directories) == len(expected)
    assert "up to date" in thing.sources("update").out


def test_another_submodule_takes_the_path_of_one_that_moved_or_of_a_tracked_link(thing: Thing) -> None:
    """As after `git mv deps/lib deps/old` and another `git submodule add` at deps/lib."""
    thing.upstream.add_commit("some/thing", "main", {"deps/alias": Symlink("lib")})
    thing.sources("update")
    other = Gitlink(thing.upstream.add_commit("some/other", "main", {"other.txt": "other\n"}))
    lib = Gitlink(thing.upstream.commit("some/lib"))
    files: Tree = {".gitmodules": MODULES + section("other", "deps/alias"), "deps/alias": other}
    thing.upstream.add_commit("some/thing", "main", files)
    settled(thing, {"deps/alias": "other", "deps/lib": "lib"})
    modules = section("lib", "deps/old") + section("other", "deps/lib")
    files = {".gitmodules": modules, "deps/alias": None, "deps/old": lib, "deps/lib": other}
    thing.upstream.add_commit("some/thing", "main", files)
    settled(thing, {"deps/old": "lib", "deps/lib": "other"})


@pytest.mark.parametrize(("old", "new"), [("group/lib", "group"), *exhaustive([("more.new", "more")])])
def test_no_repository_of_a_submodule_takes_the_place_of_another(old: str, new: str, thing: Thing) -> None:
    """A stash is in a repository below .git/modules, whose names are names of submodules."""
    link = Gitlink(thing.upstream.commit("some/lib"))
    files: Tree = {".gitmodules": section(old, "deps/old", "lib"), "deps/lib": None, "deps/old": link}
    thing.upstream.add_commit("some/thing", "main", files)
    thing.sources("update")
    thing.write("thing/deps/old", "a.txt")
    thing.git("thing/deps/old", "stash", "-q")
    files = {".gitmodules": section(new, "deps/new", "lib"), "deps/old": None, "deps/new": link}
    thing.upstream.add_commit("some/thing", "main", files)
    result = thing.sources("update", check=None)
    assert thing.has(), f"lost with status {result.status}"
    assert "Traceback" not in result.err


def test_a_link_of_the_users_in_place_of_a_submodule_stays(thing: Thing) -> None:
    clone = thing.sources.path / "clone"
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
    assert thing.sources.head(TOP) == new
    assert (clone / "a.txt").read_text() == PRECIOUS
    sound(thing.sources, TOP)


def test_line_endings_that_do_not_fit_their_attribute_are_no_change(thing: Thing) -> None:
    files = {".gitattributes": "*.crlf text\n", "dos.crlf": "one\r\ntwo\r\n"}
    lib = Gitlink(thing.upstream.add_commit("some/lib", "main", files))
    thing.upstream.add_commit("some/thing", "main", {**files, "deps/lib": lib})
    thing.sources("update")
    for place in (TOP, LIB):
        (thing.sources.path / place / "dos.crlf").touch()
        assert "dos.crlf" in thing.git(place, "status", "--porcelain")
    new = thing.move_on()
    thing.sources("update")
    assert thing.sources.head(TOP) == new
    assert "up to date" in thing.sources("update").out
    thing.write(LIB, "dos.crlf", "one\r\nmine\r\n")
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


def test_two_submodules_change_their_places_then_their_names(nested: Thing) -> None:
    link = links(nested.upstream)
    modules = section("lib", "deps/outer") + section("outer", "deps/lib")
    files: Tree = {".gitmodules": modules, "deps/outer": link["lib"], "deps/lib": link["outer"]}
    nested.upstream.add_commit("some/thing", "main", files)
    settled(nested, {"deps/outer": "lib", "deps/lib": "outer", "deps/lib/inner": "inner"})
    modules = section("outer", "deps/outer", "lib") + section("lib", "deps/lib", "outer")
    nested.upstream.add_commit("some/thing", "main", {".gitmodules": modules, "a.txt": "new\n"})
    settled(nested, {"deps/outer": "lib", "deps/lib": "outer", "deps/lib/inner": "inner"})


def test_a_gitlink_without_an_entry_in_gitmodules_is_no_news(sglang: Sources, upstream: Upstream) -> None:
    new = upstream.add_commit("sglang", "main", {"3rdparty/lost": Gitlink(upstream.commit("spdlog"))})
    sglang("clone", sglang="v0.5.3")
    sglang("update", sglang="main")
    assert sglang.head("sglang") == new
    before = fingerprint(sglang.path)
    assert "up to date" in sglang("update").out
    assert fingerprint(sglang.path) == before
    checks = sglang("verify", check=None).out
    assert not re.search(r"^.*\bfail.*3rdparty/lost", checks, re.M | re.I)
