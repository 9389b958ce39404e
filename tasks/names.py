"""REFs and URLs are data: which ones are valid, what relative URLs mean, and how passwords are kept out of messages."""

from __future__ import annotations

import os
import posixpath
import re
import shlex
from urllib.parse import unquote, urlsplit

from .errors import UsageError

LATEST, MATCHING = "latest", "matching"
HEADS, TAGS, TRACKING = "refs/heads/", "refs/tags/", "refs/remotes/origin/"
LONGEST_REF = 255  # bytes; no file system that git runs on has longer names
LONGEST_URL = 2000
SHOWN = 200  # characters of a wrong URL in a message

SCHEMES = ("https", "http", "ssh", "git", "git+ssh", "ssh+git")

_HOST = r"(?:\[[0-9a-f:.]+\]|\w[\w.-]*)"
_SCP = re.compile(rf"(?:[\w.+][\w.+-]*@)?{_HOST}:(?![:-]|//)[^\s\\]+", re.I)
_LOCAL = re.compile(r"(?:file:/)?/.+", re.I)
# Everything before the last @ of the authority; if a colon is followed by more than a port, before the last @ of all.
# The lengths are bounded, so that no text takes quadratic time.
_USERINFO = re.compile(
    r"([a-z0-9+.-]{0,20}://)(?:[^\s/?#]{0,2000}|(?!\[)[^\s/?#@:]{0,2000}:(?!\d+(?:[/?#\s]|$))(?:\S{0,2000}|[^/'\"\n]{0,200}))@",
    re.I,
)
_SSH_USER = re.compile(r"(?:git\+)?ssh(?:\+git)?://[\w.+-]+@", re.I)
# What no name may contain (git-check-ref-format(1)), what git would take for an option, and other refs
_NO_REF = re.compile(r"^-|^refs/|[ ~^:?*\[\\]|\.\.|@\{|//|^/|/$|\.$|^@$|(?:^|/)\.|\.lock(?:/|$)")


def check_ref(ref: str) -> str:
    """The REF, unchanged, if it can name a branch, tag or commit (git-check-ref-format(1)); else UsageError."""
    name = ref.removeprefix(HEADS).removeprefix(TAGS)
    hint = "A REF is a branch, a tag, a commit id, `latest`, or for FlashInfer `matching`."
    if not name or not ref.isprintable() or _NO_REF.search(name) or len(ref.encode()) > LONGEST_REF:
        raise UsageError(f"{ref[:80]!a} is not a valid REF: git allows no branch or tag of that name.", hint)
    if re.fullmatch(r"[0-9a-f]{64}", ref, re.I):
        raise UsageError(f"{ref} is not a valid REF: a commit id has up to 40 digits (SHA-1).", hint)
    return ref


def check_url(url: str, what: str, allow_local: bool) -> str:
    """The URL, unchanged, if git may be given it as an address and as nothing else.

    Allowed are https, http, ssh and git URLs and `user@host:path` (git-clone(1), GIT URLS); with `allow_local` also
    `file://` and absolute paths. `what` names the URL in the error. Raises UsageError.
    """
    is_local = allow_local and _LOCAL.fullmatch(url)
    if len(url) <= LONGEST_URL and unquote(url).isprintable() and (is_local or _SCP.fullmatch(url) or _is_url(url)):
        return url
    shown = re.sub(r"://.*@", "://***@", url, flags=re.S)[:SHOWN]
    local = "" if allow_local else " Local directories are not allowed here."
    hint = f"Use https://HOST[:PORT]/PATH, http, ssh or git, or USER@HOST:PATH, up to {LONGEST_URL} characters.{local}"
    raise UsageError(f"{what} is not a URL that git can clone: {shown!a}", hint)


def _is_url(url: str) -> bool:
    """Whether it is a URL with a host and a path."""
    try:
        parts = urlsplit(url)
        if parts.port == 0 or parts.scheme not in SCHEMES:
            return False
    except ValueError:  # the port, or an address in brackets
        return False
    user, _, host = parts.netloc.rpartition("@")
    has_host = not user.startswith("-") and re.fullmatch(rf"{_HOST}(:.+)?", host, re.I)
    return bool(has_host and parts.path.strip("/") and not re.search(r"[\s\\]", url))


def resolve_submodule_url(url: str, parent: str) -> str:
    """The submodule's URL; one that starts with `./` or `../` is relative to the parent's (gitsubmodules(7)).

    Local directories are allowed only if the parent is one. Raises UsageError.
    """
    what, local = f"The submodule's URL in a checkout of {redact(parent)}", bool(_LOCAL.fullmatch(parent))
    if not re.match(r"\.\.?(/|$)", url):
        return check_url(url, what, allow_local=local)
    host, path = re.findall(r"^([\w+.-]+://[^/]*/|(?:[^/]*:)?/?)(.*)", parent)[0]
    path = posixpath.normpath(posixpath.join(path, url))
    if path.partition("/")[0] in (".", ".."):
        raise UsageError(f"{what} leads outside its host: {url[:SHOWN]!a}")
    return check_url(host + path, what, allow_local=local)


def shell(*words: str | os.PathLike[str]) -> str:
    """The words as one command for a shell; a word with control characters is written as `$'…'` (bash, zsh)."""
    texts = [os.fspath(word) for word in words]
    return " ".join(shlex.quote(text) if text.isprintable() else _escaped(text) for text in texts)


def _escaped(word: str) -> str:
    safe = (c if c.isprintable() and c not in "\\'" else "".join(f"\\x{b:02x}" for b in os.fsencode(c)) for c in word)
    return f"$'{''.join(safe)}'"


def redact(text: str) -> str:
    """The text with `***` for the user and password of every URL in it (a user alone is kept in `ssh://git@…`)."""
    if "://" not in text:
        return text
    return _USERINFO.sub(lambda found: found[0] if _SSH_USER.fullmatch(found[0]) else f"{found[1]}***@", text)
