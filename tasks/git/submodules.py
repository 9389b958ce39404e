"""What a commit declares about its submodules (gitmodules(5)), accepted only as far as it stays within the checkout."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import SourcesError, UsageError
from ..models import Repository
from ..names import redact, resolve_submodule_url
from .repository import Checkout

GITLINK = "160000"
_NAME = re.compile(r"[^-./\\\s][^/\\]*(/[^./\\][^/\\]*)*")  # drafts of repositories begin with a dot
_NO_PATH = re.compile(r"^[-/]|(^|/)(\.\.|\.git|git~\d+)(/|$)", re.I)
REFUSED = "Nothing of it was fetched."


@dataclass(frozen=True)
class Submodule:
    """A submodule of a commit: its `name` in .gitmodules, its path, its URL and the commit that it should be at."""

    name: str
    path: str
    url: str
    commit: str


@cache
def declared(parent: Checkout, commit: str) -> dict[str, Submodule]:
    """The submodules of a commit by their paths. A gitlink without an entry in .gitmodules, for which git knows no URL,
    is none.

    Raises SourcesError for an entry that leads out of the checkout, or to a transport that is not allowed.
    """
    entries = _entries(parent, commit)
    if not entries:
        return {}
    links = gitlinks(parent, commit, *entries)
    submodules = {}
    for path, (name, url) in sorted(entries.items()):
        if path in links:
            is_inside = any(name.startswith(f"{other}/") for other, _ in entries.values())
            is_name = _NAME.fullmatch(name) and _is_printable(name)
            if is_inside or not is_name or _NO_PATH.search(path) or not _is_printable(path):
                shown = redact(f"submodule {name!a} at {path!a}")
                raise SourcesError(f"{parent.name}: .gitmodules: {shown} could lead out of the checkout.", REFUSED)
            submodules[path] = Submodule(name, path, _absolute(parent, name, url), links[path])
    return submodules


def commits_by_name(parent: Checkout, commit: str) -> dict[str, str]:
    """The commits of the submodules of a commit by their names; none where the commit is empty."""
    known = declared(parent, commit).values() if commit else ()
    return {submodule.name: submodule.commit for submodule in known}


def gitlinks(parent: Checkout, commit: str, *paths: str) -> dict[str, str]:
    """The submodules in the commit's tree, or those of the `paths`, each with its commit (git-ls-tree(1))."""
    links = {}
    for line in parent.git("ls-tree", "-r", "-z", commit, "--", *paths, check=False).split("\0"):
        head, _, path = line.partition("\t")
        if head.startswith(GITLINK):
            links[path] = head.split()[2]
    return links


def checkout_of(parent: Checkout, submodule: Submodule) -> Checkout:
    """The checkout of a submodule: its repository is where git-submodule(1) puts it, whether it is there yet or not."""
    return checkout_at(parent, submodule.path, parent.git_dir / "modules" / submodule.name, submodule.url)


def linked(parent: Checkout, commit: str) -> Iterator[tuple[Submodule, Checkout]]:
    """The submodules of a commit whose files are there, each with its checkout."""
    for submodule in declared(parent, commit).values():
        checkout = checkout_of(parent, submodule)
        if checkout.is_linked:
            yield submodule, checkout


def checkout_at(parent: Checkout, path: str, git_dir: Path, url: str = "") -> Checkout:
    """The checkout in `parent` at `path` whose repository is in `git_dir`."""
    return Checkout(Repository(f"{parent.name}/{path}", url, "", parent.path / path, install=False), git_dir)


def _entries(parent: Checkout, commit: str) -> dict[str, tuple[str, str]]:
    """Path -> (name, URL), as .gitmodules has them; a symbolic link is not followed."""
    listing = parent.git("config", "--null", f"--blob={commit}:.gitmodules", "--list", check=False)
    modules: dict[str, dict[str, str]] = {}
    for setting in listing.split("\0"):
        key, _, value = setting.partition("\n")
        section, _, variable = key.rpartition(".")
        if section.startswith("submodule."):
            modules.setdefault(section.removeprefix("submodule."), {})[variable] = value
    return {keys["path"]: (name, keys["url"]) for name, keys in modules.items() if {"path", "url"} <= keys.keys()}


def _absolute(parent: Checkout, name: str, url: str) -> str:
    try:
        return resolve_submodule_url(url, parent.url)
    except UsageError as error:
        what = f"{parent.name}: .gitmodules, submodule {name!a}: {error.what}"
        raise SourcesError(what, REFUSED) from None


def _is_printable(name: str) -> bool:
    return os.fsencode(name).decode("utf-8", "surrogateescape").isprintable()  # whatever the locale
