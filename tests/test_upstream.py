"""The host and the small upstreams that the other tests stand on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.upstream import repositories
from tests.upstream.faults import Action
from tests.upstream.host import GitHost
from tests.upstream.store import PATHS, Upstream

ROOT = Path(__file__).resolve().parent.parent


def git(environ: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environ = {**environ, "GIT_TERMINAL_PROMPT": "0"}
    return subprocess.run(["git", *arguments], env=environ, capture_output=True, text=True, check=False)


def test_a_clone_with_submodules_is_counted(host: GitHost, github: dict[str, str], tmp_path: Path) -> None:
    url = "https://github.com/flashinfer-ai/flashinfer"
    cloned = git(github, "clone", "-q", "--recurse-submodules", url, tmp_path / "f")
    assert cloned.returncode == 0, cloned.stderr
    assert (tmp_path / "f/3rdparty/cccl/cub/cub/part0.h").is_file()
    assert host.count("git-upload-pack. fetch") >= 4  # the repository and its three submodules
    assert host.bytes_sent > 300_000
    host.reset()
    assert (host.requests, host.bytes_sent) == ([], 0)
    assert "not found" in git(github, "ls-remote", f"{host.url}/nobody/nothing.git").stderr
    assert "not found" in git(github, "ls-remote", f"{host.url}/sgl-project/../../x/sglang.git").stderr


@pytest.mark.parametrize(("action", "message"), [("truncate", "early EOF"), ("hook", ""), ("stall", "")])
def test_a_fault_happens_at_its_byte(
    host: GitHost, environ: dict[str, str], tmp_path: Path, action: Action, message: str
) -> None:
    seen: list[int] = []
    fault = host.fault(action, " fetch$", after=20_000, call=lambda: seen.append(host.requests[-1].sent))
    command = ["git", "clone", "-q", f"{host.url}/NVIDIA/cutlass.git", str(tmp_path / "c")]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as clone:
        assert fault.fired.wait(120)
        fault.release.set()
        _, errors = clone.communicate(timeout=120)
    assert message in errors and (clone.returncode == 0) == (action != "truncate")
    assert seen == ([20_000] if action == "hook" else [])
    assert (host.requests[-1].sent == 20_000) == (action == "truncate")


def test_a_host_refuses_what_it_is_told_to(
    host: GitHost, upstream: Upstream, environ: dict[str, str], tmp_path: Path
) -> None:
    """Statuses, users without a password, filters, and commits that are no tip of a branch."""
    path = "gabime/spdlog.git"
    host.fault("status", "info/refs", status=429, nth=2)
    assert [git(environ, "ls-remote", f"{host.url}/{path}").returncode for _ in range(3)] == [0, 128, 0]
    host.credentials = "me:secret"
    assert git(environ, "ls-remote", f"{host.url}/{path}").returncode == 128
    assert git(environ, "ls-remote", f"{host.url.replace('//', '//me:secret@')}/{path}").returncode == 0
    host.credentials, host.filters = "", False
    cloned = git(environ, "clone", "--filter=blob:none", "-n", f"{host.url}/{path}", tmp_path / "s")
    assert cloned.returncode == 0 and "filtering not recognized" in cloned.stderr
    inner = upstream.commit("spdlog", "main~1")
    fetch = ("-C", tmp_path / "s", "fetch", "-q", "--depth=1", f"{host.url}/{path}", inner)
    host.anysha = False
    assert re.search("not our ref|unadvertised object", git(environ, *fetch).stderr)
    host.anysha = True
    assert git(environ, *fetch).returncode == 0


def test_the_small_upstreams_are_complete_and_the_same_each_time(
    built: Upstream, environ: dict[str, str], tmp_path: Path
) -> None:
    again = repositories.build(tmp_path / "again")
    for name in PATHS:
        assert git(environ, "-C", built.path(name), "fsck", "--strict").returncode == 0
        assert built.commit(name) == again.commit(name)
    for release, count in {"v0.1.6": 3, "v0.2.0": 3, "v0.3.0": 2, "v0.6.7.post3": 2, "main": 3}.items():
        tree = git(environ, "-C", built.path("flashinfer"), "ls-tree", "-r", release).stdout
        links = re.findall(r"160000 commit (\w+)\t3rdparty/(\w+)", tree)
        assert len(links) == count
        for commit, name in links:  # none is the tip of a branch
            assert built.commit(name) != commit == built.commit(name, commit)


def test_a_command_runs_as_if_github_held_the_small_upstreams(environ: dict[str, str], built: Upstream) -> None:
    """It has the user's configuration, an environment and a cache of its own; it gets Ctrl-C, and its status counts."""
    elsewhere = '[url "https://elsewhere.invalid/"]\n\tinsteadOf = https://github.com/\n'
    (Path(environ["HOME"]) / ".gitconfig").write_text(f"[user]\n\tname = Somebody\n{elsewhere}")
    shell = """trap 'exit 7' INT
        git -C / config user.name; git ls-remote https://github.com/sgl-project/sglang.git main
        python -c 'import sys, invoke; print(sys.prefix, invoke.__file__)'; echo $UV_CACHE_DIR
        echo; while :; do sleep 0.1; done"""
    command = [sys.executable, "-m", "tests.upstream", "sh", "-c", shell]
    pipe = subprocess.PIPE
    run = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    assert run.stdout
    printed = "".join(iter(run.stdout.readline, "\n"))
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=120)
    assert (run.returncode, errors) == (7, "")
    name, commit, _, environment, module, cache = printed.split()
    assert (name, commit) == ("Somebody", built.commit("sglang"))
    assert environment != sys.prefix and module.startswith(environment)
    assert cache != environ["UV_CACHE_DIR"] and not Path(cache).exists() and not Path(environment).exists()
