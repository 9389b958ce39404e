"""Whose branch it is, which remote is the configured one, and names that get into each other's way."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.sources import IDENTITY, Sources, fingerprint, url
from tests.thing import PRECIOUS, Thing
from tests.upstream.store import Upstream


def follow(command: str, folder: Path) -> None:
    """Run a command that a message names."""
    subprocess.run(["sh", "-c", command], cwd=folder, env={**os.environ, **IDENTITY}, check=True, capture_output=True)


def test_a_users_branch_is_kept_with_changed_files_and_the_way_on_is_named(sglang: Sources, upstream: Upstream) -> None:
    sglang("clone")
    sglang.git("sglang", "switch", "-q", "-c", "my-kernel")
    mine = sglang.commit("sglang")
    for name in ("README.md", "untracked.txt"):
        (sglang.path / "sglang" / name).write_text(PRECIOUS)
    before = fingerprint(sglang.path / "sglang", r"^\.git/")
    new = upstream.add_commit("sglang", "main", {"untracked.txt": "new\n", "README.md": "new\n"})
    result = sglang("update")
    assert fingerprint(sglang.path / "sglang", r"^\.git/") == before
    assert sglang.head("sglang") == mine
    assert sglang.git("sglang", "branch", "--show-current") == "my-kernel"
    assert sglang.git("sglang", "rev-parse", "origin/main") == new
    assert f"kept: your branch my-kernel; main is at {new[:10]}" in result.text
    assert "kept: your branch my-kernel" in sglang("update").text
    sglang.git("sglang", "stash", "-u")
    (command,) = set(re.findall(r"git -C \S+ rebase \S*/main", result.out + result.err))
    follow(command, sglang.path.parent)
    assert sglang.git("sglang", "merge-base", "HEAD", new) == new
    assert (sglang.path / "sglang/mine.txt").exists()


def test_a_ref_given_as_an_option_leaves_a_branch_without_changes_and_names_the_way_back(
    sglang: Sources, upstream: Upstream
) -> None:
    sglang("clone", sglang="v0.5.3")
    sglang.git("sglang", "switch", "-q", "-c", "my-kernel")
    mine = sglang.commit("sglang")
    assert "my-kernel" in sglang("update").text
    (sglang.path / "sglang/README.md").write_text(PRECIOUS)
    new = upstream.add_commit("sglang", "main", {"README.md": "new\n"})
    assert "README.md" in sglang("update", check=5, sglang="main").err
    assert sglang.head("sglang") == mine
    assert (sglang.path / "sglang/README.md").read_text() == PRECIOUS
    sglang.git("sglang", "stash")
    result = sglang("update", sglang="main")
    assert sglang.head("sglang") == new
    assert sglang.git("sglang", "rev-parse", "my-kernel") == mine
    (command,) = set(re.findall(r"git -C \S+ (?:switch|checkout) my-kernel", result.out + result.err))
    follow(command, sglang.path.parent)
    assert sglang.head("sglang") == mine


def test_any_remote_with_the_configured_url_is_fetched_from_and_without_one_the_configuration_is_advised(
    sglang: Sources, upstream: Upstream
) -> None:
    """The user has cloned a fork, which is behind."""
    shutil.copytree(upstream.path("sglang"), upstream.path("somebody/sglang"))
    sglang.path.mkdir()
    subprocess.run(["git", "clone", "-q", url("somebody/sglang"), sglang.path / "sglang"], check=True)
    before = fingerprint(sglang.path)
    text = sglang("update", check=5).text
    assert fingerprint(sglang.path) == before
    assert f"sources.repositories.sglang.url: {url('somebody/sglang')}" in text
    assert "set-url" not in text, "the user's pushes would go elsewhere"
    assert "local changes" not in text
    sglang.git("sglang", "remote", "add", "upstream", url("sglang"))
    for number in range(2):
        new = upstream.add_commit("sglang", "main", {"new.txt": f"{number}\n"})
        sglang("update")
        assert sglang.head("sglang") == new == sglang.git("sglang", "rev-parse", "upstream/main")
    assert sglang.git("sglang", "config", "remote.origin.url") == url("somebody/sglang")
    assert "up to date" in sglang("update").out


def test_a_linked_worktree_in_the_place_of_a_checkout_keeps_its_index(thing: Thing) -> None:
    shutil.rmtree(thing.top)
    real = thing.sources.path / "real"
    subprocess.run(["git", "clone", "-q", url("some/thing"), real], check=True)
    thing.git("real", "worktree", "add", "-q", "-b", "mine", str(thing.top))
    thing.write("thing", "mine.txt")
    thing.git("thing", "add", "mine.txt")
    thing.move_on()
    result = thing.sources("update", check=None)
    assert result.status in (0, 5)
    assert not re.search(r"^ +mv ", result.err, re.M), "`git worktree prune` would delete its index then"
    if result.status:
        assert "worktree" in result.err and "not a checkout" not in result.err
        for command in re.findall(r"^ +(git .*worktree .*)$", result.err, re.M):
            follow(command, thing.sources.path)
    thing.git("real", "worktree", "prune")
    listed = thing.git("real", "worktree", "list").split("\n")
    place = next(line.split()[0] for line in listed if "[mine]" in line)
    assert thing.git(place, "show", ":mine.txt") == PRECIOUS


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
    assert sglang.git("sglang", "rev-parse", "v0.6.0/wip") == wip


def test_a_remote_without_tags_is_said_to_have_none_and_no_other_word_is_suggested(
    sglang: Sources, upstream: Upstream
) -> None:
    assert "matching" not in sglang("clone", check=2, sglang="matchin").err.replace("'matchin'", "")
    (upstream.path("sglang") / "packed-refs").unlink(missing_ok=True)
    shutil.rmtree(upstream.path("sglang") / "refs/tags")
    for ref in ("latest", "v0.5.3"):
        text = sglang("clone", check=2, sglang=ref).text
        assert "no tags" in text or "no release tag" in text
        assert re.search(r"git (-C \S+ )?push \S+ --tags", text)
        assert ref == "latest" or "latest" not in text


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
