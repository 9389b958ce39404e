"""Whose branch it is, which remote is the configured one, and names that get into each other's way."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from tests.sources import IDENTITY, Sources, exhaustive, fingerprint, url
from tests.thing import PRECIOUS, Thing
from tests.upstream.store import Upstream


def on_a_branch(sources: Sources, *, commit: bool = True) -> str:
    """Let the user work on a branch. Returns its commit."""
    sources.git("sglang", "switch", "-q", "-c", "my-kernel")
    return sources.commit("sglang") if commit else sources.head("sglang")


@pytest.mark.parametrize("commit", [True, *exhaustive([(False,)])])
def test_a_users_branch_is_kept_and_the_way_on_is_named(commit: bool, sglang: Sources, upstream: Upstream) -> None:
    sglang("clone")
    mine = on_a_branch(sglang, commit=commit)
    new = upstream.add_commit("sglang", "main", {"new.txt": "new\n"})
    result = sglang("update")
    assert sglang.head("sglang") == mine
    assert sglang.git("sglang", "branch", "--show-current") == "my-kernel"
    assert sglang.git("sglang", "rev-parse", "origin/main") == new
    assert f"kept: your branch my-kernel; main is at {new[:10]}" in result.text
    (command,) = set(re.findall(r"git -C \S+ rebase \S*/main", result.out + result.err))
    environ = {**os.environ, **IDENTITY}
    subprocess.run(["sh", "-c", command], cwd=sglang.path.parent, env=environ, check=True, capture_output=True)
    assert sglang.git("sglang", "merge-base", "HEAD", new) == new
    assert (sglang.path / "sglang/mine.txt").exists() == commit
    assert "kept: your branch my-kernel" in sglang("update").text


def test_changed_files_on_a_users_branch_are_no_obstacle(sglang: Sources, upstream: Upstream) -> None:
    sglang("clone")
    on_a_branch(sglang)
    (sglang.path / "sglang/README.md").write_text(PRECIOUS)
    (sglang.path / "sglang/new.txt").write_text(PRECIOUS)
    before = fingerprint(sglang.path / "sglang", r"^\.git/")
    upstream.add_commit("sglang", "main", {"new.txt": "new\n", "README.md": "new\n"})
    assert "kept" in sglang("update").out
    assert fingerprint(sglang.path / "sglang", r"^\.git/") == before


def test_a_users_branch_is_kept_whatever_ref_is_remembered(sglang: Sources) -> None:
    sglang("clone", sglang="v0.5.3")
    mine = on_a_branch(sglang)
    assert "my-kernel" in sglang("update").text
    assert sglang.head("sglang") == mine


def test_a_ref_given_as_an_option_leaves_the_branch_and_names_the_way_back(sglang: Sources, upstream: Upstream) -> None:
    sglang("clone")
    mine = on_a_branch(sglang)
    new = upstream.add_commit("sglang", "main", {"new.txt": "new\n"})
    result = sglang("update", sglang="main")
    assert sglang.head("sglang") == new
    assert sglang.git("sglang", "rev-parse", "my-kernel") == mine
    (command,) = set(re.findall(r"git -C \S+ (?:switch|checkout) my-kernel", result.out + result.err))
    subprocess.run(["sh", "-c", command], cwd=sglang.path.parent, check=True, capture_output=True)
    assert sglang.head("sglang") == mine


def test_a_ref_given_as_an_option_is_refused_where_the_branch_has_changed_files(
    sglang: Sources, upstream: Upstream
) -> None:
    sglang("clone")
    mine = on_a_branch(sglang)
    (sglang.path / "sglang/README.md").write_text(PRECIOUS)
    upstream.add_commit("sglang", "main", {"README.md": "new\n"})
    assert "README.md" in sglang("update", check=5, sglang="main").err
    assert sglang.head("sglang") == mine
    assert (sglang.path / "sglang/README.md").read_text() == PRECIOUS


@pytest.fixture
def fork(sglang: Sources, upstream: Upstream) -> Sources:
    """A clone of the user's fork, which is behind."""
    shutil.copytree(upstream.path("sglang"), upstream.path("somebody/sglang"))
    sglang.path.mkdir()
    subprocess.run(["git", "clone", "-q", url("somebody/sglang"), sglang.path / "sglang"], check=True)
    return sglang


def test_any_remote_with_the_configured_url_is_fetched_from(fork: Sources, upstream: Upstream) -> None:
    fork.git("sglang", "remote", "add", "upstream", url("sglang"))
    new = upstream.add_commit("sglang", "main", {"new.txt": "new\n"})
    fork("update")
    assert fork.head("sglang") == new
    assert fork.git("sglang", "config", "remote.origin.url") == url("somebody/sglang")
    assert fork.git("sglang", "rev-parse", "upstream/main") == new
    newer = upstream.add_commit("sglang", "main", {"new.txt": "newer\n"})
    fork("update")
    assert fork.head("sglang") == newer
    assert "up to date" in fork("update").out


def test_a_fork_without_the_configured_remote_is_advised_to_be_configured(fork: Sources) -> None:
    before = fingerprint(fork.path)
    result = fork("update", check=5)
    assert fingerprint(fork.path) == before
    text = result.text
    assert f"sources.repositories.sglang.url: {url('somebody/sglang')}" in text
    assert "set-url" not in text, "the user's pushes would go elsewhere"
    assert "local changes" not in text
    fork.repositories["sglang"]["url"] = url("somebody/sglang")
    fork("update")


def test_a_local_tag_below_the_name_of_a_release_is_no_obstacle(sglang: Sources, upstream: Upstream) -> None:
    sglang("clone")
    sglang.git("sglang", "tag", "v0.6.0/wip")
    wip = sglang.git("sglang", "rev-parse", "v0.6.0/wip")
    new = upstream.add_commit("sglang", "main", {"new.txt": "new\n"})
    upstream.move_tag("sglang", "v0.6.0", new)
    sglang("update")
    assert sglang.head("sglang") == new
    assert sglang.git("sglang", "branch", "--show-current") == "main"
    assert "up to date" in sglang("update").out
    result = sglang("update", check=None, sglang="v0.6.0")
    assert result.status in (0, 5) and "Traceback" not in result.err
    assert sglang.git("sglang", "branch", "--show-current") == ("main" if result.status else "")
    assert sglang.git("sglang", "rev-parse", "v0.6.0/wip") == wip
    assert sglang("update", check=None, sglang="v0.6.0").status == result.status


def without_tags(upstream: Upstream) -> None:
    (upstream.path("sglang") / "packed-refs").unlink(missing_ok=True)
    for tag in subprocess.run(
        ["git", "for-each-ref", "--format=%(refname)", "refs/tags"],
        cwd=upstream.path("sglang"), capture_output=True, text=True, check=True,
    ).stdout.split():  # fmt: skip
        upstream.delete_ref("sglang", tag)


@pytest.mark.parametrize("ref", ["latest", "v0.5.3"])
def test_a_remote_without_tags_is_said_to_have_none(ref: str, sglang: Sources, upstream: Upstream) -> None:
    without_tags(upstream)
    text = sglang("clone", check=2, sglang=ref).text
    assert "no tags" in text or "no release tag" in text
    assert re.search(r"git (-C \S+ )?push \S+ --tags", text)
    assert ref == "latest" or "latest" not in text


def test_the_names_that_are_suggested_can_be_used(sglang: Sources) -> None:
    assert "matching" not in sglang("clone", check=2, sglang="matchin").err.replace("'matchin'", "")


def test_an_unborn_branch_is_called_one_and_kept(thing: Thing) -> None:
    thing.git("thing", "switch", "-q", "--orphan", "fresh")
    thing.write("thing", "mine.txt")
    before = fingerprint(thing.top, r"^\.git/")
    thing.move_on()
    result = thing.sources("update", check=None)
    assert result.status in (0, 5)
    assert "fresh" in result.text
    assert not re.search(r"^ +mv ", result.err, re.M)
    assert fingerprint(thing.top, r"^\.git/") == before


def test_a_linked_worktree_in_the_place_of_a_checkout_keeps_its_index(thing: Thing) -> None:
    shutil.rmtree(thing.top)
    real = thing.sources.path.parent / "real"
    subprocess.run(["git", "clone", "-q", url("some/thing"), real], check=True)
    subprocess.run(["git", "worktree", "add", "-q", "-b", "mine", thing.top], cwd=real, check=True)
    thing.write("thing", "mine.txt")
    thing.git("thing", "add", "mine.txt")
    thing.move_on()
    result = thing.sources("update", check=None)
    assert result.status in (0, 5)
    assert not re.search(r"^ +mv ", result.err, re.M), "`git worktree prune` would delete its index then"
    if result.status:
        assert "worktree" in result.err and "not a checkout" not in result.err
        for command in re.findall(r"^ +(git .*worktree .*)$", result.err, re.M):
            subprocess.run(["sh", "-c", command], cwd=thing.sources.path, check=True, capture_output=True)
    subprocess.run(["git", "worktree", "prune"], cwd=real, check=True)
    listed = subprocess.run(["git", "worktree", "list"], cwd=real, capture_output=True, text=True, check=True)
    place = next(line.split()[0] for line in listed.stdout.splitlines() if "[mine]" in line)
    staged = subprocess.run(["git", "show", ":mine.txt"], cwd=place, capture_output=True, text=True, check=True)
    assert staged.stdout == f"{PRECIOUS}\n"
