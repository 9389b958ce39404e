"""History is never cut: what a checkout had, it has after an update (ARCHITECTURE.md, guarantee 10)."""

from __future__ import annotations

from tests.sources import Sources
from tests.thing import LIB, TOP, Thing
from tests.upstream.store import Upstream


def count(sources: Sources, repository: str, revision: str = "HEAD") -> int:
    return int(sources.git(repository, "rev-list", "--count", revision))


def test_a_users_branch_can_be_rebased_after_every_update(sglang: Sources, upstream: Upstream) -> None:
    sglang("clone")
    base = sglang.head("sglang")
    sglang.git("sglang", "switch", "-q", "-c", "feature")
    sglang.commit("sglang")
    sglang.git("sglang", "switch", "-q", "main")
    for number in range(3):
        upstream.add_commit("sglang", "main", {f"later{number}.txt": "later\n"})
    sglang("update")
    had = count(sglang, "sglang", "main")
    assert had == 4
    upstream.move_tag("sglang", "v0.9.0", upstream.add_commit("sglang", "main"))  # newer than what is here
    for ref in ("release/v0.5.10", "v0.5.3", upstream.commit("sglang", "main~2"), "v0.9.0"):
        sglang("update", sglang=ref)
        assert count(sglang, "sglang", "main") == had, ref
    new = upstream.add_commit("sglang", "main")
    sglang("update", sglang="main")
    assert sglang.git("sglang", "merge-base", "main", "feature") == base
    sglang.git("sglang", "rebase", "-q", "main", "feature")
    assert sglang.git("sglang", "rev-parse", "feature~1") == new
    assert (sglang.path / "sglang/mine.txt").exists() and (sglang.path / "sglang/later2.txt").exists()


def test_what_unshallow_brought_stays_in_the_checkout_and_in_a_submodule(thing: Thing) -> None:
    before = {}
    for place in (TOP, LIB):
        thing.git(place, "fetch", "-q", "--unshallow")
        before[place] = count(thing.sources, place, "origin/main" if place == TOP else "HEAD")
    thing.move_on()
    for ref in ("main", "v1.0", "main"):
        thing.sources.repositories["thing"]["branch"] = ref
        thing.sources("update")
    assert {place: count(thing.sources, place) - 1 for place in before} == before
    assert not (thing.git_dir(TOP) / "shallow").exists()


def test_the_commit_of_a_force_push_that_a_branch_stands_on_stays(thing: Thing) -> None:
    thing.move_on()
    thing.sources("update")
    base = thing.sources.head(TOP)
    thing.git(TOP, "switch", "-q", "-c", "feature")
    thing.commit(TOP)
    thing.git(TOP, "switch", "-q", "main")
    new = thing.upstream.force_push("some/thing", "main", {"forced.txt": "forced\n"})
    thing.sources("update")
    assert thing.sources.head(TOP) == new
    assert thing.git(TOP, "rev-parse", "feature~1") == base
