"""A run that ends between two of its steps, by a signal or an error, is finished by the next one; and states that a
user's own commands lead to."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tasks.checkout import move, sparse, vanish
from tasks.errors import NetworkError
from tasks.git import fetch, submodules
from tests.sources import sound
from tests.thing import FILES, LIB, MODULES, TOP, Thing, section
from tests.upstream.store import Gitlink, Tree

SHIPPED = """[tool.setuptools.package-dir]
"thing" = "thing"
"thing.data.lib" = "deps/lib"
[tool.setuptools.package-data]
"thing.data.lib" = [{}]
"""


class Killed(BaseException):
    """What no code of the tasks handles."""


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`kill(thing, task, module, function)` ends the task where it would call the function, for the checkout whose name
    ends with `where`; what this process has remembered is forgotten, as by another process."""

    def kill(thing: Thing, task: str, module: ModuleType, function: str, where: str = "", **options: Any) -> None:
        step = getattr(module, function)

        def ended(first: Any, *others: Any) -> Any:
            if not where or getattr(first, "checkout", first).name.endswith(where):
                raise Killed
            return step(first, *others)

        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(module, function, ended)
            thing.sources(task, check=None, **options)
        forget()

    return kill


def forget() -> None:
    vanish._leaving.cache_clear()
    submodules.declared.cache_clear()


def ships(thing: Thing, *directories: str) -> None:
    """Let upstream's package ship these directories of the submodule."""
    patterns = ", ".join(f'"{directory}/**"' for directory in directories)
    thing.upstream.add_commit("some/thing", "main", {"pyproject.toml": SHIPPED.format(patterns)})


@pytest.fixture
def slim(thing: Thing) -> Thing:
    """The small repository with one of two directories of its submodule."""
    lib = thing.upstream.add_commit("some/lib", "main", {f"{name}/x.h": "x\n" for name in ("one", "two")})
    thing.upstream.add_commit("some/thing", "main", {"deps/lib": Gitlink(lib)})
    ships(thing, "one")
    shutil.rmtree(thing.top)
    thing.sources("clone")
    assert (thing.top / "deps/lib/one").exists() and not (thing.top / "deps/lib/two").exists()
    return thing


def test_a_clone_that_continues_at_another_commit_has_its_submodules(nested: Thing, kill: Callable[..., None]) -> None:
    shutil.rmtree(nested.top)
    kill(nested, "clone", fetch, "bring_tag")
    nested.move_on()
    nested.upstream.add_commit("some/thing", "main", {".gitmodules": MODULES, "deps/outer": None})
    nested.upstream.add_commit("some/thing", "main", {"deps/outer/a.txt": "vendored\n"})
    nested.sources("clone")
    sound(nested.sources, TOP)


@pytest.mark.parametrize("task", ["clone", "update"])
def test_a_submodule_without_its_own_submodule_gets_it(thing: Thing, task: str, kill: Callable[..., None]) -> None:
    inner = Gitlink(thing.upstream.add_commit("some/inner", "main", FILES))
    tree: Tree = {**FILES, ".gitmodules": section("inner", "inner"), "inner": inner}
    outer = Gitlink(thing.upstream.add_commit("some/outer", "main", tree))
    modules = MODULES + section("outer", "deps/outer")
    thing.upstream.add_commit("some/thing", "main", {".gitmodules": modules, "deps/outer": outer})
    if task == "clone":
        shutil.rmtree(thing.top)
    kill(thing, task, move, "_attach", "inner")
    thing.sources(task)
    sound(thing.sources, TOP)
    thing.git("thing/deps/outer", "submodule", "deinit", "-f", "inner")
    thing.sources("update")
    sound(thing.sources, TOP)


@pytest.mark.parametrize("ref", ["main", "v1.2"])
def test_directories_that_a_killed_run_did_not_set_are_there(slim: Thing, ref: str, kill: Callable[..., None]) -> None:
    ships(slim, "one", "two")
    slim.upstream.move_tag("some/thing", "v1.2")
    slim.sources.repositories["thing"]["branch"] = ref
    kill(slim, "update", sparse, "set_directories", "lib")
    slim.sources("update")
    assert (slim.top / "deps/lib/two").exists()


def test_a_submodule_that_full_did_not_reach_becomes_full_in_the_next_run(
    slim: Thing, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring = fetch.bring

    def failing(checkout: Any, *others: Any) -> None:
        if checkout.name.endswith("lib"):
            raise NetworkError("no network")
        bring(checkout, *others)

    with monkeypatch.context() as patched:
        patched.setattr(fetch, "bring", failing)
        slim.sources("update", check=3, full=True)
    slim.sources("update", full=True)
    assert (slim.top / "deps/lib/two").exists()
    assert not (slim.git_dir(LIB) / "shallow").exists()


def test_what_is_kept_of_a_slim_submodule_has_its_other_directories(slim: Thing) -> None:
    slim.interrupt(LIB)
    slim.write(LIB, "a.txt")
    slim.sources("update")
    kept = slim.git(LIB, "for-each-ref", "--format=%(refname)", "refs/rescue")
    assert {"a.txt", "two/x.h"} <= {*slim.git(LIB, "ls-tree", "-r", "--name-only", kept).split("\n")}
    sound(slim.sources, TOP)


@pytest.mark.parametrize("vendored", ["deps/lib/x.txt", "deps/lib"])
def test_a_submodule_that_was_taken_away_before_the_kill_is_vendored(
    thing: Thing, vendored: str, kill: Callable[..., None]
) -> None:
    thing.upstream.add_commit("some/thing", "main", {".gitmodules": None, "deps/lib": None})
    thing.upstream.add_commit("some/thing", "main", {vendored: "x\n"})
    kill(thing, "update", move, "attach")
    thing.sources("update")
    sound(thing.sources, TOP)


def test_a_branch_that_was_made_after_a_kill_is_named(thing: Thing, kill: Callable[..., None]) -> None:
    thing.move_on()
    kill(thing, "update", move, "move_branch")
    thing.git(TOP, "switch", "-q", "-c", "mine")
    mine = thing.commit(TOP)
    result = thing.sources("update")
    assert "HEAD leaves the branch mine, which stays" in result.out
    assert thing.git(TOP, "rev-parse", "mine") == mine


@pytest.mark.parametrize("place", [TOP, LIB])
def test_what_git_add_refuses_after_an_interruption_is_not_lost(thing: Thing, place: str) -> None:
    thing.interrupt(place)
    thing.git(place, "config", "filter.broken.clean", "false")
    thing.git(place, "config", "filter.broken.required", "true")
    attributes = thing.git_dir(place) / "info/attributes"
    attributes.parent.mkdir(exist_ok=True)
    attributes.write_text("kept.txt filter=broken\n")
    thing.write(place, "b.txt")
    thing.write(place, "kept.txt", "changed\n")
    thing.sources("update", check=None)
    assert thing.has()


def test_an_untracked_file_in_a_sparse_checkout_is_kept_where_a_submodule_leaves(thing: Thing) -> None:
    thing.git(TOP, "sparse-checkout", "set", "--cone", "deps", "folder")
    thing.write(TOP, "folder/new.txt")
    thing.upstream.add_commit("some/thing", "main", {"folder/new.txt": "new\n", ".gitmodules": None, "deps/lib": None})
    thing.sources("update", check=5)
    assert thing.has()


def test_empty_directories_in_the_place_of_a_submodule_are_no_obstacle(thing: Thing) -> None:
    thing.git(TOP, "submodule", "deinit", "-f", "deps/lib")
    (thing.top / "deps/lib/build").mkdir()
    thing.sources("update")
    sound(thing.sources, TOP)
