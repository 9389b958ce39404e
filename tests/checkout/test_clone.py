"""What `clone` leaves on disk: the requested REF, complete, as an ordinary git checkout."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from typing import Protocol

import pytest

from tests.conftest import Project
from tests.sources import Sources, fingerprint, url
from tests.upstream.host import GitHost
from tests.upstream.store import Upstream, git

FETCH = r"upload-pack\? fetch"
SPARSE = {  # what package-data of the small FlashInfer declares, and a file that is then not checked out
    "cutlass": (("include/", "tools/util/include/"), "examples/part0.h"),
    "spdlog": (("include/",), "bench/part0.h"),
    "cccl": (("cub/cub/", "libcudacxx/include/", "thrust/thrust/"), "docs/part0.h"),
}
DECLARED = {"v0.1.6": (), "main": ("cutlass", "spdlog", "cccl")}


def submodules(upstream: Upstream, revision: str) -> dict[str, str]:
    """Path -> commit of the submodules in FlashInfer's tree."""
    listed = git(upstream.path("flashinfer"), "ls-tree", "-r", revision).split("\n")
    return {line.split("\t")[1]: line.split()[2] for line in listed if line.startswith("160000")}


class HasGit(Protocol):
    """What runs git in one of its checkouts."""

    def git(self, repository: str, *arguments: str) -> str: ...


def sound(checkouts: HasGit, repository: str, but: Sequence[str] = ()) -> None:
    """Nothing is changed or missing, in the checkout and its submodules, as plain git sees it. `but` is what the user
    has there."""
    changed = checkouts.git(repository, "status", "--porcelain", "--untracked-files=all", "--ignore-submodules=none")
    assert {*changed.split("\n")} <= {"", *but}
    submodules = checkouts.git(repository, "submodule", "status", "--recursive")
    assert not re.search(r"^[-+U]", submodules, re.M), submodules
    checkouts.git(repository, "fsck", "--connectivity-only")
    checkouts.git(repository, "log", "--oneline", "-3")


@pytest.mark.parametrize(
    ("ref", "revision", "branch"),
    [
        ("main", "main", "main"),
        ("refs/heads/release/v0.5.10", "release/v0.5.10", "release/v0.5.10"),
        ("v0.5.3", "v0.5.3", ""),  # annotated
        ("main~2", "main~2", ""),  # by its id; the tip of nothing
    ],
)
def test_a_branch_a_tag_and_a_commit_id_are_checked_out(
    ref: str, revision: str, branch: str, sglang: Sources, upstream: Upstream
) -> None:
    commit = upstream.commit("sglang", revision)
    result = sglang("clone", sglang=commit if ref == "main~2" else ref)
    assert sglang.head("sglang") == commit
    assert sglang.git("sglang", "branch", "--show-current") == branch
    assert commit[:10] in result.out
    assert "v0.5.23" in sglang.git("sglang", "tag"), "a build by hand finds SGLang's version"
    sound(sglang, "sglang")


@pytest.mark.parametrize("ref", DECLARED)
def test_each_layout_has_its_submodules_with_the_directories_that_it_declares(
    ref: str, flashinfer: Sources, upstream: Upstream
) -> None:
    flashinfer("clone", flashinfer=ref)
    for path, commit in submodules(upstream, ref).items():
        place, name = f"flashinfer/{path}", path.rpartition("/")[2]
        assert flashinfer.head(place) == commit
        files = flashinfer.git(place, "ls-files").split("\n")
        here = {file for file in files if (flashinfer.path / place / file).exists()}
        folders, absent = SPARSE.get(name, ((), ""))
        if name in DECLARED[ref]:
            assert absent in files
            assert here == {file for file in files if "/" not in file or file.startswith(folders)}
        else:
            assert here == set(files)
    sound(flashinfer, "flashinfer")


def test_a_declaration_that_leads_elsewhere_is_none(flashinfer: Sources, upstream: Upstream) -> None:
    text = upstream.read("flashinfer", "pyproject.toml")
    patterns = '", "'.join(("../../../etc/**", "/etc/**", "a/../../**", "-x/**", "!x/**", "a\\\\b/**"))
    upstream.add_commit("flashinfer", "main", {"pyproject.toml": text.replace("cub/cub/**", patterns)})
    flashinfer("clone")
    assert (flashinfer.path / "flashinfer/3rdparty/cccl/thrust/thrust").exists()
    sound(flashinfer, "flashinfer/3rdparty/cccl")


def test_a_full_clone_has_all_history_and_all_files(flashinfer: Sources, upstream: Upstream, host: GitHost) -> None:
    flashinfer("clone", full=True)
    count = git(upstream.path("flashinfer"), "rev-list", "--count", "main")
    assert flashinfer.git("flashinfer", "rev-list", "--count", "HEAD") == count
    assert (flashinfer.path / "flashinfer/3rdparty/cutlass/examples/part0.h").exists()
    assert not (flashinfer.path / "flashinfer/.git/shallow").exists()
    sound(flashinfer, "flashinfer")


def test_plain_git_works_afterwards(flashinfer: Sources, upstream: Upstream) -> None:
    flashinfer("clone")
    before = fingerprint(flashinfer.path / "flashinfer", r"\.git/")
    flashinfer.git("flashinfer", "submodule", "update", "--init", "--recursive")
    assert fingerprint(flashinfer.path / "flashinfer", r"\.git/") == before
    flashinfer.git("flashinfer/3rdparty/cutlass", "sparse-checkout", "disable")  # what is missing comes when asked for
    assert (flashinfer.path / "flashinfer/3rdparty/cutlass/examples/part0.h").exists()
    new = upstream.add_commit("flashinfer", "main", {"new.txt": "new\n"})
    flashinfer.git("flashinfer", "pull", "-q", "--ff-only")
    assert flashinfer.head("flashinfer") == new
    assert flashinfer.git("flashinfer", "rev-parse", "--abbrev-ref", "main@{upstream}") == "origin/main"
    sound(flashinfer, "flashinfer")


def test_an_unknown_ref_leaves_nothing_and_names_the_nearest(flashinfer: Sources) -> None:
    for ref, said in (("v0.6.8", "v0.6.7.post3"), ("0123456789" * 4, "")):
        result = flashinfer("clone", check=2, flashinfer=ref)
        assert ref in result.err and url("flashinfer") in result.err and said in result.err
        assert not (flashinfer.path / "flashinfer").exists()


def test_an_existing_checkout_stays_as_it_is_and_its_state_is_shown(sources: Sources, host: GitHost) -> None:
    sources("clone", sglang="v0.5.3", flashinfer="v0.3.0")
    (sources.path / "sglang/README.md").write_text("mine\n")
    before = fingerprint(sources.path)
    host.reset()
    result = sources("clone")
    assert fingerprint(sources.path) == before
    assert host.requests == []
    for name, version in {"sglang": "0.5.3", "flashinfer": "0.3.0"}.items():
        commit = sources.head(name)[:10]
        assert re.search(rf"{name} +v{version} +this checkout +{commit} +{version} +already cloned", result.out)


def test_a_clone_with_a_ref_fails_where_the_checkout_is_not_at_it(sglang: Sources) -> None:
    sglang("clone", sglang="v0.5.3")
    before = fingerprint(sglang.path)
    sglang("clone", sglang="v0.5.3")
    assert "invoke update --sglang-branch=main" in sglang("clone", check=2, sglang="main").err
    sglang("clone", check=2, sglang="nothing-like-it")
    assert fingerprint(sglang.path) == before


def test_only_what_is_missing_is_cloned(sources: Sources, host: GitHost) -> None:
    sources("clone")
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
    assert "0.6.7.post3 → 0.4.0rc3" in result.out
    shutil.rmtree(sources.path / "flashinfer")
    sources.repositories["flashinfer"]["branch"] = "matching"
    sources("clone")
    assert sources.head("flashinfer") == upstream.commit("flashinfer", "v0.4.0rc3")


def test_further_repositories_are_cloned_with_the_rest(project: Project, upstream: Upstream, host: GitHost) -> None:
    upstream.add_commit("somebody/bench", "trunk", {"pyproject.toml": '[project]\nname = "bench"\nversion = "1.0"\n'})
    (project.path / "invoke.yaml").write_text(
        f"sources:\n  repositories:\n    bench: {{url: {host.url}/somebody/bench, branch: trunk, install: false}}\n"
    )
    result = project.invoke("clone", "--sglang-branch=v0.4.0", "--flashinfer-branch", "v0.1.6")
    assert project.git("bench", "rev-parse", "HEAD") == upstream.commit("somebody/bench", "trunk")
    assert re.search(r"^bench +trunk", result.out, re.M)
    assert project.git("sglang", "describe", "--tags") == "v0.4.0"


@pytest.mark.parametrize("capability", ["filters", "anysha"])
def test_a_host_that_serves_no_filters_or_no_commit_by_its_id_is_enough_or_said_not_to_be(
    capability: str, sources: Sources, host: GitHost, upstream: Upstream
) -> None:
    setattr(host, capability, False)
    result = sources("clone", check=None)
    assert sources.head("sglang") == upstream.commit("sglang"), "a branch is fetched by its name then"
    sound(sources, "sglang")
    assert result.text
    assert result.status == 0 or not (sources.path / "flashinfer").exists()
    assert capability != "filters" or result.status == 0
