"""Network errors: transient ones are retried, others are not, no run waits for ever, nothing partial stays behind."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from tests.sources import Sources, nothing_but_the_lock, url, work
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
        ("truncate", FETCH, 500, 0, "EOF|closed|expected"),
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


@pytest.mark.parametrize(("on", "status", "attempts"), [("GET", 503, 4), ("GET", 404, 1), (FETCH, 403, 1)])
def test_there_are_as_many_attempts_as_configured_and_one_where_the_error_stays(
    on: str, status: int, attempts: int, direct: Sources, host: GitHost
) -> None:
    direct.settings["attempts"] = "4"
    host.fault("status", on, status=status, times=99)
    result = direct("clone", check=3)
    assert host.count(on) == attempts
    assert len(re.findall("attempt . of 4", result.err, re.I)) == attempts - 1
    assert f"{host.url}/sgl-project/sglang.git" in result.err
    assert nothing_but_the_lock(direct.path)


def test_a_failing_submodule_is_named_and_what_arrived_does_not_move_again(
    flashinfer: Sources, host: GitHost, upstream: Upstream
) -> None:
    host.fault("status", "cutlass.git", status=403, times=9)
    result = flashinfer("clone", check=3, flashinfer="v0.3.0")
    assert f"flashinfer/3rdparty/cutlass: {url('cutlass')}: " in result.err
    assert not (flashinfer.path / "flashinfer").exists()
    others = r"(flashinfer|spdlog)\.git/git-upload-pack\? fetch"
    first = host.count(others)
    host.reset()
    flashinfer("clone", flashinfer="v0.3.0")
    assert host.count(others) < first
    before = work(flashinfer.path)
    host.fault("status", "cccl.git", status=403, times=9)
    flashinfer("update", check=3, flashinfer="main")
    assert work(flashinfer.path) == before, "the checkout stays as it was"
    host.reset()
    flashinfer("update", flashinfer="main")
    assert flashinfer.head("flashinfer") == upstream.commit("flashinfer")


def answer(body: bytes, media: str = "text/html") -> bytes:
    """A whole HTTP response."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


PORTAL = b"<html><body>Log in to use this network.\t</body></html>\n" * 9
LOOP = "/sgl-project/sglang.git/info/refs?service=git-upload-pack"
ANSWERS = [
    ("GET", answer(PORTAL)),
    ("GET", answer(b"zzzz", "application/x-git-upload-pack-advertisement")),
    ("GET", f"HTTP/1.1 302 Found\r\nLocation: {LOOP}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()),
    (FETCH, answer(PORTAL, "application/x-git-upload-pack-result")),
]


def test_an_answer_that_is_not_gits_is_a_network_error(direct: Sources, host: GitHost) -> None:
    """As from a hotel's network or a proxy."""
    for on, response in ANSWERS:
        fault = host.fault("raw", on, answer=response, times=99)
        result = direct("clone", check=3)
        assert fault.fired.is_set()
        assert f"{host.url}/sgl-project/sglang.git" in result.text
        assert re.search("proxy|Check the connection|Check the URL", result.err)
        assert nothing_but_the_lock(direct.path)
        host.reset()


def test_the_users_ssh_is_used_and_what_it_says_is_no_output(
    sglang: Sources, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, ssh = tmp_path / "calls", tmp_path / "my bin/ssh"
    ssh.parent.mkdir()
    ssh.write_text(  # called like ssh; runs the command on this machine
        f'#!/bin/sh\necho "$*" >> {log}\necho "Warning: Permanently added \'x\' (ED25519)." >&2\n'
        f'for last; do :; done\ncd {upstream.root} && eval "$last"\n'
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", f"'{ssh}' -i key")
    sglang.repositories["sglang"]["url"] = "git@example.org:sgl-project/sglang.git"
    sglang("clone")
    monkeypatch.delenv("GIT_SSH_COMMAND")
    sglang.git("sglang", "config", "core.sshCommand", f"'{ssh}' -i key")
    log.unlink()
    new = upstream.add_commit("sglang", "main")
    sglang("update")
    assert sglang.head("sglang") == new
    assert all(call.startswith("-i key") for call in log.read_text().splitlines())


def test_an_ssh_that_never_answers_is_given_up_and_one_that_fails_is_a_network_error_with_its_reason(
    sglang: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    sglang.repositories["sglang"]["url"] = "git@example.org:sgl-project/sglang.git"
    sglang.settings["stall"] = "0.3"
    monkeypatch.setenv("GIT_SSH_COMMAND", "sleep 1000;")
    result = sglang("clone", check=3)
    assert "no data for 0.3 s" in result.err and re.search(SECOND, result.err, re.I)
    monkeypatch.setenv("GIT_SSH_COMMAND", "ssh 'key")
    assert sglang("clone", check=3).text
    monkeypatch.setenv("GIT_SSH_COMMAND", "echo Host key verification failed. >&2; exit 255; ")
    assert "Host key verification failed" in sglang("clone", check=3).err


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
        git(upstream.path("sglang"), "repack", "-q", "-a", "-d")
        git(upstream.path("sglang"), "prune", "--expire=now")

    host.fault("hook", "GET", nth=2, call=change)
    result = direct("update", check=None)
    assert result.status in ((3,) if deleted else (0, 3))
    assert not result.status or ("run the same command again" in result.err and direct.head("sglang") == before)
    if not deleted:
        direct("update")
        assert direct.head("sglang") == upstream.commit("sglang")
