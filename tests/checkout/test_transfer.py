"""Requests, bytes and git processes: what the work needs, and nothing twice."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.checkout.test_clone import FETCH, SPARSE
from tests.sources import Sources, fingerprint
from tests.upstream.host import GitHost
from tests.upstream.store import PATHS, Upstream, git


def packed(git_dir: Path) -> Counter[str]:
    """How often each object is in the packs."""
    objects: Counter[str] = Counter()
    for index in git_dir.glob("objects/pack/*.idx"):
        listed = subprocess.check_output(["git", "show-index"], stdin=index.open("rb"), text=True)
        objects.update(line.split()[1] for line in listed.splitlines())
    return objects


def blobs(upstream: Upstream, name: str, revision: str) -> dict[str, str]:
    """Path -> object id of the files at a revision."""
    listed = [line.split("\t") for line in git(upstream.path(name), "ls-tree", "-r", revision).split("\n")]
    return {path: head.split()[2] for head, path in listed if " blob " in head}


def all_blobs(upstream: Upstream, name: str) -> set[str]:
    listed = git(upstream.path(name), "cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objecttype)")
    return {line.split()[0] for line in listed.split("\n") if line.endswith("blob")}


def test_a_cold_clone_downloads_the_files_of_one_commit_once(sources: Sources, upstream: Upstream) -> None:
    sources("clone")
    for name in ("sglang", "flashinfer"):
        here = packed(sources.path / name / ".git")
        assert set(here) & all_blobs(upstream, name) == set(blobs(upstream, name, "main").values())
        assert set(here.values()) == {1}
        assert len(sources.git(name, "tag").split()) == 1, "the newest release"
    for name, (folders, _) in SPARSE.items():
        place = f"3rdparty/{name}"
        here = packed(sources.path / "flashinfer/.git/modules" / place)
        above = {f"{parent}/".replace("./", "") for folder in folders for parent in Path(folder).parents}
        wanted = {oid for path, oid in blobs(upstream, name, sources.head(f"flashinfer/{place}")).items()
                  if path.startswith(folders) or f"{Path(path).parent}/".replace("./", "") in above}  # fmt: skip
        assert set(here) & all_blobs(upstream, name) == wanted
        assert set(here.values()) == {1}


def test_requests_and_processes_of_each_run(
    sources: Sources, host: GitHost, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question and a download for each repository; a submodule's id is known, and its files are a request more. A
    second run writes no file, asks one question each and starts few processes (ARCHITECTURE.md, guarantee 3)."""
    sources("clone", flashinfer="matching", sglang="latest")
    fetches = {name: host.count(rf"/{path}\.git.*{FETCH}") for name, path in PATHS.items()}
    assert {name: count for name, count in fetches.items() if count > 3} == {}
    assert host.count("ls-refs") <= 7
    upstream.move_tag("sglang", "v0.6.0", upstream.add_commit("sglang", "main", {"README.md": "new\n"}))
    host.reset()
    sources("update")
    assert (host.count("ls-refs"), host.count(FETCH)) in ((2, 1), (3, 1))
    assert host.count(r"cutlass|spdlog|cccl") == 0
    log, real = tmp_path / "processes", shutil.which("git")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/git").write_text(f'#!/bin/sh\necho "$*" >> "{log}"\nexec {real} "$@"\n')
    (tmp_path / "bin/git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    before = fingerprint(tmp_path, r"(^|/)\.lock|^processes")
    host.reset()
    result = sources("update")
    assert fingerprint(tmp_path, r"(^|/)\.lock|^processes") == before
    assert (host.count("ls-refs"), host.count(FETCH)) == (2, 0)
    assert result.out.count("up to date: ") == 2
    started = [line for line in log.read_text().splitlines() if "upload-pack" not in line and "version" not in line]
    assert not [line for line in started if {"fetch", "switch", "checkout", "submodule"} & set(line.split())]
    assert len(started) <= 20, started


def test_nothing_is_downloaded_where_local_work_is_in_the_way(flashinfer: Sources, host: GitHost) -> None:
    flashinfer("clone")
    (flashinfer.path / "flashinfer/version.txt").write_text("mine\n")
    host.reset()
    flashinfer("update", check=5, flashinfer="v0.3.0")
    assert host.count(FETCH) <= 1, "the commit alone, to see what it would change"
    assert host.count("cutlass|spdlog") == 0
