"""The configuration tree `sources`: its defaults, and how it becomes `Settings`. URLs are checked and redacted here."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn
from urllib.parse import unquote, urlsplit

from invoke.config import DataProxy

from .errors import UsageError
from .model import Repository, Settings

# Numbers stand as text: Invoke casts an environment variable by its default's type, and a bare ValueError would come
# out of INVOKE_SOURCES_ATTEMPTS=many.
DEFAULTS: dict[str, Any] = {
    "directory": "tmp",
    "trace": "flashinfer_trace",
    "attempts": "5",
    "stall": "30",
    "installer": "auto",
    "cache": "auto",
    "repositories": {
        "sglang": {"url": "https://github.com/sgl-project/sglang.git", "branch": "main"},
        "flashinfer": {"url": "https://github.com/flashinfer-ai/flashinfer.git", "branch": "main"},
    },
}
ENTRY = ("url", "branch", "install", "extras")
INSTALLED = ("sglang", "flashinfer")
INSTALLERS: tuple[Literal["auto", "uv", "pip"], ...] = ("auto", "uv", "pip")
NETWORK_SCHEMES = ("https", "http", "ssh", "git", "git+ssh", "ssh+git")
LONGEST_URL = 2000
LONGEST_NAME = 100
SHOWN = 200  # characters of a wrong value in a message

# What stands before the last @ of the authority; of what has more than a port after a colon, before the last @ at all.
# The lengths are bounded so that no text takes quadratic time.
_USERINFO = re.compile(
    r"([a-z0-9+.-]{0,20}://)(?:[^\s/?#]{0,4000}|(?!\[)[^\s/?#@:]{0,4000}:(?!\d+(?:[/?#\s]|$))\S{0,4000})@", re.I
)
_SSH_USER = re.compile(r"(?:git\+)?ssh(?:\+git)?://[\w.+-]+@", re.I)
_SCP = re.compile(r"(?:[\w.+][\w.+-]*@)?(?:\[[0-9a-f:.]+\]|[\w.][\w.-]*):(?![:/]{2})(?!-).+", re.I)


@dataclass(frozen=True)
class _Node:
    """One value of the tree, with its full key and the file that it came from."""

    value: Any
    key: str
    where: str

    def wrong(self, expected: str, fix: str = "") -> NoReturn:
        kind, shown = type(self.value).__name__, redact(ascii(self.value))[:SHOWN]
        variable = f" or INVOKE_{self.key.upper().replace('.', '_')}" if isinstance(self.value, str) else ""
        what = f"{self.key} is {shown} ({kind}), expected was {expected} (in {self.where}{variable})"
        raise UsageError(what, fix or f"Correct `{self.key}` in {self.where}.")

    def table(self, known: Collection[str] = ()) -> dict[str, _Node]:
        """Its entries; with `known`, no others than those."""
        if not isinstance(self.value, Mapping | DataProxy):
            self.wrong("a table of keys")
        keys: Iterable[Any] = self.value
        children = {}
        for key in keys:
            name = redact(str(key)[:SHOWN].encode("unicode_escape").decode())
            if not isinstance(key, str) or (known and key not in known):
                raise UsageError(f"{self.key}.{name} is no known key (in {self.where})", _nearest(name, known))
            children[key] = _Node(self.value[key], f"{self.key}.{name}", self.where)
        return children

    def text(self, expected: str = "text") -> str:
        if not isinstance(self.value, str) or not self.value.strip() or not self.value.isprintable():
            self.wrong(f"{expected} (put numbers in quotes)" if isinstance(self.value, int | float) else expected)
        return self.value

    def number(self, expected: str) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float | str):
            self.wrong(expected)
        try:
            return float(self.value)
        except (ValueError, OverflowError):
            self.wrong(expected)

    def folder(self, root: Path) -> Path:
        try:
            return root / Path(self.text("the path of a folder")).expanduser()
        except RuntimeError:  # ~somebody who does not exist here
            self.wrong("the path of a folder", "Write the whole path, without `~`.")


def load(config: Any, root: Path, where: str = "invoke.yaml") -> Settings:
    """The settings in the tree `sources` of Invoke's configuration.

    `config` is that tree (a mapping or Invoke's `DataProxy`), `root` the folder that relative paths start from, `where`
    the name of the file that a user would correct. Raises UsageError with the full key for whatever is wrong in it.
    """
    tree = _Node(config, "sources", where)
    known = tree.table(DEFAULTS)
    nodes = {key: known.get(key) or _Node(value, f"sources.{key}", where) for key, value in DEFAULTS.items()}
    attempts = nodes["attempts"].number("a whole number, 1 or more")
    if not (attempts >= 1 and attempts.is_integer()):
        nodes["attempts"].wrong("a whole number, 1 or more")
    stall = nodes["stall"].number("a number of seconds above 0")
    if not 0 < stall < float("inf"):
        nodes["stall"].wrong("a number of seconds above 0")
    installer = next((name for name in INSTALLERS if name == nodes["installer"].value), None)
    if installer is None:
        nodes["installer"].wrong("one of auto, uv and pip")
    directory = nodes["directory"].folder(root)
    return Settings(
        root=root,
        directory=directory,
        trace=nodes["trace"].folder(root),
        attempts=int(attempts),
        stall=stall,
        installer=installer,
        cache=_cache(nodes["cache"], root),
        repositories=_repositories(nodes["repositories"], directory),
    )


def _cache(node: _Node, root: Path) -> Path | None:
    if node.value is None or node.value == "":
        return None
    if node.value == "auto":
        from platformdirs import user_cache_path

        return user_cache_path("flashinfer-sources")
    return node.folder(root)


def _repositories(node: _Node, directory: Path) -> tuple[Repository, ...]:
    import unicodedata

    found: dict[str, Repository] = {}
    for name, entry in node.table().items():
        if not re.fullmatch(r"\w(?:[\w.+-]*[\w+-])?", name) or len(name) > LONGEST_NAME:
            what = f"{entry.key} is no name for a folder (in {node.where})"
            raise UsageError(what, "Name it with letters, digits, `_`, `-` and `.`, a letter or digit first.")
        folded = unicodedata.normalize("NFKC", name).casefold()  # as file systems that ignore case would
        if folded in found:
            raise UsageError(f"{entry.key} and {node.key}.{found[folded].name} would share a folder (in {node.where})")
        found[folded] = _repository(name, entry, directory / name)
    return tuple(found.values())


def _repository(name: str, entry: _Node, path: Path) -> Repository:
    from .refs import check_ref

    given = entry.table(ENTRY)
    if "url" not in given:
        raise UsageError(f"{entry.key}.url is missing (in {entry.where})", f"Add `url:` below `{entry.key}`.")
    url = check_url(given["url"].text("a URL"), f"{entry.key}.url in {entry.where}", allow_local=True)
    branch = given.get("branch") or _Node("main", "", "")
    try:
        check_ref(branch.text("a branch, tag or commit id"))
    except UsageError as error:
        raise error if branch.key in error.what else UsageError(f"{branch.key}: {error.what}", error.fix) from None
    install = given.get("install") or _Node(name in INSTALLED, "", "")
    if not isinstance(install.value, bool):
        install.wrong("true or false")
    extras = given.get("extras") or _Node([], "", "")
    if not isinstance(extras.value, list | tuple):
        extras.wrong("a list of extras, such as [srt]")
    for extra in extras.value:
        if not isinstance(extra, str) or not re.fullmatch(r"[A-Z0-9](?:[A-Z0-9._-]*[A-Z0-9])?", extra, re.I | re.A):
            extras.wrong("a list of extras by their names (PEP 685), such as [srt]")
    return Repository(name, url, branch.value, path, install.value, tuple(dict.fromkeys(extras.value)))


def _nearest(key: str, known: Collection[str]) -> str:
    from difflib import get_close_matches

    best = get_close_matches(key, known, n=1, cutoff=0.5)
    return (f"Did you mean `{best[0]}`? " if best else "") + f"Known here: {', '.join(known)}."


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
