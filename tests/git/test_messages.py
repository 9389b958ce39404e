"""What git's messages mean: real ones, as git 2.34 to 2.51, curl, ssh and hosts print them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import DiskError, LocalWorkError, NetworkError, SourcesError
from tasks.git.messages import (
    DiskFullError,
    GitError,
    NoObjectError,
    OverwriteError,
    RefusedError,
    TransientError,
    explain,
)
from tasks.git.progress import Progress

URL = "https://example.org/x.git"


def network(text: str) -> SourcesError:
    """What a message of a command that used the network means."""
    return explain(text, "sglang", URL, Path.cwd(), network=True)


def local(text: str) -> SourcesError:
    """What a message of a local command means."""
    return explain(text, "sglang", "/src/sglang", Path.cwd())


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        (f"fatal: unable to access '{URL}': The requested URL returned error: 429", 0),
        ("error: RPC failed; HTTP 429 curl 22 The requested URL returned error: 429\nremote: Retry-After: 7", 7),
        ("warning: rate limited, retry after 12 seconds\nfatal: The requested URL returned error: 503", 12),
        ("remote: Retry-After: 86400\nfatal: The requested URL returned error: 429", 300),
        (f"remote: Retry-After: {'9' * 5000}\nfatal: The requested URL returned error: 429", 300),
    ],
)
def test_a_wait_that_a_remote_asks_for_is_kept_up_to_five_minutes(text: str, wait: float) -> None:
    error = network(text)
    assert isinstance(error, TransientError)
    assert error.wait == wait


@pytest.mark.parametrize(
    "text",
    [
        "fatal: the remote end hung up unexpectedly",
        "error: RPC failed; curl 92 HTTP/2 stream 5 was not closed cleanly: CANCEL (err 8)",
        "error: RPC failed; curl 18 transfer closed with outstanding read data remaining\nfatal: early EOF",
        f"fatal: unable to access '{URL}': gnutls_handshake() failed: The connection was terminated.",
        f"fatal: unable to access '{URL}': OpenSSL SSL_connect: SSL_ERROR_SYSCALL in connection to example.org:443",
        f"fatal: unable to access '{URL}': Empty reply from server",
        f"fatal: unable to access '{URL}': Failed to connect to x port 443 after 3 ms: Network is unreachable",
        f"fatal: unable to access '{URL}': Failed to connect to x port 443: No route to host",
        "ssh: connect to host x port 22: Connection timed out\nfatal: Could not read from remote repository.",
        "kex_exchange_identification: Connection closed by remote host\nfatal: Could not read from remote repository.",
        "ssh: connect to host x port 22: No route to host\nfatal: Could not read from remote repository.",
        "fatal: unable to connect to x:\nx[0: 127.0.0.1]: errno=Connection refused",
        "fetch-pack: unexpected disconnect while reading sideband packet\nfatal: early EOF\nfatal: index-pack failed",
        f"fatal: unable to access '{URL}': The requested URL returned error: 503",
        "fatal: no data for 30 s",
    ],
)
def test_errors_that_another_attempt_may_not_meet(text: str) -> None:
    assert isinstance(network(text), TransientError)


@pytest.mark.parametrize(
    "text",
    [
        f"fatal: Authentication failed for '{URL}'",
        "git@x: Permission denied (publickey).\nfatal: Could not read from remote repository.\n\n"
        "Please make sure you have the correct access rights\nand the repository exists.",
        f"remote: Repository not found.\nfatal: repository '{URL}' not found",
        f"fatal: {URL}/info/refs not valid: is this a git repository?",
        "fatal: protocol error: bad line length character: <htm",
        f"fatal: unable to access '{URL}': Maximum (20) redirects followed",
        f"fatal: unable to access '{URL}': SSL certificate problem: self-signed certificate",
        f"fatal: unable to access '{URL}': The requested URL returned error: 403",
        "remote: ERROR: no space left on device\nfatal: the remote is not well",
        "remote: fatal: cannot write: Permission denied\nfatal: expected 'packfile'",
        "remote: fatal: Unable to create '/srv/x.git/index.lock': File exists.\nfatal: the remote is not well",
        "fatal: remote error: upload-pack: cannot read /srv/x.git: Permission denied",
    ],
)
def test_errors_that_stay_are_network_errors_even_where_the_remote_complains_of_its_own_disk(text: str) -> None:
    error = network(text)
    assert isinstance(error, NetworkError)
    assert not isinstance(error, TransientError)
    assert error.status == 3
    assert error.hint


def test_an_unknown_host_is_looked_up_at_most_twice() -> None:
    error = network(f"fatal: unable to access '{URL}': Could not resolve host: example.org")
    assert isinstance(error, TransientError)
    assert error.attempts == 2
    error = network("ssh: Could not resolve hostname example.org: Name or service not known")
    assert isinstance(error, TransientError)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("fatal: remote error: upload-pack: not our ref 45a0eb1e51de39351cec28a7a826194f832022a1", NoObjectError),
        ("fatal: couldn't find remote ref nothing-like-it", NoObjectError),
        ("error: Server does not allow request for unadvertised object 45a0eb1e51de3935", RefusedError),
        ("fatal: dumb http transport does not support shallow capabilities", RefusedError),
    ],
)
def test_what_a_remote_does_not_serve(text: str, kind: type[SourcesError]) -> None:
    assert type(network(text)) is kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("fatal: write error: No space left on device\nfatal: index-pack failed", DiskFullError),
        ("error: unable to write file x\nfatal: cannot create directory at 'a': Disk quota exceeded", DiskFullError),
        ("error: could not lock config file .git/config: Read-only file system", DiskError),
        ("fatal: cannot create directory at 'a': Permission denied", DiskError),
        ("error: insufficient permission for adding an object to repository database .git/objects", DiskError),
        ("fatal: Unable to create '/src/sglang/.git/index.lock': File exists.\n\nAnother git process…", LocalWorkError),
        ("fatal: detected dubious ownership in repository at '/src/sglang'", LocalWorkError),
        ("fatal: cannot switch branch while merging", LocalWorkError),
        ("error: you need to resolve your current index first\nx: needs merge", LocalWorkError),
        ("fatal: bad object HEAD", GitError),
    ],
)
def test_errors_of_local_commands(text: str, kind: type[SourcesError]) -> None:
    assert type(local(text)) is kind


def test_what_git_would_overwrite_is_listed() -> None:
    error = local(
        "error: The following untracked working tree files would be overwritten by checkout:\n\ta b\n\tc\n"
        "Please move or remove them before you switch branches.\nAborting\n"
    )
    assert isinstance(error, OverwriteError)
    assert (error.paths, error.untracked) == (("a b", "c"), True)
    error = local("error: Updating 'a b' would lose untracked files in it")
    assert isinstance(error, OverwriteError)
    assert (error.paths, error.untracked) == (("a b",), True)


def test_an_error_shows_no_password_and_no_progress() -> None:
    text = (
        "remote: Counting objects: 50% (1/2)\rremote: Counting objects: 100% (2/2), done.\n"
        "remote: Total 2 (delta 0), reused 0 (delta 0), pack-reused 0\n"
        "fatal: unable to access 'https://me:hunter2@example.org/x.git': The requested URL returned error: 403"
    )
    error = network(text)
    assert "hunter2" not in error.what
    assert "Counting" not in error.what
    assert "error: 403" in error.what


class Progressed:
    """A reporter that keeps what it is given."""

    def __init__(self) -> None:
        self.seen: list[tuple[float | None, int, float]] = []

    def progress(self, who: str, doing: str, done: float | None, moved: int, rate: float) -> None:
        """Keep the numbers."""
        self.seen.append((done, moved, rate))

    def event(self, who: str, message: str) -> None:
        """Not expected."""

    warn = output = command = event


@pytest.mark.parametrize(
    "line",
    [
        "remote: Counting objects: 50% (1/2), 1.2.3 MiB",
        "remote: Counting objects: 50% (1/2), ٣.٣ MiB | ² MiB/s",
        f"Receiving objects: 50% (1/2), {'9' * 400} GiB | {'9' * 400} GiB/s",
        f"Receiving objects: 50% ({'9' * 400}/{'9' * 400}), 1 MiB",
        f"Receiving objects: 50% (1/{'9' * 9000}), 1 MiB",
        "Receiving objects: 50% (1/0), 1 MiB",
        "Receiving objects: 50% (3/2), 1 MiB",
        "Receiving objects: 50% (١/٢)",  # noqa: RUF001
        "Compressing objects: -1% (-1/-2)",
        "\x1b[31mReceiving objects: 50% (1/2), 1 MiB",
    ],
)
def test_whatever_a_remote_writes_progress_is_a_finite_number_or_unknown(line: str) -> None:
    reporter = Progressed()
    progress = Progress(reporter, "sglang", "fetching")  # type: ignore[arg-type]
    progress.read(f"{line}\r".encode() + b"Receiving objects:  50% (1/2), 2.00 KiB | 1.00 KiB/s\n")
    assert reporter.seen[-1] == (0.5, 2048, 1024.0)
    for done, moved, rate in reporter.seen:
        assert done is None or 0 <= done <= 1
        assert 0 <= moved < 10**18
        assert 0 <= rate < 10**18
