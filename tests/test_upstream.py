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
from tests.upstream.store import PATHS, Gitlink, Symlink, Upstream

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "tests.upstream"]


def git(environ: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environ = {**environ, "GIT_TERMINAL_PROMPT": "0"}
    return subprocess.run(["git", *arguments], env=environ, capture_output=True, text=True, check=False)


def test_a_clone_with_submodules_is_counted(host: GitHost, github: dict[str, str], tmp_path: Path) -> None:
    url = "https://github.com/flashinfer-ai/flashinfer"
    cloned = git(github, "clone", "-q", "--recurse-submodules", url, tmp_path / "f")
    assert cloned.returncode == 0, cloned.stderr
    assert (tmp_path / "f/3rdparty/cccl/cub/cub/part0.h").is_file()
    assert host.count("git-upload-pack. fetch") >= 5  # the repository, its four submodules
    assert host.bytes_sent == sum(request.sent for request in host.requests) > 300_000
    host.reset()
    assert (host.requests, host.bytes_sent) == ([], 0)
    assert "not found" in git(github, "ls-remote", f"{host.url}/nobody/nothing.git").stderr
    assert "not found" in git(github, "ls-remote", f"{host.url}/sgl-project/../../x/sglang.git").stderr


@pytest.mark.parametrize(
    ("action", "message"), [("reset", "reset by peer"), ("truncate", "early EOF"), ("hook", ""), ("stall", "")]
)
def test_a_fault_happens_at_its_byte(
    host: GitHost, environ: dict[str, str], tmp_path: Path, action: Action, message: str
) -> None:
    seen: list[int] = []
    fault = host.fault(action, " fetch$", after=20_000, call=lambda: seen.append(host.requests[-1].sent))
    command = ["git", "clone", "-q", f"{host.url}/NVIDIA/cutlass.git", str(tmp_path / "c")]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as clone:
        assert fault.fired.wait(120)
        assert clone.poll() is None or action in ("reset", "truncate")
        fault.release.set()
        _, errors = clone.communicate(timeout=120)
    assert message in errors and (clone.returncode == 0) == (action in ("hook", "stall"))
    assert seen == ([20_000] if action == "hook" else [])
    assert (host.requests[-1].sent == 20_000) == (action in ("reset", "truncate"))


def test_a_host_refuses_what_it_is_told_to(
    host: GitHost, upstream: Upstream, environ: dict[str, str], tmp_path: Path
) -> None:
    """Statuses, connections, users without a password, filters, and commits that are no tip of a branch."""
    path = "gabime/spdlog.git"
    host.fault("status", "info/refs", status=429, nth=2, times=2)
    assert [git(environ, "ls-remote", f"{host.url}/{path}").returncode for _ in range(4)] == [0, 128, 128, 0]
    with host.refusing():
        assert "connect" in git(environ, "ls-remote", f"{host.url}/{path}").stderr
    host.credentials = "me:secret"
    assert git(environ, "ls-remote", f"{host.url}/{path}").returncode == 128
    assert git(environ, "ls-remote", f"{host.url.replace('//', '//me:secret@')}/{path}").returncode == 0
    host.credentials, host.filters = "", False
    cloned = git(environ, "clone", "--filter=blob:none", "-n", f"{host.url}/{path}", tmp_path / "s")
    assert cloned.returncode == 0 and "filtering not recognized" in cloned.stderr
    git(environ, "init", "-q", tmp_path / "t")
    inner = upstream.commit("spdlog", "main~1")
    fetch = ("-C", tmp_path / "t", "fetch", "-q", "--depth=1", f"{host.url}/{path}", inner)
    for host.protocol0 in (False, True):
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
    counts = {"v0.1.6": 6, "v0.2.0": 6, "v0.3.0": 2, "v0.6.7.post3": 2, "v0.7.2": 3, "main": 4}
    for release, count in counts.items():
        tree = git(environ, "-C", built.path("flashinfer"), "ls-tree", "-r", release).stdout
        links = re.findall(r"160000 commit (\w+)\t3rdparty/(\w+)", tree)
        assert len(links) == count
        for commit, name in links:  # none is the tip of a branch
            submodule = name.replace("kernels", "kernel")
            assert built.commit(submodule) != commit == built.commit(submodule, commit)


def test_an_upstream_changes_as_upstreams_do(upstream: Upstream, built: Upstream) -> None:
    old = upstream.commit("sglang")
    new = upstream.add_commit("sglang", files={"docs/new.txt": "new", "README.md": None, "link": Symlink("docs")})
    assert upstream.commit("sglang", f"{new}^") == old and upstream.read("sglang", "docs/new.txt") == "new\n"
    forced = upstream.force_push("sglang", files={"3rdparty/x": Gitlink(old)})
    assert forced != new and upstream.commit("sglang", "main^") == old
    assert upstream.move_tag("sglang", "v0.4.0") == upstream.commit("sglang", "v0.4.0") == forced
    upstream.delete_ref("sglang", "refs/tags/v0.4.0")
    with pytest.raises(subprocess.CalledProcessError):
        upstream.commit("sglang", "v0.4.0")
    assert built.commit("sglang") == old


def test_a_command_runs_as_if_github_held_the_small_upstreams(environ: dict[str, str], built: Upstream) -> None:
    """It has the user's configuration, an environment and a cache of its own, and hands on its exit status."""
    elsewhere = '[url "https://elsewhere.invalid/"]\n\tinsteadOf = https://github.com/\n'
    (Path(environ["HOME"]) / ".gitconfig").write_text(f"[user]\n\tname = Somebody\n{elsewhere}")
    shell = """git -C / config user.name; git ls-remote https://github.com/sgl-project/sglang.git main
        python -c 'import sys, invoke; print(sys.prefix, invoke.__file__)'; echo $UV_CACHE_DIR; exit 7"""
    command = [*COMMAND, "sh", "-c", shell]
    run = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert run.returncode == 7, run.stderr
    name, commit, _, environment, module, cache = run.stdout.split()
    assert (name, commit) == ("Somebody", built.commit("sglang"))
    assert environment != sys.prefix and module.startswith(environment)
    assert cache != environ["UV_CACHE_DIR"] and not Path(cache).exists() and not Path(environment).exists()


def test_ctrl_c_reaches_the_command_and_ends_it_all(environ: dict[str, str]) -> None:
    shell = "trap 'exit 130' INT; echo ready; while :; do sleep 1; done"
    command = [*COMMAND, "sh", "-c", shell]
    pipe = subprocess.PIPE
    run = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=pipe, stderr=pipe, start_new_session=True)
    assert run.stdout and run.stdout.readline() == b"ready\n"
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=120)
    assert (run.returncode, errors) == (130, b"")
