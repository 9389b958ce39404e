"""Requests, bytes and git processes: what the work needs, and nothing twice."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Project
from tests.sources import Sources, fingerprint
from tests.upstream.host import GitHost
from tests.upstream.store import PATHS, Gitlink, Upstream, git

FETCH = r"upload-pack\? fetch"
CONES = {  # what the small FlashInfer declares
    "cutlass": ("include/", "tools/util/include/"),
    "spdlog": ("include/",),
    "cccl": ("cub/cub/", "libcudacxx/include/", "thrust/thrust/"),
    "nixl": ("",),
}


def packed(git_dir: Path) -> Counter[str]:
    """How often each object is in the packs."""
    found: Counter[str] = Counter()
    for index in git_dir.glob("objects/pack/*.idx"):
        with index.open("rb") as stream:
            told = subprocess.run(["git", "show-index"], stdin=stream, capture_output=True, text=True, check=True)
        found.update(line.split()[1] for line in told.stdout.splitlines())
    return found


def blobs(upstream: Upstream, name: str, revision: str) -> dict[str, str]:
    """Path -> object id of the files at a revision."""
    listed = [line.split("\t") for line in git(upstream.path(name), "ls-tree", "-r", revision).splitlines()]
    return {path: head.split()[2] for head, path in listed if " blob " in head}


def kinds(upstream: Upstream, name: str, oids: set[str]) -> dict[str, str]:
    """Object id -> commit, tree, blob or tag."""
    told = subprocess.run(
        ["git", "cat-file", "--batch-check=%(objectname) %(objecttype)"],
        cwd=upstream.path(name), input="\n".join(oids), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return dict(line.split() for line in told.stdout.splitlines())


def examples(upstream: Upstream, commit: str) -> set[str]:
    """The object ids of cutlass' examples, which FlashInfer does not ship."""
    return {oid for path, oid in blobs(upstream, "cutlass", commit).items() if path.startswith("examples/")}


def shipping_examples(upstream: Upstream) -> str:
    """FlashInfer's pyproject.toml, if it did."""
    text, line = upstream.read("flashinfer", "pyproject.toml"), '"tools/util/include/**"'
    assert line in text
    return text.replace(line, f'{line}, "examples/**"')


@pytest.fixture
def git_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Counter[str]]:
    """A function that tells which git processes were started since it was last asked, the host's not counted."""
    real, folder, log = shutil.which("git"), tmp_path / "first on the path", tmp_path / "processes"
    folder.mkdir()
    (folder / "git").write_text(f'#!/bin/sh\necho "$*" >> "{log}"\nexec {real} "$@"\n')
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def processes() -> Counter[str]:
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        asked = (line for line in lines if "core.sshCommand" not in line)  # once in a Python process, like the version
        words = (re.sub(r"-[cC] \S+ ", "", line).split()[0] for line in asked)
        return Counter(word for word in words if word not in ("http-backend", "version"))

    return processes


def test_a_cold_clone_fetches_the_files_of_one_commit_and_the_commits_of_version_tags(
    sources: Sources, upstream: Upstream
) -> None:
    sources("clone")
    for name in ("sglang", "flashinfer"):
        here = packed(sources.path / name / ".git")
        kind = kinds(upstream, name, set(here))
        got = {oid for oid, what in kind.items() if what == "blob"}
        assert got == set(blobs(upstream, name, "main").values())
        assert set(here.values()) == {1}
        trees = git(upstream.path(name), "rev-list", "--objects", "--no-object-names", "--no-walk", "main").splitlines()
        assert {oid for oid, what in kind.items() if what == "tree"} <= set(trees)
        assert sources.git(name, "rev-list", "--count", "HEAD") == "1"
        tags = sources.git(name, "tag").splitlines()
        assert "aarch64" not in tags
        assert {sources.git(name, "rev-parse", f"{tag}^{{commit}}") for tag in tags} <= set(here)


def test_a_cold_clone_fetches_the_declared_directories_of_submodules(flashinfer: Sources, upstream: Upstream) -> None:
    flashinfer("clone")
    for name, cone in CONES.items():
        place = f"3rdparty/{name}"
        commit = flashinfer.head(f"flashinfer/{place}")
        here = packed(flashinfer.path / "flashinfer/.git/modules" / place)
        folders = {f"{parent}/".replace("./", "") for folder in cone for parent in Path(folder).parents}
        wanted = {
            oid for path, oid in blobs(upstream, name, commit).items()
            if path.startswith(cone) or f"{Path(path).parent}/".replace("./", "") in folders
        }  # fmt: skip
        assert {oid for oid, what in kinds(upstream, name, set(here)).items() if what == "blob"} == wanted
        assert set(here.values()) == {1}


def test_a_cold_clone_makes_few_requests_to_each_remote(sources: Sources, host: GitHost) -> None:
    sources("clone")
    asked = {name: host.count(rf"/{path}\.git.*{FETCH}") for name, path in PATHS.items()}
    own, slim, whole = 2, 2, 1  # the files, then tags; trees, then files; all of it
    expected = {"sglang": own, "flashinfer": own, "cutlass": slim, "spdlog": slim, "cccl": slim, "nixl": whole}
    assert {name: count for name, count in asked.items() if count} == expected
    assert host.count("ls-refs") == 2


def test_a_cold_clone_downloads_a_fraction_of_what_git_clone_does(
    flashinfer: Sources, host: GitHost, tmp_path: Path
) -> None:
    flashinfer("clone")
    moved = host.bytes_sent
    host.reset()
    plain = ["git", "clone", "-q", "--recurse-submodules", "https://github.com/flashinfer-ai/flashinfer.git", "plain"]
    subprocess.run(plain, cwd=tmp_path, check=True)
    assert moved < host.bytes_sent / 2


def test_requests_and_bytes_of_each_run(sources: Sources, host: GitHost, upstream: Upstream) -> None:
    """Requests are exact, one GET and one POST each; git's own progress makes the bytes vary by 0.3 %."""
    tags, back = {"sglang": "v0.5.3", "flashinfer": "v0.6.7.post3"}, {"sglang": "main", "flashinfer": "main"}
    new = {"include/flashinfer/new.cuh": "// new\n", "README.md": "new\n"}
    steps: list[tuple[str, dict[str, Any], int, int]] = [
        ("clone", {}, 26, 137_000), ("update", {}, 4, 3_500), ("update", {}, 8, 5_500), ("update", tags, 22, 40_000),
        ("update", back, 4, 3_500),
    ]  # fmt: skip
    for number, (task, refs, requests, sent) in enumerate(steps):
        if number == 2:
            upstream.add_commit("flashinfer", "main", new)
        host.reset()
        sources(task, **refs)
        assert len(host.requests) == requests, (number, list(map(str, host.requests)))
        assert host.bytes_sent <= sent, (number, host.bytes_sent)


@pytest.mark.parametrize(
    ("names", "on"),
    [
        (("sglang", "flashinfer"), "ls-refs"),
        (("sglang", "flashinfer"), "fetch"),
        (("cutlass", "spdlog", "cccl", "nixl"), "fetch"),
    ],
)
def test_remotes_are_asked_at_the_same_time(names: tuple[str, ...], on: str, sources: Sources, host: GitHost) -> None:
    together = threading.Barrier(len(names))
    for name in names:
        host.fault("hook", rf"{PATHS[name]}\.git.* {on}", call=lambda: together.wait(30))
    sources("clone")
    assert not together.broken


def test_a_cold_clone_starts_few_git_processes(flashinfer: Sources, git_processes: Callable[[], Counter[str]]) -> None:
    flashinfer("clone")
    started = git_processes()
    assert (started["ls-remote"], started["fetch"]) == (1, 9), "its tags, and what the submodules need"
    assert sum(started.values()) <= 105, started


def test_an_update_without_news_makes_one_request_to_each_remote_and_writes_no_file(
    sources: Sources, host: GitHost, git_processes: Callable[[], Counter[str]]
) -> None:
    sources("clone")
    sources("update")
    before = fingerprint(sources.path.parent, r"(^|/)(\.lock|processes|venv|upstream)")
    host.reset()
    git_processes()
    sources("update")
    started = git_processes()
    assert [str(request).split("/")[-1] for request in host.requests].count("git-upload-pack? ls-refs") == 2
    assert len(host.requests) == 4
    assert fingerprint(sources.path.parent, r"(^|/)(\.lock|processes|venv|upstream)") == before
    assert {"fetch", "switch", "checkout", "submodule"}.isdisjoint(started)
    assert sum(started.values()) <= 17, started


def test_a_second_setup_makes_one_request_to_each_remote_and_starts_no_installer(
    project: Project, host: GitHost, tmp_path: Path
) -> None:
    project.environ["PATH"] += f":{sysconfig.get_path('scripts')}"  # where the tests' uv is
    project.invoke("setup", "--no-deps", check=None)
    seen = r"(^|/)(\.lock|__pycache__)|\.pyc$"
    before = fingerprint(project.tmp, seen), fingerprint(project.environment.path, seen)
    host.reset()
    folder, log = tmp_path / "first on the path", tmp_path / "installers"
    folder.mkdir()
    for name in ("uv", "pip"):
        (folder / name).write_text(f'#!/bin/sh\necho "$0 $*" >> "{log}"\n')
        (folder / name).chmod(0o755)
    result = project.invoke(
        "setup", "--no-deps", check=None, env={"PATH": f"{folder}{os.pathsep}{project.environ['PATH']}"}
    )
    assert len(host.requests) == 4
    assert not log.exists(), f"{log.read_text()}\n{result.out}"
    assert (fingerprint(project.tmp, seen), fingerprint(project.environment.path, seen)) == before


def test_an_update_of_one_commit_downloads_what_it_changed(
    flashinfer: Sources, host: GitHost, upstream: Upstream, git_processes: Callable[[], Counter[str]]
) -> None:
    flashinfer("clone")
    git_dir, old = flashinfer.path / "flashinfer/.git", upstream.commit("flashinfer")
    before = packed(git_dir)
    new = upstream.add_commit("flashinfer", "main", {"include/flashinfer/new.cuh": "// new\n", "README.md": "new\n"})
    host.reset()
    git_processes()
    flashinfer("update")
    started = git_processes()
    listed = git(upstream.path("flashinfer"), "rev-list", "--objects", "--no-object-names", f"{old}..{new}").split()
    moved = packed(git_dir) - before
    assert set(moved) >= set(listed) and set(moved.values()) == {1}
    more = kinds(upstream, "flashinfer", set(moved) - set(listed))
    assert list(more.values()) in ([], ["tree"]), "git spares itself the search in trees that it would send"
    assert host.count(FETCH) == host.count(rf"flashinfer\.git.*{FETCH}") == 2
    assert started["fetch"] == 2, "trees, then files"
    assert sum(started.values()) <= 58, started


def test_no_history_is_downloaded_where_local_work_is_in_the_way(flashinfer: Sources, host: GitHost) -> None:
    flashinfer("clone")
    (flashinfer.path / "flashinfer/version.txt").write_text("mine\n")
    host.reset()
    flashinfer("update", full=True, check=5)
    assert host.count(FETCH) == 0


def test_an_update_of_one_submodule_asks_no_other_remote(
    flashinfer: Sources, host: GitHost, upstream: Upstream
) -> None:
    flashinfer("clone")
    commit = upstream.add_commit("cutlass", "main", {"include/cutlass/new.h": "// new\n", "examples/new.cu": "// no\n"})
    upstream.add_commit("flashinfer", "main", {"3rdparty/cutlass": Gitlink(commit)})
    host.reset()
    flashinfer("update")
    assert host.count("spdlog|cccl|nixl") == 0
    assert host.count(rf"cutlass\.git.*{FETCH}") == 2
    assert (flashinfer.path / "flashinfer/3rdparty/cutlass/include/cutlass/new.h").exists()
    assert not (flashinfer.path / "flashinfer/3rdparty/cutlass/examples").exists()


def test_a_release_that_declares_another_directory_downloads_that_directory_only(
    flashinfer: Sources, host: GitHost, upstream: Upstream
) -> None:
    flashinfer("clone")
    upstream.add_commit("flashinfer", "main", {"pyproject.toml": shipping_examples(upstream)})
    commit = flashinfer.head("flashinfer/3rdparty/cutlass")
    git_dir = flashinfer.path / "flashinfer/.git/modules/3rdparty/cutlass"
    before = packed(git_dir)
    host.reset()
    flashinfer("update")
    assert set(packed(git_dir) - before) == examples(upstream, commit) - set(before)
    assert host.count(rf"cutlass\.git.*{FETCH}") == 1
    assert (flashinfer.path / "flashinfer/3rdparty/cutlass/examples/part0.h").exists()
    assert flashinfer.git("flashinfer/3rdparty/cutlass", "status", "--porcelain") == ""


def test_a_release_and_a_submodule_that_change_together_download_each_file_once(
    flashinfer: Sources, host: GitHost, upstream: Upstream
) -> None:
    flashinfer("clone")
    commit = upstream.add_commit("cutlass", "main", {f"examples/part{n}.h": f"// {n}\n" for n in range(3)})
    files: dict[str, str | bytes | Gitlink | None] = {"3rdparty/cutlass": Gitlink(commit)}
    files["pyproject.toml"] = shipping_examples(upstream)
    git_dir = flashinfer.path / "flashinfer/.git/modules/3rdparty/cutlass"
    before = packed(git_dir)
    upstream.add_commit("flashinfer", "main", files)
    host.reset()
    flashinfer("update")
    here = set(packed(git_dir) - before)
    got = {oid for oid, kind in kinds(upstream, "cutlass", here).items() if kind == "blob"}
    assert got == examples(upstream, commit) - set(before), "files of the former commit are not asked for"
    assert host.count(rf"cutlass\.git.*{FETCH}") == 2
    assert (flashinfer.path / "flashinfer/3rdparty/cutlass/examples/part0.h").read_text() == "// 0\n"


def test_a_second_project_downloads_no_object_and_stays_complete_without_the_cache(
    sources: Sources, host: GitHost, upstream: Upstream, tmp_path: Path
) -> None:
    sources.settings["cache"] = str(tmp_path / "cache")
    sources("clone")
    sources.path = tmp_path / "second"
    host.reset()
    assert "  moved  " not in sources("clone").out, "a column of the table, empty for all"
    assert host.count(FETCH) == 0
    assert host.count("ls-refs") == 2
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(tmp_path / "tmp")
    for place in ("sglang", "flashinfer", "flashinfer/3rdparty/cutlass"):
        sources.git(place, "fsck", "--connectivity-only")
        assert sources.git(place, "status", "--porcelain") == ""
        sources.git(place, "log", "-p", "-1")
    new = upstream.add_commit("flashinfer", "main", {"new.txt": "new\n"})
    sources("update")
    assert sources.head("flashinfer") == new


def test_an_update_in_a_second_project_takes_new_objects_from_the_cache(
    flashinfer: Sources, host: GitHost, upstream: Upstream, tmp_path: Path
) -> None:
    first = flashinfer.path
    flashinfer("clone")
    flashinfer.path = tmp_path / "second"
    flashinfer("clone")
    upstream.add_commit("flashinfer", "main", {"new.txt": "new\n"})
    flashinfer("update")
    flashinfer.path = first
    host.reset()
    flashinfer("update")
    assert host.count(FETCH) == 0
    assert flashinfer.git("flashinfer", "status", "--porcelain") == ""


def test_no_cache_is_kept_where_none_is_wanted(sglang: Sources, host: GitHost, tmp_path: Path) -> None:
    sglang.settings["cache"] = ""
    sglang("clone")
    assert not (tmp_path / "home/.cache").exists()


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
def test_full_downloads_all_history_and_says_first_what_that_costs(
    later: bool, flashinfer: Sources, host: GitHost, upstream: Upstream
) -> None:
    if later:
        flashinfer("clone")
    result = flashinfer("update" if later else "clone", full=True)
    assert result.out.index("the full history moves about") < result.out.index("fetch --progress")
    revisions = ["main", *flashinfer.git("flashinfer", "tag").splitlines()]
    for revision in revisions:
        count = git(upstream.path("flashinfer"), "rev-list", "--count", revision)
        assert flashinfer.git("flashinfer", "rev-list", "--count", revision) == count
    assert not (flashinfer.path / "flashinfer/.git/shallow").exists()
    host.reset()
    for name in CONES:
        place = f"flashinfer/3rdparty/{name}"
        files = flashinfer.git(place, "ls-files").splitlines()
        assert all((flashinfer.path / place / file).exists() for file in files)
        assert flashinfer.git(place, "rev-parse", "--is-shallow-repository") == "false"
        flashinfer.git(place, "fsck")
    flashinfer.git("flashinfer", "fsck")
    assert host.requests == [], "everything is here"
    upstream.add_commit("flashinfer", "main", {"new.txt": "new\n"})
    flashinfer("update")
    assert flashinfer.git("flashinfer", "merge-base", "HEAD~1", "v0.6.7.post3")


@pytest.mark.parametrize(
    ("filters", "anysha", "protocol0"),
    [(False, True, False), (True, False, True), (True, True, True), (False, False, True)],
    ids=["no filters", "no ids", "protocol 0", "nothing of these"],
)
def test_a_remote_with_fewer_capabilities_is_enough(
    filters: bool, anysha: bool, protocol0: bool, flashinfer: Sources, host: GitHost, upstream: Upstream
) -> None:
    host.filters, host.anysha, host.protocol0 = filters, anysha, protocol0
    flashinfer.settings["cache"] = ""
    for task, ref in (("clone", "v0.6.7.post3"), ("update", "main")):
        flashinfer(task, flashinfer=ref)
        assert flashinfer.head("flashinfer") == upstream.commit("flashinfer", ref)
        assert flashinfer.git("flashinfer", "status", "--porcelain", "--ignore-submodules=none") == ""
        flashinfer.git("flashinfer", "fsck", "--connectivity-only")
    flashinfer.git("flashinfer/3rdparty/cutlass", "fsck", "--connectivity-only")


@pytest.mark.parametrize("count", [2, 20])
def test_more_repositories_need_more_requests_but_not_more_rounds(
    count: int, sources: Sources, host: GitHost, upstream: Upstream
) -> None:
    names = [f"some/project{number}" for number in range(count)]
    for name in names:
        upstream.add_commit(name, "main", {"README.md": f"{name}\n"})
    sources.repositories.clear()
    sources.repositories |= {name[5:]: {"url": f"https://github.com/{name}.git", "install": False} for name in names}
    rounds = {"ls-refs": threading.Barrier(count), "fetch": threading.Barrier(count)}
    for command, together in rounds.items():
        for name in names:
            host.fault("hook", rf"{name}\.git/.* {command}", call=partial(together.wait, 60))
    sources("clone")
    assert not any(together.broken for together in rounds.values()), "each round is one for all"
    assert host.count("ls-refs") == count
    assert host.count(FETCH) == count
    host.reset()
    sources("update")
    assert len(host.requests) == 2 * count
