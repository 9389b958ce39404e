"""REFs and URLs are data, passwords are secret, and commands can be copied into a shell."""

import string
import subprocess

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tasks.errors import UsageError
from tasks.names import check_url, redact, resolve_submodule_url, shell

PARENT = "https://host.example/org/parent.git"


@pytest.mark.parametrize(
    "url",
    [
        PARENT, "http://127.0.0.1:8080/x.git", "ssh://git@host.example:22/x.git", "git+ssh://git@host.example/x.git",
        "git://host.example/x", "git@host.example:org/x.git", "host.example:org/x.git", "git@[::1]:x.git",
        "https://[::1]:8080/x.git", "https://host.example:65535/x.git", "https://user:p%40ss@host.example/x.git",
    ],
)  # fmt: skip
def test_urls_of_networks_are_allowed_everywhere(url: str) -> None:
    assert check_url(url, "a URL", allow_local=False) == url


@pytest.mark.parametrize("url", ["/srv/git/x.git", "file:///srv/git/x.git", '/srv/it\'s a "path" with ü/x.git'])
def test_local_directories_are_allowed_only_where_configured(url: str) -> None:
    assert check_url(url, "a URL", allow_local=True) == url
    with pytest.raises(UsageError, match="not allowed here"):
        check_url(url, "a URL", allow_local=False)


@pytest.mark.parametrize(
    "url",
    [
        "", "--upload-pack=id", "-oProxyCommand=id", "ext::sh -c id", "EXT::id", "fd::17", "a-b+c::x",
        "https://host.example/a\nb", "https://host.example/%0ahost=evil", "https://host.example/a b",
        "https://host.example/\x1b[31m", "https://host.example/" + "a" * 2000, "https://", "https:///path",
        "https://host.example", "ssh://-oProxyCommand=id/x", "ssh://git@-oProxyCommand=id/x",
        "ssh://-l@host.example/x", "-host.example:x", "git@-host:x", "host.example:-x", "ftp://host.example/x",
        "javascript://host.example/x", "relative/path", "../up", "~/home", "C:\\folder",
    ],
)  # fmt: skip
def test_what_is_not_a_url_to_clone_from_is_refused_without_a_traceback(url: str) -> None:
    with pytest.raises(UsageError) as error:
        check_url(url, "sources.repositories.x.url", allow_local=True)
    assert "sources.repositories.x.url" in error.value.what and error.value.what.isprintable()


@pytest.mark.parametrize(
    ("url", "parent", "expected"),
    [
        ("../sub.git", PARENT, "https://host.example/org/sub.git"),
        ("../sub.git", PARENT + "/", "https://host.example/org/sub.git"),
        ("./sub.git", PARENT, "https://host.example/org/parent.git/sub.git"),
        ("../../other/sub", PARENT, "https://host.example/other/sub"),
        ("../sub", "git@host.example:org/parent", "git@host.example:org/sub"),
        ("../../sub", "git@host.example:org/parent", "git@host.example:sub"),
        ("../sub", "git@host.example:/srv/parent", "git@host.example:/srv/sub"),
        ("../sub", "git@[::1]:org/parent", "git@[::1]:org/sub"),
        ("../sub", "/srv/git/parent", "/srv/git/sub"),
        ("../sub", "file:///srv/parent", "file:///srv/sub"),
        ("/srv/sub", "/srv/git/parent", "/srv/sub"),
        ("https://other.example/sub", PARENT, "https://other.example/sub"),
    ],
)
def test_a_submodules_url_is_relative_to_its_parents(url: str, parent: str, expected: str) -> None:
    assert resolve_submodule_url(url, parent) == expected


@pytest.mark.parametrize(
    "url", ["/etc", "file:///etc", "ext::id", "--upload-pack=id", "../../../evil.example/x", "../a\nb", "../..", ""]
)
def test_a_hostile_submodule_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        resolve_submodule_url(url, PARENT)


SECRET = "S3cr3t"
PASSWORD = st.text(string.ascii_letters + string.digits + string.punctuation, max_size=12).map(
    lambda text: SECRET + text
)
PLAIN = st.text(max_size=20)


@settings(deadline=None)
@given(
    PLAIN,
    st.sampled_from(["https", "HTTP", "ssh", "git+ssh"]),
    st.sampled_from(["user", "u.s-er", ""]),
    PASSWORD,
    PLAIN,
)
def test_no_password_survives(before: str, scheme: str, user: str, password: str, after: str) -> None:
    assume(SECRET not in before + after)
    shown = redact(f"{before}{scheme}://{user}:{password}@host.example/x.git{after}")
    assert SECRET not in shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://TOKEN@host.example/x", "https://***@host.example/x"),
        ("https://u:p%40ss@host.example/x", "https://***@host.example/x"),
        ("https://u:p@ss@host.example/x", "https://***@host.example/x"),
        ("https://u:p/a@host.example/x", "https://***@host.example/x"),
        ("ssh://git@host.example/x git@host.example:x", "ssh://git@host.example/x git@host.example:x"),
        ("ssh://git:pw@host.example/x", "ssh://***@host.example/x"),
        ("'https://a:b@h/1','https://c:d@h/2'", "'https://***@h/1','https://***@h/2'"),
        ("http://localhost:8080/x@v1 and mail@host.example", "http://localhost:8080/x@v1 and mail@host.example"),
        ("http://[::1]:8080/x@v1", "http://[::1]:8080/x@v1"),
    ],
)
def test_redaction_takes_the_user_and_password_and_nothing_else(text: str, shown: str) -> None:
    assert redact(text) == shown


@settings(deadline=None)
@given(PASSWORD)
def test_a_refused_url_does_not_show_its_password(password: str) -> None:
    with pytest.raises(UsageError) as error:
        check_url(f"https://user:{password} x@host.example/x", "a URL", allow_local=True)
    assert SECRET not in str(error.value)


def test_a_command_can_be_copied_into_a_shell_and_holds_no_control_characters() -> None:
    words = ["plain", "two words", "it's", "a\nb", "\x1b[31m", "tab\t'quote'\\", "\u2028é", ""]
    command = shell("printf", "%s|", *words)
    assert command.isprintable()
    assert subprocess.check_output(["bash", "-c", command], text=True) == "|".join([*words, ""])
