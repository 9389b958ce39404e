"""What `clone` leaves on disk: the requested REF, complete, as an ordinary git checkout."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.sources import Sources, exhaustive, fingerprint, sound, url
from tests.upstream.host import GitHost
from tests.upstream.store import Upstream, git

FETCH = r"upload-pack\? fetch"
SPARSE = {  # what package-data of the small FlashInfer declares, and a file that is then not checked out
    "cutlass": (("include/", "tools/util/include/"), "examples/part0.h"),
    "spdlog": (("include/",), "bench/part0.h"),
    "cccl": (("cub/cub/", "libcudacxx/include/", "thrust/thrust/"), "docs/part0.h"),
}
DECLARED = {"v0.1.6": (), "v0.2.0": ("cutlass",), "main": ("cutlass", "spdlog", "cccl")}


def submodules(upstream: Upstream, revision: str) -> dict[str, str]:
    """Path -> commit of the submodules in FlashInfer's tree."""
    listed = git(upstream.path("flashinfer"), "ls-tree", "-r", revision).split("\n")
    return {line.split("\t")[1]: line.split()[2] for line in listed if line.startswith("160000")}


@pytest.mark.parametrize("revision", ["main~2", *exhaustive([("release/v0.5.10",), ("v0.5.3",)])])
def test_a_ref_is_checked_out(revision: str, sglang: Sources, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    sglang.path.symlink_to(tmp_path / "big")  # the directory of the checkouts is a link
    commit = upstream.commit("sglang", revision)
    result = sglang("clone", sglang=commit if revision == "main~2" else revision)
    assert sglang.head("sglang") == commit
    assert sglang.git("sglang", "branch", "--show-current") == (revision if "/" in revision else "")
    assert commit[:10] in result.out
    assert "v0.5.23" in sglang.git("sglang", "tag"), "a build by hand finds SGLang's version"
    assert sglang.path.is_symlink()
    sound(sglang, "sglang")


@pytest.mark.parametrize("ref", ["main", *exhaustive([("v0.1.6",), ("v0.2.0",)])])
def test_each_layout_has_its_submodules_with_the_directories_that_it_declares(
    ref: str, flashinfer: Sources, upstream: Upstream
) -> None:
    if ref == "main":  # what leads out of cccl is ignored, or all of cccl checked out
        text = upstream.read("flashinfer", "pyproject.toml")
        more = '", "'.join(("../../../etc/**", "/etc/**", "a/../../**", "-x/**", "!x/**", "a\\\\b/**", "cub/cub/**"))
        upstream.add_commit("flashinfer", "main", {"pyproject.toml": text.replace("cub/cub/**", more)})
    flashinfer("clone", flashinfer=ref)
    for path, commit in submodules(upstream, ref).items():
        place, name = f"flashinfer/{path}", path.rpartition("/")[2]
        assert flashinfer.head(place) == commit
        files = flashinfer.git(place, "ls-files").split("\n")
        here = {file for file in files if (flashinfer.path / place / file).exists()}
        if name in DECLARED[ref]:
            folders, absent = SPARSE[name]
            assert absent in files
            expected = {file for file in files if "/" not in file or file.startswith(folders)}
            assert here == expected or (name == "cccl" and here > expected)
        else:
            assert here == set(files)
    sound(flashinfer, "flashinfer")


@pytest.mark.parametrize("task", ["update", *exhaustive([("clone",)])])
def test_full_has_all_history_and_all_files_for_good(task: str, flashinfer: Sources, upstream: Upstream) -> None:
    flashinfer("clone", full=task == "clone")
    if task == "update":
        flashinfer("update", full=True)
    for _ in range(2):
        count = git(upstream.path("flashinfer"), "rev-list", "--count", "main")
        assert flashinfer.git("flashinfer", "rev-list", "--count", "HEAD") == count
        assert (flashinfer.path / "flashinfer/3rdparty/cutlass/examples/part0.h").exists()
        upstream.add_commit("flashinfer", "main", {"later.txt": "later\n"})
        flashinfer("update")
    assert not (flashinfer.path / "flashinfer/.git/shallow").exists()
    sound(flashinfer, "flashinfer")


def test_plain_git_works_after_a_clone_and_an_update(flashinfer: Sources, upstream: Upstream) -> None:
    flashinfer("clone")
    upstream.add_commit("flashinfer", "main", {"new.txt": "new\n"})
    flashinfer("update")
    before = fingerprint(flashinfer.path / "flashinfer", r"\.git/")
    flashinfer.git("flashinfer", "submodule", "update", "--init", "--recursive")
    assert fingerprint(flashinfer.path / "flashinfer", r"\.git/") == before
    flashinfer.git("flashinfer/3rdparty/cutlass", "sparse-checkout", "disable")  # what is missing comes when asked for
    assert (flashinfer.path / "flashinfer/3rdparty/cutlass/examples/part0.h").exists()
    for _ in range(2):
        new = upstream.add_commit("flashinfer", "main")
    flashinfer.git("flashinfer", "pull", "-q", "--ff-only")
    assert flashinfer.head("flashinfer") == new
    assert flashinfer.git("flashinfer", "rev-parse", "--abbrev-ref", "main@{upstream}") == "origin/main"
    assert "up to date" in flashinfer("update").out
    sound(flashinfer, "flashinfer")


def test_an_unknown_ref_leaves_nothing_and_names_the_nearest(flashinfer: Sources) -> None:
    for ref, said in (("v0.6.7.pst3", "v0.6.7.post3"), ("0123456789" * 4, "")):
        result = flashinfer("clone", check=2, flashinfer=ref)
        assert ref in result.err and url("flashinfer") in result.err and said in result.err
        assert not (flashinfer.path / "flashinfer").exists()


def test_an_existing_checkout_stays_as_it_is_and_only_what_is_missing_is_cloned(
    sources: Sources, host: GitHost
) -> None:
    sources("clone", sglang="v0.5.3", flashinfer="v0.3.0")
    (sources.path / "sglang/README.md").write_text("mine\n")
    before = fingerprint(sources.path)
    host.reset()
    result = sources("clone")
    assert host.requests == []
    for name, version in {"sglang": "0.5.3", "flashinfer": "0.3.0"}.items():
        commit = sources.head(name)[:10]
        shown = rf"{name} +v{version}, from this checkout, {commit}, {version}\n +clone: already cloned"
        assert re.search(shown, result.out)
    sources("clone", sglang="v0.5.3")
    assert "invoke update --sglang-branch=main" in sources("clone", check=2, sglang="main").err
    sources("clone", check=2, sglang="nothing-like-it")
    assert fingerprint(sources.path) == before
    shutil.rmtree(sources.path / "sglang")
    before = fingerprint(sources.path / "flashinfer")
    host.reset()
    sources("clone")
    assert fingerprint(sources.path / "flashinfer") == before
    assert host.count("flashinfer") == 0
    sound(sources, "sglang")


def test_matching_is_the_release_that_the_checked_out_sglang_requires(sources: Sources, upstream: Upstream) -> None:
    result = sources("clone", sglang="v0.5.10.post1", flashinfer="matching")
    assert sources.head("flashinfer") == upstream.commit("flashinfer", "v0.6.7.post3")
    assert "v0.6.7.post3" in result.out
    result = sources("update", sglang="v0.5.3", flashinfer="matching")
    assert sources.head("flashinfer") == upstream.commit("flashinfer", "v0.4.0rc3")
    assert "(v0.4.0rc3)" in result.out


def test_a_branch_of_a_host_that_serves_no_commit_by_its_id_is_fetched_by_its_name(
    sglang: Sources, host: GitHost, upstream: Upstream
) -> None:
    host.anysha = False
    sglang("clone")
    assert sglang.head("sglang") == upstream.commit("sglang")
    sound(sglang, "sglang")
