"""Network errors: transient ones are retried and reported, others are not, and nothing partial is left."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks import processes
from tasks.errors import NetworkError, SourcesError
from tasks.git.messages import TransientError, explain
from tests.sources import Sources, url, work
from tests.upstream.faults import Action
from tests.upstream.host import GitHost
from tests.upstream.store import Upstream

FETCH = r"upload-pack\? fetch"


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds between attempts, which are not spent."""
    spent: list[float] = []
    monkeypatch.setattr(processes, "wait", spent.append)
    return spent


@pytest.fixture
def direct(sglang: Sources, host: GitHost) -> Sources:
    """SGLang at the host's own address, in short turns."""
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
def test_a_transient_error_is_retried_and_reported_with_endpoint_reason_attempt_and_wait(
    action: Action, on: str, after: int, status: int, reason: str,
    direct: Sources, host: GitHost, upstream: Upstream, waits: list[float],
) -> None:  # fmt: skip
    fault = host.fault(action, on, after=after, status=status)
    result = direct("clone")
    assert fault.fired.is_set()
    (told,) = [line for line in result.err.splitlines() if "Attempt 2" in line]
    assert f"sglang: {host.url}/sgl-project/sglang.git: " in told
    assert re.search(reason, told)
    assert re.search(rf"Attempt 2 of 2 in {waits[0]:.1f} s", told)
    assert direct.head("sglang") == upstream.commit("sglang")
    direct.git("sglang", "fsck", "--connectivity-only")


def test_a_refused_connection_ends_with_exit_status_3_and_a_later_run_succeeds(direct: Sources, host: GitHost) -> None:
    with host.refusing():
        result = direct("clone", check=3)
    assert re.search(r"Attempt 2 of 2", result.err)
    assert f"sglang: {host.url}/sgl-project/sglang.git: " in result.err.splitlines()[-2]
    assert "Failed to connect" in result.err.splitlines()[-2]
    assert nothing_but_the_lock(direct.path)
    direct("clone")


@pytest.mark.parametrize("status", [401, 403, 404, 410])
@pytest.mark.parametrize("on", ["GET", FETCH])
def test_a_permanent_error_is_not_retried(
    status: int, on: str, direct: Sources, host: GitHost, waits: list[float]
) -> None:
    host.fault("status", on, status=status, times=9)
    result = direct("clone", check=3)
    assert waits == []
    assert f"{host.url}/sgl-project/sglang.git" in result.err
    assert nothing_but_the_lock(direct.path)


def test_an_unknown_host_is_retried_at_most_once(direct: Sources, waits: list[float]) -> None:
    direct.repositories["sglang"]["url"] = "http://host.invalid/sgl-project/sglang.git"
    direct.settings["attempts"] = "5"
    result = direct("clone", check=3)
    assert len(waits) <= 1
    assert "host.invalid" in result.err.splitlines()[-2]


def test_git_never_prompts_for_a_password(direct: Sources, host: GitHost) -> None:
    host.credentials = "somebody:secret"
    assert "never asked for" in direct("clone", check=3).err
    assert host.count("GET") == 1


def test_a_connection_without_an_answer_is_given_up(direct: Sources, black_hole: str) -> None:
    direct.repositories["sglang"]["url"] = black_hole
    result = direct("clone", check=3)
    assert "Attempt 2 of 2" in result.err
    assert "no data for 1 s" in result.err.splitlines()[-2]


def test_the_configured_number_of_attempts_is_made_with_growing_and_varied_waits(
    direct: Sources, host: GitHost, waits: list[float]
) -> None:
    direct.settings["attempts"] = "7"
    host.fault("status", "GET", status=503, times=99)
    result = direct("clone", check=3)
    assert host.count("GET") == 7
    assert [f"Attempt {n} of 7" in result.err for n in (1, 2, 7, 8)] == [False, True, True, False]
    assert all(least <= wait <= least + 1 for least, wait in zip([1, 2, 4, 8, 16, 30], waits, strict=True))
    assert len({round(wait % 1, 6) for wait in waits}) > 1, "the waits of many machines do not coincide"


@pytest.mark.parametrize(
    ("told", "wait"),
    [
        ("fatal: unable to access 'http://x/': The requested URL returned error: 429", 0),
        ("error: RPC failed; HTTP 429 curl 22 The requested URL returned error: 429\nremote: Retry-After: 7", 7),
        ("warning: rate limited, retry after 12 seconds\nfatal: The requested URL returned error: 503", 12),
        ("remote: Retry-After: 86400\nfatal: The requested URL returned error: 429", 300),
    ],
)
def test_the_wait_that_a_remote_asks_for_is_kept_where_git_shows_it(told: str, wait: float) -> None:
    error = explain(told, "sglang", "http://x/", Path("/"), network=True)
    assert isinstance(error, TransientError)
    assert error.wait == wait


@pytest.mark.parametrize(
    "told",
    [
        "fatal: the remote end hung up unexpectedly",
        "error: RPC failed; curl 92 HTTP/2 stream 5 was not closed cleanly: CANCEL (err 8)",
        "fatal: unable to access 'https://x/': gnutls_handshake() failed: The connection was terminated.",
        "ssh: connect to host x port 22: Connection timed out\nfatal: Could not read from remote repository.",
        "fatal: unable to access 'https://x/': Failed to connect to x port 443 after 3 ms: Network is unreachable",
        "fetch-pack: unexpected disconnect while reading sideband packet\nfatal: early EOF\nfatal: index-pack failed",
    ],
)
def test_messages_of_transient_errors(told: str) -> None:
    assert isinstance(explain(told, "sglang", "https://x/", Path("/"), network=True), TransientError)


@pytest.mark.parametrize(
    "told",
    [
        "fatal: Authentication failed for 'https://x/'",
        "git@x: Permission denied (publickey).\nfatal: Could not read from remote repository.\n\n"
        "Please make sure you have the correct access rights\nand the repository exists.",
        "remote: Repository not found.\nfatal: repository 'https://x/' not found",
        "fatal: couldn't find remote ref nothing-like-it",
    ],
)
def test_messages_of_permanent_errors(told: str) -> None:
    error: SourcesError = explain(told, "sglang", "https://x/", Path("/"), network=True)
    assert not isinstance(error, TransientError)


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


def test_what_was_downloaded_before_a_failure_is_not_downloaded_again(flashinfer: Sources, host: GitHost) -> None:
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


def test_errors_of_the_network_have_a_status_of_their_own() -> None:
    assert NetworkError("x").status == TransientError("x").status == 3
