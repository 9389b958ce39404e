"""Network errors: transient ones are retried, others are not, no run waits for ever, nothing partial stays behind."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks import processes
from tests.sources import Sources, url, work
from tests.upstream.faults import Action
from tests.upstream.host import GitHost
from tests.upstream.store import Gitlink, Upstream, git

FETCH = r"upload-pack\? fetch"


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds between attempts, which are not spent."""
    spent: list[float] = []
    monkeypatch.setattr(processes, "wait", spent.append)
    return spent


@pytest.fixture
def direct(sglang: Sources, host: GitHost) -> Sources:
    """SGLang at the host's own address, with a short `stall`."""
    sglang.repositories["sglang"]["url"] = f"{host.url}/sgl-project/sglang.git"
    sglang.settings |= {"cache": "", "stall": "1"}
    return sglang


@pytest.fixture
def black_hole() -> Iterator[str]:
    """The URL of a port that answers no connection, neither with yes nor with no."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = [socket.socket() for _ in range(4)]  # more than the system keeps for who listens
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/sgl-project/sglang.git"
        for each in waiting:
            each.close()


def nothing_but_the_lock(folder: Path) -> bool:
    return {path.name for path in folder.iterdir()} <= {".lock"}


@pytest.mark.parametrize(
    ("action", "on", "after", "status", "reason"),
    [
        ("reset", "GET", 0, 0, "reset"),
        ("reset", FETCH, 40, 0, "reset"),
        ("truncate", "ls-refs", 100, 0, "closed"),
        ("truncate", FETCH, 500, 0, "early EOF|closed"),
        ("stall", "ls-refs", 100, 0, "no data for 1 s"),
        ("stall", FETCH, 500, 0, "no data for 1 s"),
        ("status", "GET", 0, 429, "429"),
        ("status", "ls-refs", 0, 500, "500"),
        ("status", "GET", 0, 502, "502"),
        ("status", FETCH, 0, 503, "503"),
    ],
)
def test_a_transient_error_is_retried_saying_endpoint_reason_attempt_and_wait(
    action: Action, on: str, after: int, status: int, reason: str,
    direct: Sources, host: GitHost, upstream: Upstream, waits: list[float],
) -> None:  # fmt: skip
    fault = host.fault(action, on, after=after, status=status)
    result = direct("clone")
    assert fault.fired.is_set()
    (warning,) = [line for line in result.err.splitlines() if "Attempt 2" in line]
    assert f"sglang: warning: {host.url}/sgl-project/sglang.git: " in warning
    assert re.search(reason, warning)
    assert re.search(rf"Attempt 2 of 2 in {waits[0]:.1f} s", warning)
    assert direct.head("sglang") == upstream.commit("sglang")
    direct.git("sglang", "fsck", "--connectivity-only")


def test_a_refused_connection_ends_with_exit_status_3_and_a_later_run_succeeds(direct: Sources, host: GitHost) -> None:
    with host.refusing():
        result = direct("clone", check=3)
    assert re.search(r"Attempt 2 of 2", result.err)
    assert f"sglang: {host.url}/sgl-project/sglang.git: " in result.err
    assert "Failed to connect" in result.err
    assert nothing_but_the_lock(direct.path)
    direct("clone")


@pytest.mark.parametrize("status", [401, 403, 404, 410])
@pytest.mark.parametrize("on", ["GET", FETCH])
def test_an_error_that_stays_is_not_retried(
    status: int, on: str, direct: Sources, host: GitHost, waits: list[float]
) -> None:
    host.fault("status", on, status=status, times=9)
    result = direct("clone", check=3)
    assert waits == []
    assert f"{host.url}/sgl-project/sglang.git" in result.err
    assert nothing_but_the_lock(direct.path)


def test_an_unknown_host_is_asked_for_at_most_once_more(direct: Sources, waits: list[float]) -> None:
    direct.repositories["sglang"]["url"] = "http://host.invalid/sgl-project/sglang.git"
    direct.settings["attempts"] = "5"
    result = direct("clone", check=3)
    assert len(waits) <= 1
    assert "host.invalid" in result.err


def test_no_password_is_asked_for(direct: Sources, host: GitHost) -> None:
    host.credentials = "somebody:secret"
    assert "never asked for" in direct("clone", check=3).err
    assert host.count("GET") == 1


def test_a_connection_that_nobody_answers_is_given_up(direct: Sources, black_hole: str) -> None:
    direct.repositories["sglang"]["url"] = black_hole
    direct.settings["stall"] = "0.3"
    result = direct("clone", check=3)
    assert "Attempt 2 of 2" in result.err
    assert "no data for 0.3 s" in result.err


def test_there_are_as_many_attempts_as_configured_with_growing_and_varied_waits(
    direct: Sources, host: GitHost, waits: list[float]
) -> None:
    direct.settings["attempts"] = "7"
    host.fault("status", "GET", status=503, times=99)
    result = direct("clone", check=3)
    assert host.count("GET") == 7
    assert [f"Attempt {n} of 7" in result.err for n in (1, 2, 7, 8)] == [False, True, True, False]
    assert all(least <= wait <= least + 1 for least, wait in zip([1, 2, 4, 8, 16, 30], waits, strict=True))
    assert len({round(wait % 1, 6) for wait in waits}) > 1, "the waits of many machines do not coincide"


def test_one_repository_that_fails_does_not_stop_the_other(sources: Sources, host: GitHost) -> None:
    host.fault("status", "flashinfer.git/.*GET|GET.*flashinfer.git", status=403, times=9)
    result = sources("clone", check=3)
    assert sources.git("sglang", "status", "--porcelain") == ""
    assert not (sources.path / "flashinfer").exists()
    assert "flashinfer: https://github.com/flashinfer-ai/flashinfer.git: " in result.err


def test_a_failing_submodule_leaves_no_partial_checkout_and_is_named(flashinfer: Sources, host: GitHost) -> None:
    host.fault("status", "cutlass.git", status=403, times=9)
    result = flashinfer("clone", check=3)
    assert f"flashinfer/3rdparty/cutlass: {url('cutlass')}: " in result.err
    assert nothing_but_the_lock(flashinfer.path)


def test_what_arrived_before_a_failure_does_not_move_again(flashinfer: Sources, host: GitHost) -> None:
    host.fault("status", "cutlass.git", status=403, times=9)
    flashinfer("clone", check=3)
    others = r"(?<!cutlass)\.git/git-upload-pack\? fetch"
    assert host.count(others) >= 5
    host.reset()
    flashinfer("clone")
    assert host.count(others) == 0


def test_an_update_that_fails_leaves_the_checkout_as_it_was(
    flashinfer: Sources, host: GitHost, upstream: Upstream
) -> None:
    flashinfer("clone", flashinfer="v0.3.0")
    before = work(flashinfer.path)
    host.fault("status", "cccl.git", status=403, times=9)
    flashinfer("update", check=3, flashinfer="main")
    new = r"\.git/modules/3rdparty/(cccl|nixl)"  # empty repositories, of submodules that nothing refers to yet
    assert {path: file for path, file in work(flashinfer.path).items() if not re.search(new, path)} == before
    host.reset()
    flashinfer("update", flashinfer="main")
    assert flashinfer.head("flashinfer") == upstream.commit("flashinfer")


def answer(body: bytes = b"", media: str = "text/html", status: str = "200 OK", **headers: str) -> bytes:
    """A whole HTTP response."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {media}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def packet(data: bytes) -> bytes:
    """One pkt-line (gitprotocol-common(5))."""
    return b"%04x%s" % (len(data) + 4, data)


def sideband(*texts: bytes) -> bytes:
    """The answer to a fetch in which the remote only talks (gitprotocol-v2(5), band 2)."""
    packets = b"".join(packet(b"\x02" + text) for text in texts)
    return answer(packet(b"packfile\n") + packets, "application/x-git-upload-pack-result")


ADVERTISEMENT = "application/x-git-upload-pack-advertisement"
PORTAL = b"<html><body>Log in to use this network.\t</body></html>\n" * 9
LOOP = "/sgl-project/sglang.git/info/refs?service=git-upload-pack"


@pytest.mark.parametrize(
    ("on", "response"),
    [
        ("GET", answer(PORTAL)),
        ("GET", answer()),
        ("GET", answer(b"", ADVERTISEMENT)),
        ("GET", answer(PORTAL, ADVERTISEMENT)),
        ("GET", answer(b"zzzz", ADVERTISEMENT)),
        ("GET", answer(b"0003", ADVERTISEMENT)),
        ("GET", answer(packet(b"# service=git-upload-pack\n") + b"00000000", ADVERTISEMENT)),
        ("GET", answer(b"", status="302 Found", Location=LOOP)),
        ("GET", answer(b"no gzip", ADVERTISEMENT, Content_Encoding="gzip")),
        ("ls-refs", answer(PORTAL)),
        ("ls-refs", answer(b"zzzz", "application/x-git-upload-pack-result")),
        (FETCH, answer(PORTAL)),
        (FETCH, answer(PORTAL, "application/x-git-upload-pack-result")),
        (FETCH, answer(b"no gzip", "application/x-git-upload-pack-result", Content_Encoding="gzip")),
    ],
)
def test_an_answer_that_is_not_gits_is_a_network_error(
    on: str, response: bytes, direct: Sources, host: GitHost
) -> None:
    fault = host.fault("raw", on, answer=response, times=99)
    result = direct("clone", check=3)
    assert fault.fired.is_set()
    assert f"{host.url}/sgl-project/sglang.git" in result.err
    assert "Traceback" not in result.err + result.out
    assert re.search("proxy|Check the connection|Check the URL", result.err)
    assert nothing_but_the_lock(direct.path)
    host.reset()
    direct("clone")


def test_a_renamed_repository_is_cloned_and_updated_through_its_redirect(
    direct: Sources, host: GitHost, upstream: Upstream
) -> None:
    direct.repositories["sglang"]["url"] = f"{host.url}/old/name.git"
    host.fault("raw", "old/name", times=99, answer=answer(status="301 Moved", Location=f"{host.url}{LOOP}"))
    direct("clone")
    new = upstream.add_commit("sglang", "main")
    direct("update")
    assert direct.head("sglang") == new


@pytest.mark.parametrize("setting", ["GIT_TRACE", "GIT_TRACE_PACKET", "GIT_CURL_VERBOSE", "credentialsInUrl"])
def test_messages_on_standard_error_are_not_taken_for_output(
    setting: str, direct: Sources, host: GitHost, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    if setting == "credentialsInUrl":
        subprocess.run(["git", "config", "--global", "transfer.credentialsInUrl", "warn"], check=True)
        direct.repositories["sglang"]["url"] = f"{host.url}/sgl-project/sglang.git".replace("//", "//me:secret@", 1)
        host.credentials = "me:secret"
    else:
        monkeypatch.setenv(setting, "1")
    direct("clone")
    new = upstream.add_commit("sglang", "main")
    direct("update")
    assert direct.head("sglang") == new


def write_ssh(path: Path, upstream: Upstream, log: Path) -> None:
    """A program that is called like ssh, and runs the command on this machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'#!/bin/sh\necho "$0 $*" >> {log}\necho "Warning: Permanently added \'example.org\' (ED25519)." >&2\n'
        f'for last; do :; done\ncd {upstream.root} && eval "$last"\n'
    )
    path.chmod(0o755)


@pytest.mark.parametrize(
    "place", ["PATH", "blank", "GIT_SSH_COMMAND", "GIT_SSH", "wrapper", "global", "system", "checkout"]
)
def test_the_users_ssh_is_used_and_what_it_says_is_no_output(
    place: str, sglang: Sources, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, ssh = tmp_path / "calls", tmp_path / "my bin" / ("wrapper" if place == "wrapper" else "ssh")
    write_ssh(ssh, upstream, log)
    first = tmp_path / "first"
    write_ssh(first / "ssh", upstream, log)
    monkeypatch.setenv("PATH", f"{first}{os.pathsep}{os.environ['PATH']}")
    command = f"'{ssh}' -i key"
    if place == "blank":
        monkeypatch.setenv("GIT_SSH_COMMAND", " ")
    elif place == "GIT_SSH_COMMAND":
        monkeypatch.setenv("GIT_SSH_COMMAND", command)
    elif place in ("GIT_SSH", "wrapper"):
        monkeypatch.setenv("GIT_SSH", str(ssh))
    elif place == "global":
        subprocess.run(["git", "config", "--global", "core.sshCommand", command], check=True)
    elif place == "system":
        monkeypatch.delenv("GIT_CONFIG_NOSYSTEM")
        monkeypatch.setenv("GIT_CONFIG_SYSTEM", str(tmp_path / "system"))
        subprocess.run(["git", "config", "--system", "core.sshCommand", command], check=True)
    sglang.settings["cache"] = ""
    sglang.repositories["sglang"]["url"] = "git@example.org:sgl-project/sglang.git"
    sglang("clone")
    if place == "checkout":
        sglang.git("sglang", "config", "core.sshCommand", command)
    log.unlink()
    new = upstream.add_commit("sglang", "main")
    sglang("update")
    assert sglang.head("sglang") == new
    used = first / "ssh" if place in ("PATH", "blank") else ssh
    for call in log.read_text().splitlines():
        assert call.startswith(str(used))
        assert ("-i key" in call) == (place in ("GIT_SSH_COMMAND", "global", "system", "checkout"))


def test_an_ssh_command_that_no_shell_understands_is_a_network_error(
    sglang: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_SSH_COMMAND", "ssh 'key")
    sglang.repositories["sglang"]["url"] = "git@example.org:sgl-project/sglang.git"
    assert "Traceback" not in sglang("clone", check=3).err


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts every connection and never answers."""
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted.append(listening.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        for each in accepted:
            each.close()


@pytest.mark.parametrize("scheme", ["https", "http", "git", "ssh"])
def test_a_peer_that_never_answers_is_given_up_whatever_the_protocol(
    scheme: str, direct: Sources, silent: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\nsleep 1000\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    direct.repositories["sglang"]["url"] = f"{scheme}://127.0.0.1:{silent}/sgl-project/sglang.git"
    direct.settings["stall"] = "0.3"
    result = direct("clone", check=3)
    assert "no data for 0.3 s" in result.err
    assert "Attempt 2 of 2" in result.err
    assert nothing_but_the_lock(direct.path)


def test_an_update_that_stalls_is_retried_in_the_same_checkout(
    direct: Sources, host: GitHost, upstream: Upstream
) -> None:
    direct("clone")
    new = upstream.add_commit("sglang", "main", {"large": os.urandom(300_000)})
    fault = host.fault("stall", FETCH, after=100)
    direct("update")
    assert fault.fired.is_set()
    assert direct.head("sglang") == new
    git_dir = direct.path / "sglang/.git"
    assert [path for path in git_dir.rglob("*") if re.search(r"\.lock$|/tmp_", str(path))] == []


def test_a_remote_that_only_talks_is_given_up(direct: Sources, host: GitHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MOST", 1_000_000)
    host.fault("raw", FETCH, answer=sideband(*[b"x" * 900 + b"\n"] * 3000), times=9)
    result = direct("clone", check=3)
    assert "1,000,000 bytes" in result.err
    assert len(result.err + result.out) < 10_000


@pytest.mark.parametrize(
    "text",
    [
        b"Counting objects: 50% (1/2), 1.2.3 MiB\n",
        b"Receiving objects: 50% (1/2), " + b"9" * 400 + b" MiB | " + b"9" * 400 + b" MiB/s\r",
        b"Receiving objects: 50% (" + b"9" * 800 + b"/" + b"9" * 800 + b")\r",
        b"\xff\xfe\x00\x1b[2J[bold]%s{0}\n",
        b"Your local changes to the following files would be overwritten by checkout:\n\tREADME.md\n",
        b"no space left on device\n",
    ],
)
def test_whatever_a_remote_says_an_error_stays_a_network_error(text: bytes, direct: Sources, host: GitHost) -> None:
    host.fault("raw", FETCH, answer=sideband(text))
    direct("clone")
    host.fault("raw", FETCH, answer=sideband(text), times=99)
    direct.path = direct.path / "second"
    result = direct("clone", check=3)
    assert "Traceback" not in result.err
    assert "\x1b[2J" not in result.err + result.out


def force_push(upstream: Upstream) -> None:
    upstream.force_push("sglang")
    prune(upstream)


def delete_branch(upstream: Upstream) -> None:
    upstream.delete_ref("sglang", "refs/heads/main")
    prune(upstream)


def prune(upstream: Upstream) -> None:
    """Remove the objects that no ref leads to."""
    git(upstream.path("sglang"), "repack", "-q", "-a", "-d")
    git(upstream.path("sglang"), "prune", "--expire=now")


@pytest.mark.parametrize("task", ["clone", "update"])
@pytest.mark.parametrize("change", [force_push, delete_branch])
def test_a_commit_that_is_gone_when_it_is_fetched_is_a_network_error_with_advice(
    task: str, change: Callable[[Upstream], None], direct: Sources, host: GitHost, upstream: Upstream
) -> None:
    if task == "update":
        direct("clone")
        upstream.add_commit("sglang", "main")
    before = work(direct.path) if task == "update" else {}
    host.reset()
    host.fault("hook", "GET", nth=2, call=lambda: change(upstream))
    result = direct(task, check=3)
    assert "run the same command again" in result.err
    after = {path: file for path, file in work(direct.path).items() if "/refs/fetched/" not in path}
    assert task == "clone" or after == {path: file for path, file in before.items() if "/refs/fetched/" not in path}
    if change is force_push:
        direct(task)
        assert direct.head("sglang") == upstream.commit("sglang")


@pytest.mark.parametrize(
    ("server", "client", "anysha"),  # what is spoken is the lower one; all other tests speak 2
    [(0, 2, True), (2, 0, False), (2, 1, True), (2, 2, False)],
    ids=["0", "0 tips only", "1", "2 tips only"],
)
def test_every_version_of_the_protocol_serves_clones_and_updates(
    server: int, client: int, anysha: bool, flashinfer: Sources, host: GitHost, upstream: Upstream
) -> None:
    host.protocol0, host.anysha = server == 0, anysha
    subprocess.run(["git", "config", "--global", "protocol.version", str(client)], check=True)
    flashinfer("clone", flashinfer="v0.6.7.post3")
    for ref in ("v0.3.0", "main"):
        if ref == "main":
            cutlass = upstream.add_commit("cutlass", "main", {"include/cutlass/new.h": f"// {len(host.requests)}\n"})
            upstream.add_commit("flashinfer", "main", {"3rdparty/cutlass": Gitlink(cutlass), "new.txt": cutlass})
        flashinfer("update", flashinfer=ref)
        assert flashinfer.head("flashinfer") == upstream.commit("flashinfer", ref)
        assert flashinfer.git("flashinfer", "status", "--porcelain", "--ignore-submodules=none") == ""
        for place in ("flashinfer", "flashinfer/3rdparty/cutlass"):
            flashinfer.git(place, "fsck", "--connectivity-only")
    assert "up to date" in flashinfer("update").out


def test_version_like_tags_on_files_and_trees_are_no_commits(
    sglang: Sources, host: GitHost, upstream: Upstream
) -> None:
    """As Linux has v2.6.11-tree and v2.6.11."""
    repository = upstream.path("sglang")
    blob, tree = git(repository, "rev-parse", "main:python/pyproject.toml"), git(repository, "rev-parse", "main^{tree}")
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    git(repository, "update-ref", "refs/tags/v98.0", blob)
    git(repository, "update-ref", "refs/tags/v98.1", tree)
    git(repository, *who, "tag", "-a", "-m", "blob", "v98.2", blob)
    git(repository, *who, "tag", "-a", "-m", "tree", "v98.3", tree)
    sglang("clone")
    shallow = (sglang.path / "sglang/.git/shallow").read_text().split()
    assert not {blob, tree} & {*shallow}
    sglang.git("sglang", "fsck", "--connectivity-only")
    sglang.git("sglang", "gc", "-q")
    new = upstream.add_commit("sglang", "main")
    sglang("update")
    assert sglang.head("sglang") == new
    for tag in ("v98.0", "v98.1", "v98.2", "v98.3"):
        assert tag in sglang("update", check=2, sglang=tag).err
    assert sglang.head("sglang") == new
    sglang("update", full=True, sglang="main")
    assert sglang.git("sglang", "rev-list", "--count", "HEAD") == git(repository, "rev-list", "--count", "main")
