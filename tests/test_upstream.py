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
from tests.upstream.host import GitHost, refused_url
from tests.upstream.store import PATHS, Gitlink, Symlink, Upstream

ROOT = Path(__file__).resolve().parent.parent


def git(environ: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environ = {**environ, "GIT_TERMINAL_PROMPT": "0"}
    return subprocess.run(["git", *arguments], env=environ, capture_output=True, text=True, check=False)


def upstream_command(environ: dict[str, str], *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.upstream", *arguments]


def test_a_clone_with_submodules_counts_as_what_was_asked_and_sent(
    host: GitHost, github: dict[str, str], tmp_path: Path
) -> None:
    made = git(
        github, "clone", "-q", "--recurse-submodules", "https://github.com/flashinfer-ai/flashinfer", tmp_path / "f"
    )
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "f/3rdparty/cccl/cub/cub/part0.h").is_file()
    assert host.count("git-upload-pack. fetch") >= 5  # the repository, its four submodules
    assert {request.status for request in host.requests} == {200}
    assert host.bytes_sent == sum(request.sent for request in host.requests) > 300_000
    host.reset()
    assert (host.requests, host.bytes_sent) == ([], 0)


def test_a_repository_that_is_not_there_is_not_found(host: GitHost, environ: dict[str, str]) -> None:
    assert "not found" in git(environ, "ls-remote", f"{host.url}/nobody/nothing.git").stderr
    assert "not found" in git(environ, "ls-remote", f"{host.url}/sgl-project/../../x/sglang.git").stderr


@pytest.mark.parametrize(
    ("action", "says"),
    [("reset", "reset by peer"), ("truncate", "early EOF"), ("hook", "")],
    ids=["reset", "truncate", "hook"],
)
def test_a_transfer_is_struck_at_the_byte_asked_for(
    host: GitHost, environ: dict[str, str], tmp_path: Path, action: Action, says: str
) -> None:
    seen: list[int] = []
    fault = host.fault(action, " fetch$", after=20_000, call=lambda: seen.append(host.requests[-1].sent))
    made = git(environ, "clone", "-q", f"{host.url}/NVIDIA/cutlass.git", tmp_path / "c")
    assert fault.fired.is_set() and says in made.stderr
    assert (made.returncode == 0) == (action == "hook")
    if action == "hook":
        assert seen == [20_000] and host.requests[-1].sent > 20_000
    else:
        assert host.requests[-1].sent == 20_000


def test_a_stalled_transfer_holds_until_it_is_released(host: GitHost, environ: dict[str, str], tmp_path: Path) -> None:
    fault = host.fault("stall", " fetch$", after=20_000)
    clone = subprocess.Popen(["git", "clone", "-q", f"{host.url}/NVIDIA/cutlass.git", tmp_path / "c"], env=environ)
    assert fault.fired.wait(120)
    assert clone.poll() is None
    fault.release.set()
    assert clone.wait(120) == 0


def test_a_status_is_answered_as_often_as_asked_for(host: GitHost, environ: dict[str, str]) -> None:
    host.fault("status", "info/refs", status=429, retry_after="7", nth=2, times=2)
    runs = [git(environ, "ls-remote", f"{host.url}/gabime/spdlog.git") for _ in range(4)]
    assert [run.returncode for run in runs] == [0, 128, 128, 0]
    assert "error: 429" in runs[1].stderr


def test_connections_are_refused_while_nobody_listens(host: GitHost, environ: dict[str, str]) -> None:
    with host.refusing():
        assert "connect" in git(environ, "ls-remote", f"{host.url}/gabime/spdlog.git").stderr
    assert git(environ, "ls-remote", f"{host.url}/gabime/spdlog.git").returncode == 0
    with refused_url() as url:
        assert "connect" in git(environ, "ls-remote", f"{url}/gabime/spdlog.git").stderr


def test_a_host_may_want_a_password(upstream: Upstream, environ: dict[str, str]) -> None:
    with GitHost(upstream.root, credentials="me:secret") as host:
        assert git(environ, "ls-remote", f"{host.url}/gabime/spdlog.git").returncode == 128
        given = host.url.replace("//", "//me:secret@")
        assert git(environ, "ls-remote", f"{given}/gabime/spdlog.git").returncode == 0


def test_a_host_may_serve_no_filters(upstream: Upstream, environ: dict[str, str], tmp_path: Path) -> None:
    with GitHost(upstream.root, filters=False) as host:
        made = git(environ, "clone", "--filter=blob:none", "-n", f"{host.url}/gabime/spdlog.git", tmp_path / "s")
    assert made.returncode == 0 and "filtering not recognized" in made.stderr


@pytest.mark.parametrize("protocol0", [False, True])
def test_a_host_may_serve_tips_alone(
    upstream: Upstream, environ: dict[str, str], tmp_path: Path, protocol0: bool
) -> None:
    inner = upstream.commit("spdlog", "main~1")
    git(environ, "init", "-q", tmp_path / "s")
    fetch = ("-C", tmp_path / "s", "fetch", "-q", "--depth=1")
    with GitHost(upstream.root, anysha=False, protocol0=protocol0) as host:
        assert git(environ, *fetch, f"{host.url}/gabime/spdlog.git", "main").returncode == 0
        refused = git(environ, *fetch, f"{host.url}/gabime/spdlog.git", inner)
        assert refused.returncode == 128 and re.search("not our ref|unadvertised object", refused.stderr)
        host.anysha = True
        assert git(environ, *fetch, f"{host.url}/gabime/spdlog.git", inner).returncode == 0


def test_the_small_upstreams_are_whole_and_the_same_each_time(
    built: Upstream, environ: dict[str, str], tmp_path: Path
) -> None:
    again = repositories.build(tmp_path / "again")
    for name in PATHS:
        assert git(environ, "-C", built.path(name), "fsck", "--strict").returncode == 0
        assert built.commit(name) == again.commit(name)


def test_submodules_are_linked_at_commits_that_are_no_tips(built: Upstream, environ: dict[str, str]) -> None:
    for release, count in {"v0.1.6": 6, "v0.2.0": 6, "v0.3.0": 2, "v0.6.7.post3": 2, "v0.7.2": 3, "main": 4}.items():
        tree = git(environ, "-C", built.path("flashinfer"), "ls-tree", "-r", release).stdout
        links = re.findall(r"160000 commit (\w+)\t3rdparty/(\w+)", tree)
        assert len(links) == count
        for commit, name in links:
            own = name.replace("kernels", "kernel")
            assert built.commit(own) != commit == built.commit(own, commit)


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
    assert upstream.add_commit("me/mine", files={"a": "b"}) == upstream.commit("me/mine")
    assert built.commit("sglang") == old


def test_the_command_runs_as_if_github_held_the_small_upstreams(
    environ: dict[str, str], built: Upstream, tmp_path: Path
) -> None:
    theirs = tmp_path / "home/.gitconfig"
    theirs.write_text(
        '[user]\n\tname = Somebody\n[url "https://elsewhere.invalid/"]\n\tinsteadOf = https://github.com/\n'
    )
    before = theirs.read_bytes()
    shell = "git config --global user.name && git ls-remote https://github.com/sgl-project/sglang.git main && exit 7"
    command = [sys.executable, "-m", "tests.upstream", "sh", "-c", shell]
    run = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert run.returncode == 7, run.stderr
    assert run.stdout.split() == ["Somebody", built.commit("sglang"), "refs/heads/main"]
    assert theirs.read_bytes() == before


def test_ctrl_c_reaches_the_command_and_ends_it_all(environ: dict[str, str]) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.upstream",
        "sh",
        "-c",
        "trap 'exit 130' INT; echo ready; while :; do sleep 1; done",
    ]
    run = subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert run.stdout and run.stdout.readline() == b"ready\n"
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=120)
    assert (run.returncode, errors) == (130, b"")


def test_the_command_installs_without_the_users_cache(environ: dict[str, str], tmp_path: Path) -> None:
    command = upstream_command(environ, "uv", "pip", "install", "--target", str(tmp_path / "there"), "torch")
    subprocess.run(command, cwd=ROOT, env=environ | {"UV_CACHE_DIR": str(tmp_path / "cache")}, check=True)
    assert (tmp_path / "there/torch/__init__.py").is_file()
    assert not (tmp_path / "cache").exists()
