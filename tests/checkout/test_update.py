"""`update` moves an unchanged checkout to what its REF is on the remote now."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.checkout.test_clone import submodules
from tests.sources import Sources, exhaustive, fingerprint, sound, url
from tests.upstream.host import GitHost
from tests.upstream.store import Gitlink, Tree, Upstream


def test_a_checkout_moves_between_branches_tags_and_commits(sglang: Sources, upstream: Upstream) -> None:
    commit = upstream.commit("sglang", "main~2")
    sglang("clone")
    for ref, revision, branch in (
        ("v0.5.3", "v0.5.3", ""),
        ("latest", "v0.5.23", ""),
        ("refs/heads/release/v0.5.10", "release/v0.5.10", "release/v0.5.10"),
        (commit, commit, ""),
        ("main", "main", "main"),
    ):
        old, new = sglang.head("sglang"), upstream.commit("sglang", revision)
        result = sglang("update", sglang=ref)
        assert sglang.head("sglang") == new
        assert sglang.git("sglang", "branch", "--show-current") == branch
        assert f"{old[:10]} → {new[:10]}" in result.out
        sound(sglang, "sglang")


def test_a_checkout_moves_between_all_layouts(
    flashinfer: Sources, upstream: Upstream, host: GitHost
) -> None:
    flashinfer("clone", flashinfer="v0.2.0")
    for ref, version in (("main", "0.7.4"), ("v0.1.6", "0.1.6"), ("v0.3.0", "0.3.0")):
        result = flashinfer("update", flashinfer=ref)
        assert flashinfer.head("flashinfer") == upstream.commit("flashinfer", ref)
        assert re.search(rf"→ {ref}, .*, {re.escape(version)}$", result.out, re.M)
        for path, commit in submodules(upstream, ref).items():
            assert flashinfer.head(f"flashinfer/{path}") == commit
        sound(flashinfer, "flashinfer")
    assert not (flashinfer.path / "flashinfer/3rdparty/nvbench").exists()
    host.reset()
    flashinfer("update", flashinfer="v0.2.0")
    assert (flashinfer.path / "flashinfer/3rdparty/nvbench/README.md").exists()
    assert host.count("nvbench") == 0, "a removed submodule comes back without a download"
    sound(flashinfer, "flashinfer")


def test_a_ref_that_was_given_as_an_option_is_kept_until_the_configuration_changes(
    sglang: Sources, upstream: Upstream
) -> None:
    sglang("clone", sglang="v0.4.0")
    assert "up to date: v0.4.0" in sglang("update").out
    sglang("update", sglang="v0.5.3")
    upstream.add_commit("sglang", "main")
    sglang("update")
    assert sglang.head("sglang") == upstream.commit("sglang", "v0.5.3")
    sglang.repositories["sglang"]["branch"] = "release/v0.5.10"
    sglang("update")
    assert sglang.head("sglang") == upstream.commit("sglang", "release/v0.5.10")
    before = fingerprint(sglang.path)
    upstream.delete_ref("sglang", "refs/heads/release/v0.5.10")
    assert "release/v0.5.10" in sglang("update", check=2).err
    assert fingerprint(sglang.path) == before


SHALLOW = "--depth=1 --recurse-submodules --shallow-submodules"
BY_HAND = [SHALLOW, *exhaustive([("--recurse-submodules",), ("-q",), ("--depth=1",), ("--filter=blob:none",)])]


@pytest.mark.parametrize("how", BY_HAND)
def test_a_clone_made_by_hand_is_updated(how: str, flashinfer: Sources, upstream: Upstream) -> None:
    flashinfer.path.mkdir()
    command = ["git", "clone", "-q", *how.split(), url("flashinfer"), str(flashinfer.path / "flashinfer")]
    subprocess.run(command, check=True)
    if "--recurse-submodules" in how:
        assert "up to date: main (" in flashinfer("update").out
    newer = upstream.add_commit("spdlog", "main", {"include/newer.h": "// newer\n"})
    upstream.add_commit("flashinfer", "main", {"new.txt": "new\n", "3rdparty/spdlog": Gitlink(newer)})
    flashinfer("update")
    assert (flashinfer.path / "flashinfer/new.txt").exists()
    assert flashinfer.head("flashinfer/3rdparty/spdlog") == newer
    sound(flashinfer, "flashinfer")
    flashinfer("update", flashinfer="v0.2.0")
    sound(flashinfer, "flashinfer/3rdparty/cutlass")


def test_submodules_move_with_their_commits_urls_and_names(flashinfer: Sources, upstream: Upstream) -> None:
    flashinfer("clone", flashinfer="v0.6.7.post3")
    elsewhere = upstream.add_commit("fork/cutlass", "main", {"include/fork.h": "// fork\n"})
    modules = upstream.read("flashinfer", ".gitmodules", "main").replace(url("cutlass"), url("fork/cutlass"))
    files: Tree = {".gitmodules": modules, "3rdparty/cutlass": Gitlink(elsewhere)}
    upstream.add_commit("flashinfer", "main", files)
    flashinfer("update", flashinfer="main")
    assert (flashinfer.path / "flashinfer/3rdparty/cutlass/include/fork.h").exists()
    assert flashinfer.git("flashinfer/3rdparty/cutlass", "config", "remote.origin.url") == url("fork/cutlass")
    modules = modules.replace('"3rdparty/spdlog"', '"spdlog"')
    newer = upstream.add_commit("spdlog", "main", {"include/newer.h": "// newer\n"})
    upstream.add_commit("flashinfer", "main", {".gitmodules": modules, "3rdparty/spdlog": Gitlink(newer)})
    flashinfer("update")
    assert (flashinfer.path / "flashinfer/3rdparty/spdlog/include/newer.h").exists()
    sound(flashinfer, "flashinfer")
