"""REFs and URLs are data: which ones are valid, what relative URLs mean, and how passwords are kept out of messages."""

from __future__ import annotations

import os
import posixpath
import re
import shlex

from .errors import UsageError

LATEST, MATCHING = "latest", "matching"
HEADS, TAGS = "refs/heads/", "refs/tags/"
LONGEST_URL = 2000
SHOWN = 200  # characters of a wrong URL in a message

_HOST = r"(?:[\w.+][\w.+-]*@)?(?:\[[0-9a-f:.]+\]|\w[\w.-]*)"
_SCP = rf"{_HOST}:(?![:-]|//)[^\s\\]+"
_URL = r"(?:https?|git|ssh|git\+ssh|ssh\+git)://(?!-|[^/]*@-)[^\s/\\]+/+[^\s\\/][^\s\\]*"
_LOCAL = r"(?:file:/)?/.+"
# Everything before the last @ of the authority; if a colon is followed by more than a port, before the last @ of all.
# The lengths are bounded, so that no text takes quadratic time.
_USERINFO = re.compile(
    r"([a-z0-9+.-]{0,20}://)(?:[^\s/?#]{0,2000}|(?!\[)[^\s/?#@:]{0,2000}:(?!\d+(?:[/?#\s]|$))(?:\S{0,2000}|[^/'\"\n]{0,200}))@",
    re.I,
)
_SSH_USER = re.compile(r"(?:git\+)?ssh(?:\+git)?://[\w.+-]+@", re.I)
# What no name may contain (git-check-ref-format(1)), what git would take for an option, and other refs
_NO_REF = re.compile(r"^-|^refs/|[ ~^:?*\[\\]|\.\.|@\{|//|^/|/$|\.$|^@$|(?:^|/)\.|\.lock(?:/|$)")


def check_ref(ref: str, what: str = "REF") -> str:
    """The REF, unchanged, if it can name a branch, tag or commit (git-check-ref-format(1)). `what` names it in the
    error. Raises UsageError."""
    name = ref.removeprefix(HEADS).removeprefix(TAGS)
    if not name or not ref.isprintable() or _NO_REF.search(name):
        hint = "A REF is a branch, a tag, a commit id, `latest`, or for FlashInfer `matching`."
        raise UsageError(f"{what}: {ref[:80]!a} is not valid: git allows no branch or tag of that name.", hint)
    return ref


def check_url(url: str, what: str, allow_local: bool) -> str:
    """The URL, unchanged, if git may be given it as an address and as nothing else.

    Allowed are https, http, ssh and git URLs and `user@host:path` (git-clone(1), GIT URLS); with `allow_local` also
    `file://` and absolute paths. `what` names the URL in the error. Raises UsageError.
    """
    forms = "|".join([_URL, _SCP, *([_LOCAL] if allow_local else [])])
    is_text = len(url) <= LONGEST_URL and url.isprintable() and not re.search(r"%[01]|%7f", url, re.I)
    if is_text and re.fullmatch(forms, url, re.I):
        return url
    shown = re.sub(r"://.*@", "://***@", url, flags=re.S)[:SHOWN]
    local = "" if allow_local else " Local directories are not allowed here."
    hint = f"Use https://HOST[:PORT]/PATH, http, ssh or git, or USER@HOST:PATH, up to {LONGEST_URL} characters.{local}"
    raise UsageError(f"{what} is not a URL that git can clone: {shown!a}", hint)


def resolve_submodule_url(url: str, parent: str) -> str:
    """The submodule's URL; one that starts with `./` or `../` is relative to the parent's (gitsubmodules(7)).

    Local directories are allowed only if the parent is one. Raises UsageError.
    """
    what, local = f"The submodule's URL in a checkout of {redact(parent)}", bool(re.fullmatch(_LOCAL, parent))
    if not re.match(r"\.\.?(/|$)", url):
        return check_url(url, what, allow_local=local)
    host, path = re.findall(r"^([\w+.-]+://[^/]*/|(?:[^/]*:)?/?)(.*)", parent)[0]
    path = posixpath.normpath(posixpath.join(path, url))
    if path.partition("/")[0] in (".", ".."):
        raise UsageError(f"{what} leads outside its host: {url[:SHOWN]!a}")
    return check_url(host + path, what, allow_local=local)


def shell(*words: str | os.PathLike[str]) -> str:
    """The words as one command for a shell; a word with control characters is written as `$'…'` (bash, zsh)."""
    return " ".join(_quoted(os.fspath(word)) for word in words)


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    safe = (c if c.isprintable() and c not in "\\'" else "".join(f"\\x{b:02x}" for b in os.fsencode(c)) for c in word)
    return f"$'{''.join(safe)}'"


def redact(text: str) -> str:
    """The text with `***` for the user and password of every URL in it (a user alone is kept in `ssh://git@…`)."""
    if "://" not in text:
        return text
    return _USERINFO.sub(lambda found: found[0] if _SSH_USER.fullmatch(found[0]) else f"{found[1]}***@", text)
