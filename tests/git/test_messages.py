"""What git's messages mean: real ones, as git 2.34 to 2.51, curl, ssh and hosts print them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import DiskError, LocalWorkError, NetworkError, SourcesError, UsageError
from tasks.git.messages import GitError, TransientError, explain

URL = "https://example.org/x.git"
ACCESS = "fatal: Could not read from remote repository.\n\nPlease make sure you have the correct access rights\n"
FAILED = f"fatal: unable to access '{URL}': "


def network(text: str) -> SourcesError:
    """What a message of a command that used the network means."""
    return explain(text, "sglang", URL, Path.cwd(), network=True)


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        (f"{FAILED}The requested URL returned error: 429", 0),
        ("error: RPC failed; HTTP 429 curl 22 The requested URL returned error: 429\nremote: Retry-After: 7", 7),
        ("warning: rate limited, retry after 12 seconds\nfatal: The requested URL returned error: 503", 12),
        (f"remote: Retry-After: {'9' * 5000}\nfatal: The requested URL returned error: 429", 300),
        ("fatal: the remote end hung up unexpectedly", 0),
        ("error: RPC failed; curl 18 transfer closed with outstanding read data remaining\nfatal: early EOF", 0),
        (f"{FAILED}OpenSSL SSL_connect: SSL_ERROR_SYSCALL in connection to x:443", 0),
        (f"{FAILED}Failed to connect to x port 443: No route to host", 0),
        (f"{FAILED}Could not resolve host: example.org", 0),
        (f"ssh: connect to host x port 22: Connection timed out\n{ACCESS}", 0),
        ("fetch-pack: unexpected disconnect while reading sideband packet\nfatal: index-pack failed", 0),
        ("fatal: no data for 30 s", 0),
    ],
)
def test_errors_that_another_attempt_may_not_meet_and_how_long_to_wait(text: str, wait: float) -> None:
    error = network(text)
    assert isinstance(error, TransientError)
    assert error.wait == wait
    assert error.attempts == (2 if "resolve" in text else None)


@pytest.mark.parametrize(
    "text",
    [
        f"fatal: Authentication failed for '{URL}'",
        f"remote: Repository not found.\nfatal: repository '{URL}' not found",
        "fatal: protocol error: bad line length character: <htm",
        f"{FAILED}Maximum (20) redirects followed",
        f"{FAILED}SSL certificate problem: self-signed certificate",
        f"{FAILED}The requested URL returned error: 403",
        f"Host key verification failed.\r\n{ACCESS}",
        f"git@x: Permission denied (publickey).\r\n{ACCESS}",
        "remote: ERROR: no space left on device\nfatal: remote error: the remote is not well",
        "fatal: remote error: upload-pack: cannot read /srv/x.git: Permission denied",
        "fatal: remote error: upload-pack: not our ref 45a0eb1e51de39351cec28a7a826194f832022a1",
        "fatal: couldn't find remote ref nothing-like-it",
        "error: Server does not allow request for unadvertised object 45a0eb1e51de3935",
    ],
)
def test_errors_that_stay_are_network_errors_even_where_the_remote_complains_of_its_own_disk(text: str) -> None:
    error = network(text)
    assert isinstance(error, NetworkError) and not isinstance(error, TransientError)
    for reason in ("Host key verification failed", "Permission denied (publickey)"):
        assert reason not in text or reason in error.what


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("fatal: write error: No space left on device\nfatal: index-pack failed", DiskError),
        ("error: unable to write file x\nfatal: cannot create directory at 'a': Disk quota exceeded", DiskError),
        ("error: could not lock config file .git/config: Read-only file system", DiskError),
        ("fatal: cannot create directory at 'a': Permission denied", DiskError),
        ("fatal: Unable to create '/src/sglang/.git/index.lock': File exists.\n\nAnother git process…", LocalWorkError),
        ("fatal: detected dubious ownership in repository at '/src/sglang'", LocalWorkError),
        ("fatal: cannot switch branch while merging", LocalWorkError),
        ("error: The following untracked working tree files would be overwritten by checkout:\n\ta b\n\tc\nAborting",
         LocalWorkError),
        ("fatal: bad object HEAD", GitError),
    ],
)  # fmt: skip
def test_errors_of_local_commands(text: str, kind: type[SourcesError]) -> None:
    error = explain(text, "sglang", "/src/sglang", Path.cwd())
    assert isinstance(error, kind) and not isinstance(error, NetworkError | UsageError)
    assert "\ta b" not in text or "a b" in error.what


def test_an_error_shows_no_password_and_no_progress() -> None:
    text = (
        "remote: Counting objects: 50% (1/2)\rremote: Counting objects: 100% (2/2), done.\n"
        "remote: Total 2 (delta 0), reused 0 (delta 0), pack-reused 0\n"
        "fatal: unable to access 'https://me:hunter2@example.org/x.git': The requested URL returned error: 403"
    )
    error = network(text)
    assert "hunter2" not in error.what and "Counting" not in error.what and "error: 403" in error.what
