"""Unusual environments: an old git, files of another user, read-only directories, odd paths and locales."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.checkout.test_clone import sound
from tests.conftest import Environment, Project
from tests.sources import Sources, fingerprint, url
from tests.upstream.host import GitHost
from tests.upstream.store import Gitlink, Upstream

SGLANG = ("--sglang-branch=v0.4.0", "--flashinfer-branch=v0.6.7")


def one_line(result_err: str) -> str:
    assert "Traceback" not in result_err
    return " ".join(result_err.split())


def test_a_missing_git_is_reported(project: Project, tmp_path: Path) -> None:
    result = project.invoke("clone", env={"PATH": str(tmp_path / "home")}, check=1)
    assert "git was not found" in one_line(result.err)
    assert "2.34" in result.err


@pytest.mark.parametrize("version", ["git version 2.20.1", "git version 1.8.3.1", "git version 2.33.0.windows.1"])
def test_a_git_that_is_too_old_is_reported_with_both_versions(version: str, project: Project, tmp_path: Path) -> None:
    shim = tmp_path / "shim/git"
    shim.parent.mkdir()
    shim.write_text(f"#!/bin/sh\necho '{version}'\n")
    shim.chmod(0o755)
    result = project.invoke("clone", env={"PATH": f"{shim.parent}:{os.environ['PATH']}"}, check=1)
    assert version.split()[2][:5] in one_line(result.err)
    assert "2.34" in result.err
    assert not (project.tmp / "sglang").exists()


def test_a_checkout_of_another_user_is_not_touched_until_it_is_trusted(sglang: Sources, upstream: Upstream) -> None:
    if os.getuid() != 0:
        pytest.skip("only root gives files away")
    sglang("clone")
    upstream.add_commit("sglang", "main")
    for place, _, files in os.walk(sglang.path / "sglang"):
        for name in ("", *files):
            os.lchown(Path(place, name), 12345, 12345)
    before = fingerprint(sglang.path)
    result = sglang("update", check=5)
    assert "belongs to another user" in one_line(result.err)
    assert fingerprint(sglang.path) == before
    sglang.resolve()
    assert sglang.head("sglang") == upstream.commit("sglang")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """A function that lets a folder be written by nobody, not by root either."""
    mounted: list[Path] = []

    def mount(folder: Path) -> None:
        place = str(folder)
        for options in (["--bind", place, place], ["-o", "remount,ro,bind", place]):
            if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
                pytest.skip("nothing can be mounted here")
            mounted.append(folder)

    yield mount
    for folder in dict.fromkeys(mounted):
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_read_only_project_directory_is_reported(project: Project, read_only: Callable[[Path], None]) -> None:
    project.environment.run("pass")
    read_only(project.path)
    for task in ("clone", "update"):
        result = project.invoke(task, check=4)
        assert f"{project.tmp} cannot be written" in one_line(result.err)
        assert "INVOKE_SOURCES_DIRECTORY" in result.err


def test_a_read_only_checkout_is_a_disk_error(
    sglang: Sources, upstream: Upstream, read_only: Callable[[Path], None]
) -> None:
    sglang("clone")
    upstream.add_commit("sglang", "main")
    read_only(sglang.path / "sglang")
    result = sglang("update", check=4)
    assert "sglang" in one_line(result.err)


def test_paths_with_spaces_quotes_and_umlauts(make_project: Callable[..., Project], upstream: Upstream) -> None:
    project = make_project('it\'s a "größe" $HOME')
    upstream.add_commit("flashinfer", "main", {"docs/größe '\"$x.txt": "x\n"})
    project.invoke("clone", "--sglang-branch=v0.4.0")
    project.invoke("update", "--sglang-branch=v0.5.3", "--flashinfer-branch=v0.2.0")
    assert project.git("flashinfer", "rev-parse", "HEAD") == upstream.commit("flashinfer", "v0.2.0")
    assert project.git("flashinfer", "status", "--porcelain", "--untracked-files=no") == ""
    (project.tmp / "sglang/README.md").write_text("mine\n")
    result = project.invoke("update", "--sglang-branch=main", "--flashinfer-branch=v0.2.0", check=5)
    command = next(line for line in result.err.splitlines() if line.startswith("  git "))
    subprocess.run(["sh", "-c", command], env=project.environ, check=True, capture_output=True)
    project.invoke("update", "--sglang-branch=main", "--flashinfer-branch=v0.2.0")


def test_the_c_locale(make_project: Callable[..., Project], upstream: Upstream) -> None:
    link = Gitlink(upstream.commit("spdlog"))
    modules = (
        upstream.read("flashinfer", ".gitmodules") + f'[submodule "ä"]\n\tpath = 3rdparty/ä\n\turl = {url("spdlog")}\n'
    )
    upstream.add_commit("flashinfer", "main", {"docs/größe.txt": "ß\n", ".gitmodules": modules, "3rdparty/ä": link})
    project = make_project("größe")
    locale = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = project.invoke("clone", "--sglang-branch=v0.4.0", env=locale)
    assert (project.tmp / "flashinfer/3rdparty/ä/README.md").exists()
    (project.tmp / "flashinfer/docs/größe.txt").write_text("mine\n")
    upstream.add_commit("flashinfer", "main")
    result = project.invoke("update", "--sglang-branch=v0.4.0", env=locale, check=5)
    assert "Traceback" not in result.err
    project.git("flashinfer", "stash")
    project.invoke("update", "--sglang-branch=v0.4.0", env=locale)


def test_a_umask_of_077_and_no_git_identity(sglang: Sources, upstream: Upstream) -> None:
    before = os.umask(0o077)
    try:
        sglang("clone")
        upstream.add_commit("sglang", "main")
        sglang("update")
    finally:
        os.umask(before)
    assert (sglang.path / "sglang").stat().st_mode & 0o077 == 0
    sound(sglang, "sglang")


def test_the_sources_directory_may_be_a_symbolic_link(flashinfer: Sources, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    flashinfer.path.symlink_to(tmp_path / "big")
    flashinfer("clone", flashinfer="v0.2.0")
    flashinfer("update", flashinfer="main")
    assert flashinfer.path.is_symlink()
    assert (tmp_path / "big/flashinfer/3rdparty/cutlass/include").exists()
    sound(flashinfer, "flashinfer/3rdparty/cutlass")


def test_invoke_runs_from_a_subdirectory_and_from_a_git_hook(project: Project, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", project.path], check=True)
    (project.path / "sub/folder").mkdir(parents=True)
    hook = {name: str(project.path / ".git") for name in ("GIT_DIR", "GIT_COMMON_DIR")}
    hook |= {
        "GIT_INDEX_FILE": str(project.path / ".git/index"),
        "GIT_WORK_TREE": str(project.path),
        "GIT_PREFIX": "sub/",
    }
    before = fingerprint(project.path / ".git")
    project.invoke("clone", *SGLANG, cwd=project.path / "sub/folder", env=hook)
    project.invoke("update", "--sglang-branch=v0.5.3", "--flashinfer-branch=v0.6.7", env=hook)
    assert fingerprint(project.path / ".git") == before
    assert project.git("sglang", "describe", "--tags") == "v0.5.3"


def test_the_users_git_configuration_changes_nothing(flashinfer: Sources, upstream: Upstream) -> None:
    settings = {
        "fetch.prune": "true", "fetch.pruneTags": "true", "fetch.recurseSubmodules": "true",
        "submodule.recurse": "true",
        "core.autocrlf": "true", "core.quotePath": "true", "color.ui": "always", "diff.ignoreSubmodules": "all",
        "status.showUntrackedFiles": "all", "status.branch": "true", "safe.bareRepository": "explicit",
        "core.untrackedCache": "true", "feature.manyFiles": "true", "branch.autoSetupMerge": "false",
        "checkout.guess": "false", "transfer.fsckObjects": "true", "protocol.version": "0", "commit.gpgSign": "true",
        "init.defaultBranch": "trunk", "fetch.parallel": "4", "gc.auto": "1",
        "core.excludesFile": "/dev/null", "remote.origin.fetch": "+refs/heads/x:refs/remotes/origin/x",
        "status.relativePaths": "false", "log.showSignature": "true", "submodule.fetchJobs": "4",
        "push.default": "nothing",
    }  # fmt: skip
    for key, value in settings.items():
        subprocess.run(["git", "config", "--global", key, value], check=True)
    flashinfer("clone", flashinfer="v0.2.0")
    flashinfer("update", flashinfer="main")
    assert flashinfer.head("flashinfer") == upstream.commit("flashinfer")
    assert "v0.6.7.post3" in flashinfer.git("flashinfer", "tag")
    assert "up to date" in flashinfer("update", flashinfer="main").out
    next((flashinfer.path / "flashinfer/3rdparty/cutlass/include").rglob("*.h")).write_text("mine\n")
    flashinfer("update", check=5, flashinfer="v0.2.0")


def test_without_a_cache_and_with_one_that_cannot_be_used(flashinfer: Sources, tmp_path: Path) -> None:
    flashinfer.settings["cache"] = ""
    flashinfer("clone", flashinfer="v0.6.7")
    assert not (tmp_path / "home/.cache").exists()
    shutil.rmtree(flashinfer.path)
    (tmp_path / "file").write_text("a file\n")
    flashinfer.settings["cache"] = str(tmp_path / "file")
    flashinfer("clone", flashinfer="v0.6.7")
    flashinfer("update", flashinfer="main")
    assert (tmp_path / "file").read_text() == "a file\n"


def test_a_damaged_cache_is_ignored(sglang: Sources, tmp_path: Path) -> None:
    sglang("clone", sglang="v0.5.3")
    shutil.rmtree(sglang.path)
    for file in (tmp_path / "home/.cache").rglob("known.json"):
        file.write_text('{"shallow": [1, 2], "tips": "x", "complete": 3}')
    sglang("clone")
    sound(sglang, "sglang")


def test_another_sources_directory_and_no_terminal(project: Project, tmp_path: Path) -> None:
    result = project.invoke(
        "clone", *SGLANG, env={"INVOKE_SOURCES_DIRECTORY": str(tmp_path / "data/src"), "TERM": "dumb"}
    )
    assert (tmp_path / "data/src/sglang/python").exists()
    assert not project.tmp.exists()
    assert "\x1b" not in result.out + result.err


def test_the_oldest_supported_python(tmp_path: Path, tools: Path, project: Project) -> None:
    python = shutil.which("python3.10")
    if not python or subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip("there is no Python 3.10 here")
    environment = Environment(tmp_path / "other")
    subprocess.run([python, "-m", "venv", "--without-pip", environment.path], check=True)
    (site,) = environment.path.glob("lib/python*/site-packages")
    (site / "tools.pth").write_text(f"{tools}\n")
    project._environment.append(environment)
    project.invoke("clone", *SGLANG)
    project.invoke("update", *SGLANG)


def test_tasks_are_plain_functions(surroundings: None, host: GitHost, tmp_path: Path) -> None:
    from invoke.config import Config
    from invoke.context import Context

    from tasks import clone
    from tasks.settings import DEFAULTS

    repositories = {"thing": {"url": url("spdlog"), "branch": "v1.0"}}
    sources = {**DEFAULTS, "directory": str(tmp_path / "tmp"), "repositories": repositories, "cache": ""}
    (outcome,) = clone(Context(Config(overrides={"sources": sources})), only=["thing"])
    assert outcome.action == "cloned"
    assert (tmp_path / "tmp/thing/README.md").exists()
