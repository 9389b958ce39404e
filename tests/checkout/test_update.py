"""`update` moves an unchanged checkout to what its REF is on the remote now."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.checkout.test_clone import sound, submodules
from tests.sources import Sources, exhaustive, fingerprint, url
from tests.upstream.host import GitHost
from tests.upstream.store import Gitlink, Tree, Upstream, git


def test_a_checkout_moves_between_branches_tags_and_commits(sglang: Sources, upstream: Upstream) -> None:
    commit = upstream.commit("sglang", "main~2")
    sglang("clone")
    for ref, revision, branch in (
        ("v0.5.3", "v0.5.3", ""),
        ("latest", "v0.5.23", ""),
        ("release/v0.5.10", "release/v0.5.10", "release/v0.5.10"),
        (commit, commit, ""),
        ("main", "main", "main"),
    ):
        old, new = sglang.head("sglang"), upstream.commit("sglang", revision)
        result = sglang("update", sglang=ref)
        assert sglang.head("sglang") == new
        assert sglang.git("sglang", "branch", "--show-current") == branch
        assert f"{old[:10]} → {new[:10]}" in result.out
        sound(sglang, "sglang")


def test_a_branch_is_followed_and_old_and_new_release_are_shown(sources: Sources, upstream: Upstream) -> None:
    sources("clone", flashinfer="v0.6.7.post3")
    upstream.add_commit("sglang", "main", {"new.txt": "new\n"})
    result = sources("update", flashinfer="main")
    assert (sources.path / "sglang/new.txt").exists()
    assert "0.6.7.post3 → 0.7.4" in result.out
    assert "updated: v0.6.7.post3 → main (" in result.out
    assert sources.git("sglang", "rev-parse", "--abbrev-ref", "main@{upstream}") == "origin/main"
    assert sources.git("sglang", "rev-parse", "origin/main") == sources.head("sglang")


def test_a_checkout_moves_between_all_layouts(flashinfer: Sources, upstream: Upstream) -> None:
    flashinfer("clone", flashinfer="v0.2.0")
    for ref in ("main", "v0.1.6", "v0.3.0"):
        flashinfer("update", flashinfer=ref)
        assert flashinfer.head("flashinfer") == upstream.commit("flashinfer", ref)
        for path, commit in submodules(upstream, ref).items():
            assert flashinfer.head(f"flashinfer/{path}") == commit
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


def test_a_branch_that_was_pushed_with_force_is_followed(sglang: Sources, upstream: Upstream) -> None:
    sglang("clone")
    upstream.add_commit("sglang", "main", {"second.txt": "second\n"})
    sglang("update")
    new = upstream.force_push("sglang", "main", {"forced.txt": "forced\n"})
    sglang("update")
    assert sglang.head("sglang") == new
    sound(sglang, "sglang")


def test_a_tag_that_was_moved_is_followed_and_its_old_commit_keeps_a_ref(sglang: Sources, upstream: Upstream) -> None:
    sglang("clone", sglang="v0.5.3")
    old = sglang.head("sglang")
    new = upstream.move_tag("sglang", "v0.5.3", upstream.add_commit("sglang", "main"))
    sglang("update", sglang="v0.5.3")
    assert sglang.head("sglang") == new == sglang.git("sglang", "rev-parse", "v0.5.3^{commit}")
    assert sglang.git("sglang", "for-each-ref", "--contains", old)


def test_the_newest_release_is_kept_as_a_tag_and_no_other(sglang: Sources, upstream: Upstream, host: GitHost) -> None:
    sglang("clone")
    upstream.move_tag("sglang", "v0.6.0", upstream.add_commit("sglang", "next", parent="main"))
    upstream.add_commit("sglang", "main")
    sglang("update")
    assert sglang.head("sglang") == upstream.commit("sglang")
    tags = sglang.git("sglang", "tag").split()
    assert "v0.6.0" in tags and "v0.4.0" not in tags


def test_a_branch_that_was_deleted_upstream_is_named_and_nothing_changes(sglang: Sources, upstream: Upstream) -> None:
    sglang("clone", sglang="release/v0.5.10")
    before = fingerprint(sglang.path)
    upstream.delete_ref("sglang", "refs/heads/release/v0.5.10")
    assert "release/v0.5.10" in sglang("update", check=2).err
    assert fingerprint(sglang.path) == before


def test_a_branch_replaces_one_whose_name_is_now_a_directory(sglang: Sources, upstream: Upstream) -> None:
    upstream.set_ref("sglang", "refs/heads/next", "main")
    sglang("clone", sglang="next")
    upstream.delete_ref("sglang", "refs/heads/next")
    new = upstream.add_commit("sglang", "next/one", parent="main")
    result = sglang("update", check=None, sglang="next/one")
    if result.status:
        assert result.status == 5 and "next" in result.err
        sglang.git("sglang", "branch", "-m", "next", "previous")
        sglang("update", sglang="next/one")
    assert sglang.head("sglang") == new


def test_a_missing_checkout_is_reported(sources: Sources) -> None:
    sources("clone")
    shutil.rmtree(sources.path / "sglang")
    result = sources("update", check=1)
    assert re.search(r"sglang: .*not cloned.*\n +invoke clone", result.err)
    assert "flashinfer: up to date: main (" in result.out


BY_HAND = ["--recurse-submodules", *exhaustive([("-q",), ("--depth=1",), ("--filter=blob:none",)])]


@pytest.mark.parametrize("how", BY_HAND)
def test_a_clone_made_by_hand_is_updated(how: str, flashinfer: Sources, upstream: Upstream) -> None:
    flashinfer.path.mkdir()
    subprocess.run(["git", "clone", "-q", how, url("flashinfer"), flashinfer.path / "flashinfer"], check=True)
    if how == "--recurse-submodules":
        assert "up to date: main (" in flashinfer("update").out
    upstream.add_commit("flashinfer", "main", {"new.txt": "new\n"})
    flashinfer("update")
    assert (flashinfer.path / "flashinfer/new.txt").exists()
    assert flashinfer.head("flashinfer/3rdparty/cutlass") == submodules(upstream, "main")["3rdparty/cutlass"]
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


def test_a_submodule_replaces_files_and_files_replace_a_submodule(sglang: Sources, upstream: Upstream) -> None:
    link = Gitlink(upstream.commit("spdlog"))
    modules = f'[submodule "spdlog"]\n\tpath = deps/spdlog\n\turl = {url("spdlog")}\n'
    there: Tree = {".gitmodules": modules, "deps/spdlog": link}
    gone: Tree = {".gitmodules": None, "deps/spdlog": None}
    folder: Tree = {"deps/spdlog/include/part0.h": "// here\n"}
    file: Tree = {"deps/spdlog": "a file\n"}
    upstream.add_commit("sglang", "main", folder)
    sglang("clone")
    for vendored in (folder, file):
        upstream.add_commit("sglang", "main", {**dict.fromkeys(vendored), **there})
        sglang("update")
        assert sglang.head("sglang/deps/spdlog") == link.commit
        sound(sglang, "sglang")
        upstream.add_commit("sglang", "main", {**gone, **file})
        sglang("update")
        assert (sglang.path / "sglang/deps/spdlog").read_text() == "a file\n"
        sound(sglang, "sglang")


def test_full_completes_the_history_and_the_submodules_for_good(flashinfer: Sources, upstream: Upstream) -> None:
    flashinfer("clone")
    flashinfer("update", full=True)
    for _ in range(2):
        count = git(upstream.path("flashinfer"), "rev-list", "--count", "main")
        assert flashinfer.git("flashinfer", "rev-list", "--count", "HEAD") == count
        assert (flashinfer.path / "flashinfer/3rdparty/cutlass/examples/part0.h").exists()
        sound(flashinfer, "flashinfer")
        upstream.add_commit("flashinfer", "main", {"later.txt": "later\n"})
        flashinfer("update")
    assert not (flashinfer.path / "flashinfer/.git/shallow").exists()


def test_a_removed_submodule_comes_back_without_a_download(flashinfer: Sources, host: GitHost) -> None:
    flashinfer("clone", flashinfer="v0.2.0")
    flashinfer("update", flashinfer="v0.3.0")
    assert not (flashinfer.path / "flashinfer/3rdparty/nvbench").exists()
    host.reset()
    flashinfer("update", flashinfer="v0.2.0")
    assert (flashinfer.path / "flashinfer/3rdparty/nvbench/README.md").exists()
    assert host.count("nvbench") == 0
    sound(flashinfer, "flashinfer")
