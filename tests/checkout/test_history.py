"""History is never cut: what a checkout had, it has after an update (ARCHITECTURE.md, guarantee 10)."""

from __future__ import annotations

from tests.sources import Sources
from tests.thing import Thing
from tests.upstream.store import Upstream, git


def count(sources: Sources, repository: str, revision: str = "HEAD") -> int:
    return int(sources.git(repository, "rev-list", "--count", revision))


def grow(upstream: Upstream, commits: int = 3) -> str:
    """Let upstream's main grow. Returns the newest commit."""
    for number in range(commits):
        upstream.add_commit("sglang", "main", {f"later{number}.txt": "later\n"})
    return upstream.commit("sglang")


def feature(sources: Sources) -> str:
    """A commit on a branch of the user's; main is checked out again. Returns the commit."""
    sources.git("sglang", "switch", "-q", "-c", "feature")
    mine = sources.commit("sglang")
    sources.git("sglang", "switch", "-q", "main")
    return mine


def test_a_users_branch_can_be_rebased_after_every_update(sglang: Sources, upstream: Upstream) -> None:
    sglang("clone")
    base = sglang.head("sglang")
    feature(sglang)
    grow(upstream)
    sglang("update")
    assert sglang.git("sglang", "merge-base", "main", "feature") == base
    sglang("update", sglang="v0.5.3")
    grow(upstream, 1)
    upstream.move_tag("sglang", "v0.9.0")
    sglang("update", sglang="v0.9.0")  # newer than what is here
    new = grow(upstream, 1)
    sglang("update", sglang="main")
    assert sglang.git("sglang", "merge-base", "main", "feature") == base
    sglang.git("sglang", "rebase", "-q", "main", "feature")
    assert sglang.git("sglang", "rev-parse", "feature~1") == new
    assert (sglang.path / "sglang/mine.txt").exists() and (sglang.path / "sglang/later2.txt").exists()


def test_git_pull_works_after_an_update(sglang: Sources, upstream: Upstream) -> None:
    sglang("clone")
    grow(upstream)
    sglang("update")
    new = grow(upstream)
    sglang.git("sglang", "pull", "-q")
    assert sglang.head("sglang") == new
    assert "up to date" in sglang("update").out


def test_what_unshallow_brought_stays(sglang: Sources, upstream: Upstream) -> None:
    sglang("clone")
    sglang.git("sglang", "fetch", "-q", "--unshallow")
    grow(upstream)
    for ref in ("v0.5.3", "release/v0.5.10", "main"):
        sglang("update", sglang=ref)
        assert not (sglang.path / "sglang/.git/shallow").exists()
        assert count(sglang, "sglang") == int(git(upstream.path("sglang"), "rev-list", "--count", ref)), ref


def test_what_unshallow_brought_to_a_submodule_stays(thing: Thing) -> None:
    thing.git("thing/deps/lib", "fetch", "-q", "--unshallow")
    before = count(thing.sources, "thing/deps/lib")
    thing.move_on()
    thing.sources("update")
    assert count(thing.sources, "thing/deps/lib") == before + 1


def test_another_branch_a_tag_and_a_commit_leave_the_history_of_main(sglang: Sources, upstream: Upstream) -> None:
    sglang("clone")
    grow(upstream)
    sglang("update")
    had = count(sglang, "sglang", "main")
    assert had > 3
    for ref in ("release/v0.5.10", "v0.5.3", upstream.commit("sglang", "main~2")):
        sglang("update", sglang=ref)
        assert count(sglang, "sglang", "main") == had, ref


def test_the_commit_of_a_force_push_that_a_branch_stands_on_stays(sglang: Sources, upstream: Upstream) -> None:
    sglang("clone")
    grow(upstream)
    sglang("update")
    base = sglang.git("sglang", "rev-parse", "main~1")
    feature(sglang)
    upstream.force_push("sglang", "main", {"forced.txt": "forced\n"})
    sglang("update")
    assert sglang.git("sglang", "merge-base", "main", "feature") == base
