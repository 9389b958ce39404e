"""What `clone` leaves on disk: the requested REF, complete, as an ordinary git checkout."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.sources import Sources, fingerprint, url
from tests.upstream.host import GitHost
from tests.upstream.store import Gitlink, Upstream, git

FETCH = r"upload-pack\? fetch"
SUBMODULES = {
    "v0.1.6": ("nvbench", "googletest", "mscclpp", "cutlass", "composable_kernels", "spdlog"),
    "v0.2.0": ("nvbench", "googletest", "mscclpp", "cutlass", "composable_kernels", "spdlog"),
    "v0.3.0": ("cutlass", "spdlog"),
    "v0.6.7.post3": ("cutlass", "spdlog"),
    "main": ("cutlass", "spdlog", "cccl", "nixl"),
}
SPARSE = {  # what package-data of the small FlashInfer declares, and a file that is then not checked out
    "cutlass": ({"include", "tools/util/include"}, "examples/part0.h"),
    "spdlog": ({"include"}, "bench/part0.h"),
    "cccl": ({"cub/cub", "libcudacxx/include", "thrust/thrust"}, "docs/part0.h"),
}


def tracked(upstream: Upstream, revision: str) -> dict[str, str]:
    """Path -> commit of the submodules in FlashInfer's tree."""
    listed = git(upstream.path("flashinfer"), "ls-tree", "-r", revision).splitlines()
    return {line.split("\t")[1]: line.split()[2] for line in listed if line.startswith("160000")}


def sound(sources: Sources, repository: str) -> None:
    """Nothing is changed or missing, in the checkout and its submodules, as plain git sees it."""
    assert sources.git(repository, "status", "--porcelain", "--untracked-files=all") == ""
    assert not re.search(r"^[-+U]", sources.git(repository, "submodule", "status", "--recursive"), re.M)
    sources.git(repository, "fsck", "--connectivity-only")
    sources.git(repository, "log", "--oneline", "-3")


@pytest.mark.parametrize(
    ("ref", "revision", "branch"),
    [
        ("main", "main", "main"),
        ("refs/heads/release/v0.5.10", "release/v0.5.10", "release/v0.5.10"),
        ("v0.4.0", "v0.4.0", ""),
        ("v0.5.3", "v0.5.3", ""),  # annotated
        ("refs/tags/gateway-v0.3.1", "gateway-v0.3.1", ""),
        ("latest", "v0.5.23", ""),
        ("{main~2}", "main~2", ""),  # the tip of nothing
        ("{main:.9}", "main", ""),
    ],
)
def test_a_branch_a_tag_and_a_commit_id_are_checked_out(
    ref: str, revision: str, branch: str, sglang: Sources, upstream: Upstream
) -> None:
    ref = re.sub(r"\{([^:]+)(?::\.(\d+))?\}", lambda m: upstream.commit("sglang", m[1])[: int(m[2] or 40)], ref)
    result = sglang("clone", sglang=ref)
    assert sglang.head("sglang") == upstream.commit("sglang", revision)
    assert sglang.git("sglang", "branch", "--show-current") == branch
    assert upstream.commit("sglang", revision)[:10] in result.out
    assert "v0.5.10.post1" in sglang.git("sglang", "tag"), "SGLang's version comes from its tags"
    sound(sglang, "sglang")


@pytest.mark.parametrize("ref", SUBMODULES)
def test_each_layout_has_its_submodules_at_exact_commits_with_the_directories_that_it_declares(
    ref: str, flashinfer: Sources, upstream: Upstream
) -> None:
    flashinfer("clone", flashinfer=ref)
    links = tracked(upstream, ref)
    assert set(links) == {f"3rdparty/{name}" for name in SUBMODULES[ref]}
    declared = {"v0.1.6": (), "v0.2.0": ("cutlass",)}.get(ref, SPARSE)
    for path, commit in links.items():
        name = path.removeprefix("3rdparty/")
        assert flashinfer.head(f"flashinfer/{path}") == commit
        assert flashinfer.git(f"flashinfer/{path}", "status", "--porcelain") == ""
        files = flashinfer.git(f"flashinfer/{path}", "ls-files").splitlines()
        here = {file for file in files if (flashinfer.path / "flashinfer" / path / file).exists()}
        folders, absent = SPARSE.get(name, (set(), ""))
        if name in declared:
            assert absent in files
            assert here == {
                file for file in files if "/" not in file or file.startswith(tuple(f"{f}/" for f in folders))
            }
        else:
            assert here == set(files)
    sound(flashinfer, "flashinfer")


def test_a_full_clone_has_all_history_and_all_files(flashinfer: Sources, upstream: Upstream) -> None:
    flashinfer("clone", full=True)
    count = git(upstream.path("flashinfer"), "rev-list", "--count", "main")
    assert flashinfer.git("flashinfer", "rev-list", "--count", "HEAD") == count
    assert (flashinfer.path / "flashinfer/3rdparty/cutlass/examples/part0.h").exists()
    assert flashinfer.git("flashinfer", "merge-base", "HEAD", "v0.6.7.post3")
    sound(flashinfer, "flashinfer")


def test_plain_git_works_afterwards(sglang: Sources, upstream: Upstream) -> None:
    sglang("clone")
    new = upstream.add_commit("sglang", "main", {"new.txt": "new\n"})
    sglang.git("sglang", "fetch")
    assert sglang.git("sglang", "rev-parse", "origin/main") == new
    sglang.git("sglang", "pull", "--ff-only")
    assert sglang.head("sglang") == new
    assert sglang.git("sglang", "rev-parse", "--abbrev-ref", "main@{upstream}") == "origin/main"
    sound(sglang, "sglang")


def test_plain_git_works_in_submodules_afterwards(flashinfer: Sources) -> None:
    flashinfer("clone")
    before = fingerprint(flashinfer.path / "flashinfer", r"\.git/")
    flashinfer.git("flashinfer", "submodule", "update", "--init", "--recursive")
    assert fingerprint(flashinfer.path / "flashinfer", r"\.git/") == before
    flashinfer.git("flashinfer/3rdparty/cutlass", "sparse-checkout", "disable")  # what is missing comes when asked for
    assert (flashinfer.path / "flashinfer/3rdparty/cutlass/examples/part0.h").exists()
    sound(flashinfer, "flashinfer")


@pytest.mark.parametrize("ref", ["v0.6.8", "nothing-like-it", "deadbeefdeadbeef"])
def test_an_unknown_ref_ends_the_run_before_anything_is_downloaded(
    ref: str, flashinfer: Sources, host: GitHost
) -> None:
    result = flashinfer("clone", check=2, flashinfer=ref)
    assert ref in result.err
    assert "https://github.com/flashinfer-ai/flashinfer.git" in result.err
    assert host.count("ls-refs") == 1
    assert host.count(FETCH) == 0
    assert {path.name for path in flashinfer.path.iterdir()} <= {".lock"}
    if ref == "v0.6.8":
        assert "v0.6.7.post3" in result.err


def test_an_unknown_commit_is_a_wrong_ref_and_leaves_nothing(flashinfer: Sources) -> None:
    result = flashinfer("clone", check=2, flashinfer="0123456789" * 4)
    assert "0123456789" in result.err
    assert {path.name for path in flashinfer.path.iterdir()} <= {".lock"}


def test_an_existing_checkout_stays_as_it_is_and_its_state_is_shown(sources: Sources, host: GitHost) -> None:
    sources("clone", sglang="v0.5.3", flashinfer="v0.3.0")
    (sources.path / "sglang/README.md").write_text("mine\n")
    before = fingerprint(sources.path)
    host.reset()
    result = sources("clone")
    assert fingerprint(sources.path) == before
    assert host.requests == []
    assert re.search(
        rf"sglang +v0.5.3 +this checkout +{sources.head('sglang')[:10]} +0.5.3 +already cloned", result.out
    )
    assert re.search(
        rf"flashinfer +v0.3.0 +this checkout +{sources.head('flashinfer')[:10]} +0.3.0 +already cloned", result.out
    )


@pytest.mark.parametrize(
    ("ref", "status"), [("v0.5.3", 0), ("{v0.5.3}", 0), ("main", 2), ("latest", 2), ("nothing-like-it", 2)]
)
def test_a_clone_with_a_ref_fails_where_the_checkout_is_not_at_it(
    ref: str, status: int, sglang: Sources, upstream: Upstream
) -> None:
    sglang("clone", sglang="v0.5.3")
    before = fingerprint(sglang.path)
    ref = upstream.commit("sglang", "v0.5.3") if ref == "{v0.5.3}" else ref
    result = sglang("clone", check=status, sglang=ref)
    assert fingerprint(sglang.path) == before
    assert ref in result.err or not status
    if ref in ("main", "latest"):
        assert f"not at {ref}" in result.err
        assert sglang.fix(result) == f"invoke update --sglang-branch={ref}"


def test_only_what_is_missing_is_cloned(sources: Sources, host: GitHost) -> None:
    sources("clone")
    subprocess.run(["rm", "-r", sources.path / "sglang"], check=True)
    before = fingerprint(sources.path / "flashinfer")
    host.reset()
    sources("clone")
    assert fingerprint(sources.path / "flashinfer") == before
    assert host.count("flashinfer") == 0
    sound(sources, "sglang")


def test_one_repository_that_fails_does_not_stop_the_other(sources: Sources) -> None:
    sources("clone", check=2, sglang="nothing-like-it")
    assert not (sources.path / "sglang").exists()
    sound(sources, "flashinfer")


def test_matching_is_the_release_that_sglang_requires(sources: Sources, upstream: Upstream) -> None:
    result = sources("clone", sglang="v0.5.10.post1", flashinfer="matching")
    assert sources.head("flashinfer") == upstream.commit("flashinfer", "v0.6.7.post3")
    assert "v0.6.7.post3" in result.out


def test_latest_and_matching_can_be_configured(sources: Sources, upstream: Upstream) -> None:
    sources.repositories["sglang"]["branch"] = "latest"
    sources.repositories["flashinfer"]["branch"] = "matching"
    sources("clone")
    assert sources.head("sglang") == upstream.commit("sglang", "v0.5.23")
    assert sources.head("flashinfer") == upstream.commit("flashinfer", "v0.7.2")


def test_matching_reads_the_sglang_that_is_checked_out(sources: Sources, upstream: Upstream) -> None:
    sources("clone", sglang="v0.5.3", flashinfer="v0.1.6")
    subprocess.run(["rm", "-r", sources.path / "flashinfer"], check=True)
    sources("clone", flashinfer="matching")
    assert sources.head("flashinfer") == upstream.commit("flashinfer", "v0.4.0rc3")


def test_further_repositories_are_cloned_with_the_rest(project: Project, upstream: Upstream, host: GitHost) -> None:
    upstream.add_commit("somebody/bench", "trunk", {"pyproject.toml": '[project]\nname = "bench"\nversion = "1.0"\n'})
    upstream.add_commit("somebody/notes", "main", {"notes.txt": "notes\n"})
    (project.path / "invoke.yaml").write_text(
        "sources:\n  repositories:\n"
        f"    bench: {{url: {host.url}/somebody/bench, branch: trunk, install: false}}\n"
        "    notes: {url: https://github.com/somebody/notes.git, install: false}\n"
    )
    result = project.invoke("clone", "--sglang-branch=v0.4.0", "--flashinfer-branch", "v0.1.6")
    assert project.git("bench", "rev-parse", "HEAD") == upstream.commit("somebody/bench", "trunk")
    assert (project.tmp / "notes/notes.txt").read_text() == "notes\n"
    assert re.search(r"^bench +trunk", result.out, re.M)
    assert project.git("sglang", "describe", "--tags") == "v0.4.0"
    project.invoke("update", "--sglang-branch=main", "--flashinfer-branch=main")
    assert project.git("sglang", "rev-parse", "HEAD") == upstream.commit("sglang")


def test_a_submodule_without_an_entry_in_gitmodules_is_reported_and_left_out(
    flashinfer: Sources, upstream: Upstream
) -> None:
    commit = upstream.commit("spdlog")
    upstream.add_commit("flashinfer", "main", {"3rdparty/lost": Gitlink(commit)})
    result = flashinfer("clone")
    assert "3rdparty/lost" in result.err
    assert flashinfer.git("flashinfer", "status", "--porcelain") == ""


def test_submodules_of_submodules_are_checked_out(sglang: Sources, upstream: Upstream) -> None:
    inner = upstream.add_commit("some/inner", "main", {"inner.txt": "inner\n"})
    middle = upstream.add_commit("some/middle", "main", {
        ".gitmodules": '[submodule "inner"]\n\tpath = deep/inner\n\turl = ../inner.git\n', "deep/inner": Gitlink(inner)
    })  # fmt: skip
    upstream.add_commit("sglang", "main", {
        ".gitmodules": f'[submodule "middle"]\n\tpath = middle\n\turl = {url("some/middle")}\n',
        "middle": Gitlink(middle),
    })  # fmt: skip
    sglang("clone")
    assert (sglang.path / "sglang/middle/deep/inner/inner.txt").exists()
    sound(sglang, "sglang")


def test_a_second_project_takes_its_objects_from_the_cache(sources: Sources, host: GitHost, tmp_path: Path) -> None:
    sources("clone")
    moved = host.bytes_sent
    host.reset()
    sources.path = tmp_path / "other"
    sources("clone")
    sound(sources, "flashinfer")
    sound(sources, "sglang")
    assert host.count(FETCH) == 0
    assert host.bytes_sent < moved


def test_a_host_without_filters_and_object_ids_is_enough(sources: Sources, host: GitHost, upstream: Upstream) -> None:
    host.filters = host.anysha = False
    host.protocol0 = True
    sources("clone", flashinfer="v0.6.7.post3")
    assert sources.head("flashinfer") == upstream.commit("flashinfer", "v0.6.7.post3")
    sound(sources, "flashinfer")
    sound(sources, "sglang")


def test_git_sees_an_edit_of_the_same_size_right_after_the_clone(flashinfer: Sources) -> None:
    flashinfer("clone")
    root = flashinfer.path / "flashinfer"
    for file in (root / "version.txt", next((root / "3rdparty/spdlog/include").rglob("*.h"))):
        before, text = file.stat(), file.read_bytes()
        file.write_bytes(text[:-1] + b"!")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert file.stat().st_size == before.st_size
        assert git(file.parent, "status", "--porcelain", "--", file.name) != ""
