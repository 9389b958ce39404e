"""Network errors: transient ones are retried, others are not, no run waits for ever, nothing partial stays behind."""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources import COMING, Sources, configure, nothing_but_the_lock, url, work
from tests.upstream.faults import Action
from tests.upstream.host import GitHost
from tests.upstream.store import Upstream, git

FETCH = r"upload-pack\? fetch"
SECOND = r"attempt 2 of 2"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the pauses between attempts, which vary, be as short as they can be."""
    monkeypatch.setattr(random, "uniform", lambda least, most: 0.01)


@pytest.fixture
def direct(sglang: Sources, host: GitHost) -> Sources:
    """SGLang at the host's own address, with a short `stall`."""
    sglang.repositories["sglang"]["url"] = f"{host.url}/sgl-project/sglang.git"
    sglang.settings["stall"] = "1"
    return sglang


@pytest.mark.parametrize(
    ("action", "on", "after", "status", "reason"),
    [
        ("truncate", FETCH, 500, 0, "early EOF|closed"),
        ("stall", FETCH, 500, 0, "no data for 1 s"),
        ("status", "GET", 0, 429, "429"),
    ],
)
def test_a_transient_error_is_retried_saying_endpoint_reason_attempt_and_pause(
    action: Action, on: str, after: int, status: int, reason: str, direct: Sources, host: GitHost, upstream: Upstream
) -> None:
    fault = host.fault(action, on, after=after, status=status)
    result = direct("clone")
    assert fault.fired.is_set()
    (warning,) = [line for line in result.err.split("\n") if re.search(SECOND, line, re.I)]
    assert f"sglang: warning: {host.url}/sgl-project/sglang.git: " in warning
    assert re.search(reason, warning) and re.search(r"in \d+\.\d s", warning)
    assert direct.head("sglang") == upstream.commit("sglang")
    direct.git("sglang", "fsck", "--connectivity-only")


def test_there_are_as_many_attempts_as_configured(direct: Sources, host: GitHost) -> None:
    direct.settings["attempts"] = "4"
    host.fault("status", "GET", status=503, times=99)
    result = direct("clone", check=3)
    assert host.count("GET") == 4
    assert re.search("attempt 4 of 4", result.err, re.I) and not re.search("attempt 5", result.err, re.I)
    assert nothing_but_the_lock(direct.path)


@pytest.mark.parametrize(("on", "status"), [("GET", 404), (FETCH, 403)])
def test_an_error_that_stays_is_not_retried(on: str, status: int, direct: Sources, host: GitHost) -> None:
    host.fault("status", on, status=status, times=9)
    result = direct("clone", check=3)
    assert not re.search("attempt", result.err, re.I)
    assert f"{host.url}/sgl-project/sglang.git" in result.err
    assert nothing_but_the_lock(direct.path)


def test_a_failing_submodule_is_named_and_what_arrived_does_not_move_again(flashinfer: Sources, host: GitHost) -> None:
    host.fault("status", "cutlass.git", status=403, times=9)
    result = flashinfer("clone", check=3)
    assert f"flashinfer/3rdparty/cutlass: {url('cutlass')}: " in result.err
    assert not (flashinfer.path / "flashinfer").exists()
    others = r"(flashinfer|spdlog|cccl|nixl)\.git/git-upload-pack\? fetch"
    first = host.count(others)
    host.reset()
    flashinfer("clone")
    assert host.count(r"flashinfer\.git/git-upload-pack\? fetch") <= 1, "the tag of the newest release comes last"
    assert host.count(others) < first


def test_an_update_that_fails_leaves_the_checkout_as_it_was(
    flashinfer: Sources, host: GitHost, upstream: Upstream
) -> None:
    flashinfer("clone", flashinfer="v0.3.0")
    before = work(flashinfer.path, COMING)
    host.fault("status", "cccl.git", status=403, times=9)
    flashinfer("update", check=3, flashinfer="main")
    assert work(flashinfer.path, COMING) == before
    host.reset()
    flashinfer("update", flashinfer="main")
    assert flashinfer.head("flashinfer") == upstream.commit("flashinfer")


def answer(body: bytes = b"", media: str = "text/html", status: str = "200 OK", **headers: str) -> bytes:
    """A whole HTTP response."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {media}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def sideband(*texts: bytes) -> bytes:
    """The answer to a fetch in which the remote only talks (gitprotocol-v2(5), band 2)."""
    packets = b"".join(b"%04x%s" % (len(text) + 4, text) for text in (b"packfile\n", *(b"\x02" + t for t in texts)))
    return answer(packets, "application/x-git-upload-pack-result")


ADVERTISEMENT = "application/x-git-upload-pack-advertisement"
PORTAL = b"<html><body>Log in to use this network.\t</body></html>\n" * 9
LOOP = "/sgl-project/sglang.git/info/refs?service=git-upload-pack"
TALK = (
    b"Receiving objects: 50% (1/2), " + b"9" * 400 + b" MiB | " + b"9" * 400 + b" MiB/s\r",
    b"\xff\xfe\x00\x1b[2J[bold]%s{0}\n",
    b"Your local changes to the following files would be overwritten by checkout:\n\tREADME.md\n",
    b"no space left on device\n",
)
ANSWERS = [
    ("GET", answer(PORTAL)),
    ("GET", answer(b"zzzz", ADVERTISEMENT)),
    ("GET", answer(b"", status="302 Found", Location=LOOP)),
    (FETCH, answer(PORTAL, "application/x-git-upload-pack-result")),
    (FETCH, sideband(*TALK)),
]


def test_an_answer_that_is_not_gits_is_a_network_error(direct: Sources, host: GitHost) -> None:
    """As from a hotel's network, a proxy, or a remote that talks of disks and changes of its own."""
    for on, response in ANSWERS:
        fault = host.fault("raw", on, answer=response, times=99)
        result = direct("clone", check=3)
        assert fault.fired.is_set()
        assert f"{host.url}/sgl-project/sglang.git" in result.text
        assert "\x1b[2J" not in result.err + result.out
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


def test_traces_and_warnings_on_standard_error_are_not_taken_for_output(
    direct: Sources, host: GitHost, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(transfer_credentialsInUrl="warn", trace2_normalTarget="2", trace2_eventTarget="2")
    direct.repositories["sglang"]["url"] = f"{host.url}/sgl-project/sglang.git".replace("//", "//me:secret@", 1)
    host.credentials = "me:secret"
    for variable in ("GIT_TRACE", "GIT_TRACE_PACKET", "GIT_CURL_VERBOSE"):
        monkeypatch.setenv(variable, "1")
    direct("clone")
    new = upstream.add_commit("sglang", "main")
    direct("update")
    assert direct.head("sglang") == new
    assert "up to date" in direct("update").out


@pytest.mark.parametrize("place", ["PATH", "GIT_SSH_COMMAND", "checkout"])
def test_the_users_ssh_is_used_and_what_it_says_is_no_output(
    place: str, sglang: Sources, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, ssh, first = tmp_path / "calls", tmp_path / "my bin/ssh", tmp_path / "first/ssh"
    for program in (ssh, first):  # called like ssh; runs the command on this machine
        program.parent.mkdir()
        program.write_text(
            f'#!/bin/sh\necho "$0 $*" >> {log}\necho "Warning: Permanently added \'x\' (ED25519)." >&2\n'
            f'for last; do :; done\ncd {upstream.root} && eval "$last"\n'
        )
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{first.parent}{os.pathsep}{os.environ['PATH']}")
    if place == "GIT_SSH_COMMAND":
        monkeypatch.setenv("GIT_SSH_COMMAND", f"'{ssh}' -i key")
    sglang.repositories["sglang"]["url"] = "git@example.org:sgl-project/sglang.git"
    sglang("clone")
    if place == "checkout":
        sglang.git("sglang", "config", "core.sshCommand", f"'{ssh}' -i key")
    log.unlink()
    new = upstream.add_commit("sglang", "main")
    sglang("update")
    assert sglang.head("sglang") == new
    for call in log.read_text().splitlines():
        assert call.startswith(str(first) if place == "PATH" else f"{ssh} -i key")


def test_ssh_commands_that_fail_are_network_errors_with_their_reason(
    sglang: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    sglang.repositories["sglang"]["url"] = "git@example.org:sgl-project/sglang.git"
    monkeypatch.setenv("GIT_SSH_COMMAND", "ssh 'key")
    assert sglang("clone", check=3).text
    monkeypatch.setenv("GIT_SSH_COMMAND", "echo Host key verification failed. >&2; exit 255; ")
    assert "Host key verification failed" in sglang("clone", check=3).err


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
        for connection in accepted:
            connection.close()


@pytest.mark.parametrize("scheme", ["https", "ssh"])
def test_a_peer_that_never_answers_is_given_up_whatever_the_protocol(
    scheme: str, direct: Sources, silent: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ssh").write_text("#!/bin/sh\nsleep 1000\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(tmp_path / "ssh"))
    direct.repositories["sglang"]["url"] = f"{scheme}://127.0.0.1:{silent}/sgl-project/sglang.git"
    direct.settings["stall"] = "0.3"
    result = direct("clone", check=3)
    assert "no data for 0.3 s" in result.err
    assert re.search(SECOND, result.err, re.I)


def prune(upstream: Upstream) -> None:
    """Remove the objects that no ref leads to."""
    git(upstream.path("sglang"), "repack", "-q", "-a", "-d")
    git(upstream.path("sglang"), "prune", "--expire=now")


@pytest.mark.parametrize("deleted", [False, True], ids=["pushed with force", "deleted"])
def test_a_commit_that_is_gone_when_it_is_fetched_is_followed_or_a_network_error_with_advice(
    deleted: bool, direct: Sources, host: GitHost, upstream: Upstream
) -> None:
    direct("clone")
    before = direct.head("sglang")
    upstream.add_commit("sglang", "main")

    def change() -> None:
        if deleted:
            upstream.delete_ref("sglang", "refs/heads/main")
        else:
            upstream.force_push("sglang")
        prune(upstream)

    host.fault("hook", "GET", nth=2, call=change)
    result = direct("update", check=None)
    assert result.status in ((3,) if deleted else (0, 3))
    assert not result.status or ("run the same command again" in result.err and direct.head("sglang") == before)
    if not deleted:
        direct("update")
        assert direct.head("sglang") == upstream.commit("sglang")


def test_version_like_tags_on_files_and_trees_are_no_commits(sglang: Sources, upstream: Upstream) -> None:
    """As Linux has v2.6.11-tree and v2.6.11."""
    repository = upstream.path("sglang")
    blob, tree = git(repository, "rev-parse", "main:python/pyproject.toml"), git(repository, "rev-parse", "main^{tree}")
    git(repository, "update-ref", "refs/tags/v98.0", blob)
    git(repository, "update-ref", "refs/tags/v98.1", tree)
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    git(repository, *who, "tag", "-a", "-m", "blob", "v98.2", blob)
    sglang("clone")
    new = upstream.add_commit("sglang", "main")
    sglang("update")
    assert sglang.head("sglang") == new
    for tag in ("v98.0", "v98.1", "v98.2"):
        assert tag in sglang("update", check=2, sglang=tag).err
    assert sglang.head("sglang") == new
    sglang.git("sglang", "fsck", "--connectivity-only")
