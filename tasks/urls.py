"""URLs as data: which of them git may be given, what a submodule's is relative to, and no password in any text."""

from __future__ import annotations

import re
from typing import NoReturn
from urllib.parse import unquote, urlsplit

from .errors import UsageError

NETWORK_SCHEMES = ("https", "http", "ssh", "git", "git+ssh", "ssh+git")
LONGEST_URL = 2000
SHOWN = 200  # characters of a wrong URL in a message

# What stands before the last @ of the authority; of what has more than a port after a colon, before the last @ at all.
# The lengths are bounded so that no text takes quadratic time.
_USERINFO = re.compile(
    r"([a-z0-9+.-]{0,20}://)(?:[^\s/?#]{0,2000}|(?!\[)[^\s/?#@:]{0,2000}:(?!\d+(?:[/?#\s]|$))\S{0,2000})@", re.I
)
_SSH_USER = re.compile(r"(?:git\+)?ssh(?:\+git)?://[\w.+-]+@", re.I)
_SCP = re.compile(r"(?:[\w.+][\w.+-]*@)?(?:\[[0-9a-f:.]+\]|[\w.][\w.-]*):(?![:/]{2})(?!-).+", re.I)


def is_local(url: str) -> bool:
    """Whether the URL names a folder of this machine (a path or `file://`)."""
    return url.startswith("/") or url[:7].lower() == "file://"


def check_url(url: str, what: str, allow_local: bool) -> str:
    """The URL, unchanged, if git may be given it as an address and as nothing else.

    Allowed are https, http, ssh and git URLs and `user@host:path` (git-clone(1), GIT URLS); with `allow_local` also
    `file://` and absolute paths. `what` says in the error where the URL stood. Raises UsageError.
    """

    def refuse(why: str) -> NoReturn:
        shown = re.sub(r"://.*@", "://***@", url, flags=re.S)
        fix = "Use a URL such as https://HOST/PATH.git."
        raise UsageError(f"{what} is no URL to clone from ({why}): {shown[:SHOWN]!a}", fix)

    if not url or len(url) > LONGEST_URL:
        refuse(f"{len(url)} characters, 1 to {LONGEST_URL} are allowed")
    if not unquote(url).isprintable():
        refuse("it holds control characters")
    if url.startswith("-"):
        refuse("it would be taken for an option")
    if re.match(r"[\w.+-]*::", url):
        refuse("transport helpers can run commands")
    if is_local(url):
        return url if allow_local else refuse("folders of this machine are not allowed here")
    if re.search(r"[\s\\]", unquote(url)):
        refuse("it holds white space or a backslash")
    if "://" not in url:
        return url if _SCP.fullmatch(url) else refuse("neither a scheme, nor user@host:path, nor an absolute path")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        refuse(str(error))
    if parts.scheme.lower() not in NETWORK_SCHEMES:
        refuse(f"the scheme is none of {', '.join(NETWORK_SCHEMES)}")
    if not re.match(r"[\w.:]", host) or (parts.username or "").startswith("-"):
        refuse("it names no host")
    if not parts.path.strip("/"):
        refuse("it names no repository")
    return url


def resolve_submodule_url(url: str, parent: str) -> str:
    """The submodule's URL; one that starts with `./` or `../` is relative to the parent's (gitsubmodules(7)).

    Local folders are allowed only where the parent is one. Raises UsageError.
    """
    what = f"The submodule's URL in a checkout of {redact(parent)}"
    if not re.match(r"\.\.?(/|$)", url):
        return check_url(url, what, allow_local=is_local(parent))
    start = re.match(r"[\w+.-]+://[^/]*|[^/:[]*(?:\[[^/\]]*\])?:(?!//)|", parent)
    prefix = start.group() if start else ""
    path = [part for part in parent[len(prefix) :].split("/") if part]
    for part in url.split("/"):
        if part == ".." and not path:
            raise UsageError(f"{what} leads out of that host: {url[:SHOWN]!a}")
        if part == "..":
            path.pop()
        elif part not in ("", "."):
            path.append(part)
    slash = "" if prefix.endswith(":") and not parent[len(prefix) :].startswith("/") else "/"
    return check_url(prefix + slash + "/".join(path), what, allow_local=is_local(parent))


def redact(text: str) -> str:
    """The text with `***` for the user and password of every URL in it (the user alone is kept in `ssh://git@…`)."""
    return _USERINFO.sub(lambda found: found[0] if _SSH_USER.fullmatch(found[0]) else f"{found[1]}***@", text)
