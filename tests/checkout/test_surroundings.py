"""Unusual surroundings: an old git, files of another user, odd paths, locales, configuration, and what is set around
git or written in repositories that changes what git prints or where it looks."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.sources import Sources, configure, fingerprint, sound, url
from tests.thing import LIB, TOP, Thing
from tests.upstream.store import Gitlink, Upstream, git

ODD = "odd\u2028my\u0085name"


def test_a_git_that_is_missing_or_too_old_is_reported(
    sglang: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim = tmp_path / "shim/git"
    shim.parent.mkdir()
    shim.write_text("#!/bin/sh\necho git version 2.33.0.windows.1\n")
    shim.chmod(0o755)
    for path, said in ((f"{shim.parent}:{os.environ['PATH']}", "2.33"), (str(tmp_path / "home"), "git was not found")):
        monkeypatch.setenv("PATH", path)
        text = sglang("clone", check=1).text
        assert said in text and "2.34" in text


def test_a_checkout_of_another_user_is_not_touched_until_it_is_trusted(sglang: Sources, upstream: Upstream) -> None:
    if os.getuid() != 0:
        pytest.skip("only root gives files away")
    sglang("clone")
    upstream.add_commit("sglang", "main")
    for path in (sglang.path / "sglang", *(sglang.path / "sglang").rglob("*")):
        os.lchown(path, 12345, 12345)
    before = fingerprint(sglang.path)
    result = sglang("update", check=5)
    assert "belongs to another user" in result.text and "local changes" not in result.text
    assert fingerprint(sglang.path) == before
    subprocess.run(["git", "config", "--global", "--add", "safe.directory", sglang.path / "sglang"], check=True)
    sglang("update")
    assert sglang.head("sglang") == upstream.commit("sglang")


def test_paths_with_spaces_quotes_and_umlauts_in_the_c_locale(
    make_project: Callable[..., Project], upstream: Upstream
) -> None:
    link, odd = Gitlink(upstream.commit("spdlog")), "docs/größe '\"$x.txt"
    modules = f'[submodule "ä"]\n\tpath = 3rdparty/ä\n\turl = {url("spdlog")}\n'
    upstream.add_commit("sglang", "main", {odd: "x\n", ".gitmodules": modules, "3rdparty/ä": link})
    project = make_project('it\'s a "größe" $HOME')
    project.environ |= {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    project.invoke("clone", "--only=sglang")
    assert (project.tmp / "sglang/3rdparty/ä/README.md").exists()
    (project.tmp / "sglang" / odd).write_text("mine\n")
    upstream.add_commit("sglang", "main")
    assert project.invoke("update", "--only=sglang", check=5).text
    project.git("sglang", "stash")
    project.invoke("update", "--only=sglang")
    assert project.git("sglang", "rev-parse", "HEAD") == upstream.commit("sglang")


def test_the_users_git_configuration_changes_nothing_nor_does_a_signature_that_git_log_shows(thing: Thing) -> None:
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
    thing.move_on()
    thing.sources("update")
    repository = thing.upstream.path("some/thing")
    head, message = git(repository, "cat-file", "commit", "main").split("\n\n", 1)
    signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n iQEz\n -----END PGP SIGNATURE-----"
    (thing.sources.path / "signed").write_text(f"{head}\n{signature}\n\n{message}\n")
    signed = git(repository, "hash-object", "-w", "-t", "commit", str(thing.sources.path / "signed"))
    thing.upstream.set_ref("some/thing", "refs/heads/main", signed)
    shutil.rmtree(thing.top)
    thing.sources("clone")
    assert thing.sources.head(TOP) == signed
    assert "v1.0" in thing.git(TOP, "tag")
    assert "up to date" in thing.sources("update").out
    assert thing.sources("verify", check=None).text
    thing.write(LIB, "a.txt")
    thing.move_on()
    thing.sources("update", check=5)


def test_no_variable_of_another_repository_reaches_git(thing: Thing, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where Invoke runs in a hook of git."""
    names = subprocess.run(["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True, check=True).stdout
    values = {"GIT_CONFIG_PARAMETERS": "'core.bare=true'", "GIT_CONFIG_COUNT": "1", "GIT_DEFAULT_HASH": "sha256",
              "GIT_QUARANTINE_PATH": "/nowhere"}  # fmt: skip
    new = thing.move_on()
    with monkeypatch.context() as patch:
        for name in (*names.split(), *values):
            patch.setenv(name, values.get(name, "/nowhere"))
        patch.setenv("GIT_CONFIG_KEY_0", "core.bare")
        patch.setenv("GIT_CONFIG_VALUE_0", "true")
        thing.sources("update")
        thing.sources.path = thing.sources.path.with_name("second")
        thing.sources("clone")
    assert thing.sources.head(TOP) == new
    sound(thing.sources, TOP)


def test_without_a_home(thing: Thing, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs with the id of nobody in particular: HOME is unset, or empty."""

    def unknown(_: int) -> object:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME")
    new = thing.move_on()
    thing.sources("update")
    assert thing.sources.head(TOP) == new
    monkeypatch.setenv("HOME", "")
    assert "up to date" in thing.sources("update").text


def test_files_of_git_lfs_stay_pointers_whatever_is_set_up_globally(thing: Thing) -> None:
    configure(filter_lfs_smudge="false", filter_lfs_process="false", filter_lfs_clean="cat", filter_lfs_required="true")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    attributes = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
    new = thing.upstream.add_commit("some/thing", "main", {".gitattributes": attributes, "blob.safetensors": pointer})
    thing.sources("update")
    assert thing.sources.head(TOP) == new
    assert (thing.top / "blob.safetensors").read_text() == pointer


def test_names_with_unusual_line_ends_are_names(thing: Thing) -> None:
    for ref in (f"heads/{ODD}", f"tags/v9.9{ODD}"):
        thing.upstream.set_ref("some/thing", f"refs/{ref}", "main")
    thing.git(TOP, "tag", f"tag{ODD}")
    thing.git(LIB, "branch", ODD)
    thing.write(TOP, f"{ODD}.txt")
    new = thing.move_on()
    thing.sources("update")
    assert thing.sources.head(TOP) == new
    thing.git(TOP, "switch", "-q", "-c", f"mine{ODD}")
    thing.move_on()
    result = thing.sources("update", check=None)
    assert result.status in (0, 5) and thing.sources.head(TOP) == new
    assert ODD not in result.out + result.err, "a terminal would break the line"
