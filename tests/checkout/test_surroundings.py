"""Unusual surroundings: an old git, files of another user, read-only directories, odd paths, locales, configuration,
and what is set around git or written in repositories that changes what git prints or where it looks."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.sources import Sources, configure, fingerprint, sound, url
from tests.thing import Thing
from tests.upstream.store import Gitlink, Upstream, git

SGLANG = ("--only=sglang", "--sglang-branch=v0.4.0")


def test_a_git_that_is_missing_or_too_old_is_reported(project: Project, tmp_path: Path) -> None:
    shim = tmp_path / "shim/git"
    shim.parent.mkdir()
    shim.write_text("#!/bin/sh\necho git version 2.33.0.windows.1\n")
    shim.chmod(0o755)
    old, none = f"{shim.parent}:{os.environ['PATH']}", str(tmp_path / "home")
    for path, said in ((old, "2.33"), (none, "git was not found")):
        text = project.invoke("clone", env={"PATH": path}, check=1).text
        assert said in text and "2.34" in text
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
    assert "belongs to another user" in result.text and "local changes" not in result.text
    assert fingerprint(sglang.path) == before
    subprocess.run(["git", "config", "--global", "--add", "safe.directory", sglang.path / "sglang"], check=True)
    sglang("update")
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


def test_directories_that_cannot_be_written_are_disk_errors(
    sglang: Sources, upstream: Upstream, read_only: Callable[[Path], None]
) -> None:
    sglang("clone")
    upstream.add_commit("sglang", "main")
    read_only(sglang.path / "sglang")
    assert "sglang" in sglang("update", check=4).text
    sglang.path = sglang.path.with_name("second")
    sglang.path.mkdir()
    read_only(sglang.path)
    assert f"{sglang.path} cannot be written" in sglang("clone", check=4).text


def test_paths_with_spaces_quotes_and_umlauts_in_the_c_locale(
    make_project: Callable[..., Project], upstream: Upstream
) -> None:
    link = Gitlink(upstream.commit("spdlog"))
    modules = upstream.read("flashinfer", ".gitmodules")
    modules += f'[submodule "ä"]\n\tpath = 3rdparty/ä\n\turl = {url("spdlog")}\n'
    odd = "docs/größe '\"$x.txt"
    upstream.add_commit("flashinfer", "main", {odd: "x\n", ".gitmodules": modules, "3rdparty/ä": link})
    project = make_project('it\'s a "größe" $HOME')
    locale = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    project.invoke("clone", "--only=flashinfer", env=locale)
    assert (project.tmp / "flashinfer/3rdparty/ä/README.md").exists()
    (project.tmp / "flashinfer" / odd).write_text("mine\n")
    upstream.add_commit("flashinfer", "main")
    assert project.invoke("update", "--only=flashinfer", env=locale, check=5).text
    project.git("flashinfer", "stash")
    project.invoke("update", "--only=flashinfer", env=locale)
    assert project.git("flashinfer", "rev-parse", "HEAD") == upstream.commit("flashinfer")


def test_a_umask_of_077_and_a_sources_directory_that_is_a_link(
    sglang: Sources, upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "big").mkdir()
    sglang.path.symlink_to(tmp_path / "big")
    before = os.umask(0o077)
    try:
        sglang("clone")
        upstream.add_commit("sglang", "main")
        sglang("update")
    finally:
        os.umask(before)
    assert (sglang.path / "sglang").stat().st_mode & 0o077 == 0
    assert sglang.path.is_symlink()
    sound(sglang, "sglang")


def test_invoke_runs_from_a_subdirectory_and_from_a_git_hook(project: Project) -> None:
    subprocess.run(["git", "init", "-q", project.path], check=True)
    (project.path / "sub/folder").mkdir(parents=True)
    hook = {name: str(project.path / ".git") for name in ("GIT_DIR", "GIT_COMMON_DIR")}
    hook |= {"GIT_INDEX_FILE": str(project.path / ".git/index"), "GIT_WORK_TREE": str(project.path)}
    before = fingerprint(project.path / ".git")
    project.invoke("clone", *SGLANG, cwd=project.path / "sub/folder", env=hook)
    project.invoke("update", "--only=sglang", "--sglang-branch=v0.5.3", env=hook)
    assert fingerprint(project.path / ".git") == before
    assert project.git("sglang", "describe", "--tags") == "v0.5.3"


def test_the_users_git_configuration_changes_nothing(flashinfer: Sources, upstream: Upstream) -> None:
    settings = {
        "fetch.prune": "true", "fetch.pruneTags": "true", "fetch.recurseSubmodules": "true", "fetch.parallel": "4",
        "submodule.recurse": "true", "core.autocrlf": "true", "core.quotePath": "true", "core.untrackedCache": "true",
        "color.ui": "always", "diff.ignoreSubmodules": "all", "status.showUntrackedFiles": "all",
        "status.branch": "true", "safe.bareRepository": "explicit", "feature.manyFiles": "true",
        "branch.autoSetupMerge": "false", "checkout.guess": "false", "checkout.defaultRemote": "x",
        "transfer.fsckObjects": "true", "protocol.version": "0", "commit.gpgSign": "true",
        "init.defaultBranch": "trunk", "gc.auto": "1", "remote.origin.fetch": "+refs/heads/x:refs/remotes/origin/x",
        "log.showSignature": "true", "clone.defaultRemoteName": "x", "merge.ff": "false", "rebase.autoStash": "true",
    }  # fmt: skip
    configure(**settings)
    flashinfer("clone", flashinfer="v0.2.0")
    flashinfer("update", flashinfer="main")
    assert flashinfer.head("flashinfer") == upstream.commit("flashinfer")
    assert "v0.7.4" in flashinfer.git("flashinfer", "tag")
    assert "up to date" in flashinfer("update", flashinfer="main").out
    next((flashinfer.path / "flashinfer/3rdparty/cutlass/include").rglob("*.h")).write_text("mine\n")
    flashinfer("update", check=5, flashinfer="v0.2.0")


def test_no_variable_of_another_repository_reaches_git(thing: Thing, monkeypatch: pytest.MonkeyPatch) -> None:
    names = subprocess.run(["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True, check=True).stdout
    values = {"GIT_CONFIG_PARAMETERS": "'core.bare=true'", "GIT_CONFIG_COUNT": "1", "GIT_DEFAULT_HASH": "sha256",
              "GIT_QUARANTINE_PATH": "/nowhere"}  # fmt: skip
    new = thing.move_on()
    commit = thing.upstream.commit("some/thing")
    with monkeypatch.context() as patch:
        for name in (*names.split(), *values):
            patch.setenv(name, values.get(name, "/nowhere"))
        patch.setenv("GIT_CONFIG_KEY_0", "core.bare")
        patch.setenv("GIT_CONFIG_VALUE_0", "true")
        thing.sources("update")
        thing.sources.path = thing.sources.path.with_name("second")
        thing.sources("clone")
    assert new == commit == thing.sources.head("thing")
    sound(thing.sources, "thing")


def test_signatures_that_git_log_shows_are_not_taken_for_output(sglang: Sources, upstream: Upstream) -> None:
    configure(log_showSignature="true")
    repository = upstream.path("sglang")
    head, message = git(repository, "cat-file", "commit", "main").split("\n\n", 1)
    signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n iQEz\n -----END PGP SIGNATURE-----"
    written = subprocess.run(
        ["git", "hash-object", "-w", "-t", "commit", "--stdin"],
        cwd=repository, input=f"{head}\n{signature}\n\n{message}\n", capture_output=True, text=True, check=True,
    )  # fmt: skip
    sglang("clone", sglang="v0.4.0")
    signed = upstream.set_ref("sglang", "refs/heads/main", written.stdout.strip())
    sglang("update", sglang="main")
    assert sglang.head("sglang") == signed
    assert "up to date" in sglang("update").text
    assert sglang("verify", check=None).text


ODD = "odd\u2028my\u0085name"


def test_names_with_unusual_line_ends_are_names(thing: Thing) -> None:
    for ref in (f"heads/{ODD}", f"tags/v9.9{ODD}"):
        thing.upstream.set_ref("some/thing", f"refs/{ref}", "main")
    thing.git("thing", "tag", f"tag{ODD}")
    thing.git("thing/deps/lib", "branch", ODD)
    thing.write("thing", f"{ODD}.txt")
    new = thing.move_on()
    printed = thing.sources("update")
    assert thing.sources.head("thing") == new
    thing.git("thing", "switch", "-q", "-c", f"mine{ODD}")
    mine = thing.commit("thing")
    thing.move_on()
    kept = thing.sources("update", check=None)
    assert kept.status in (0, 5) and thing.sources.head("thing") == mine and thing.has()
    for result in (printed, kept):
        assert ODD not in result.out + result.err, "a terminal would break the line"


def test_without_a_home(thing: Thing, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs with the id of nobody in particular: HOME is unset, or empty."""

    def unknown(_: int) -> object:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME")
    new = thing.move_on()
    thing.sources("update")
    assert thing.sources.head("thing") == new
    monkeypatch.setenv("HOME", "")
    assert "up to date" in thing.sources("update").text


def test_files_of_git_lfs_stay_pointers_whatever_is_set_up_globally(thing: Thing) -> None:
    configure(filter_lfs_smudge="false", filter_lfs_process="false", filter_lfs_clean="cat", filter_lfs_required="true")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    attributes = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
    files = {".gitattributes": attributes, "blob.safetensors": pointer}
    new = thing.upstream.add_commit("some/thing", "main", files)
    thing.sources("update")
    assert thing.sources.head("thing") == new
    assert (thing.top / "blob.safetensors").read_text() == pointer
