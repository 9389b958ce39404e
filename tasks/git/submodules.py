"""What a commit says of its submodules (gitmodules(5)), believed only as far as it leads nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..checkout.paths import parents
from ..checkout.record import Record, read_record
from ..errors import SourcesError, UsageError
from ..names import redact, resolve_submodule_url
from ..packages.metadata import read_toml, sparse_folders
from .command import run
from .fetch import Entry, Remote

GITLINK, SYMLINK = "160000", "120000"
_OID = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[^-./\\\s][^/\\]*(/[^./\\][^/\\]*)*")


@dataclass(frozen=True)
class Submodule:
    """A submodule at a commit: `folders` are those that are checked out, None for all of it."""

    name: str
    path: str
    url: str
    commit: str
    folders: tuple[str, ...] | None


def read_submodules(
    remote: Remote, tree: Mapping[str, Entry], pyproject: bytes, *, whole: bool
) -> tuple[list[Submodule], list[str]]:
    """The submodules of a commit, from its `tree` listing, and a complaint for each gitlink that has no entry.

    Its `pyproject` declares the folders that are wanted of them; with `whole` on every submodule has all.
    Raises SourcesError for an entry that would lead out of the checkout or to a transport that is not allowed.
    """
    links = {path: entry.oid for path, entry in tree.items() if entry.mode == GITLINK}
    entries = declared(remote.path, tree) if links else {}
    shipped = read_toml(pyproject, "pyproject.toml") if links and not whole else {}
    found = []
    for path, (name, link) in sorted(entries.items()):
        if path not in links:
            continue
        _check_place(name, path, tree, [other for other, _ in entries.values()], remote.who)
        try:
            address = resolve_submodule_url(link, remote.url)
        except UsageError as error:
            what = f"{remote.who}: .gitmodules, submodule {name!a}: {error.what}"
            raise SourcesError(what, "Nothing of it was fetched.") from None
        folders = None if whole else sparse_folders(shipped, path)
        found.append(Submodule(name, path, address, links[path], folders))
    lost = sorted(links.keys() - entries.keys())
    complaints = [f"{path} is a submodule without an entry in .gitmodules" for path in lost]
    return found, complaints


def declared(repository: Path, tree: Mapping[str, Entry]) -> dict[str, tuple[str, str]]:
    """Path -> (name, url) as the .gitmodules in this tree has them."""
    entry = tree.get(".gitmodules")
    if entry is None or entry.mode == SYMLINK:
        return {}
    told = run(repository, "config", "--null", f"--blob={entry.oid}", "--list", check=False)
    modules: dict[str, dict[str, str]] = {}
    for setting in told.split("\0"):
        key, _, value = setting.partition("\n")
        section, _, variable = key.rpartition(".")
        if section.startswith("submodule."):
            modules.setdefault(section.removeprefix("submodule."), {})[variable] = value
    return {each["path"]: (name, each["url"]) for name, each in modules.items() if {"path", "url"} <= each.keys()}


def linked_git_dir(place: Path) -> Path | None:
    """The git directory that the folder `place` says is its own (gitrepository-layout(5), gitfile); None for none."""
    file = place / ".git"
    if not os.path.lexists(file):
        return None
    told = os.fsdecode(file.read_bytes()) if file.is_file() and not file.is_symlink() else ""
    return (place / told.removeprefix("gitdir:").strip()).resolve() if told.startswith("gitdir:") else file


def head_of(path: Path) -> str:
    """The commit that the checkout at `path` is at; empty where there is none."""
    git_dir = linked_git_dir(path)
    if git_dir is None or not (git_dir / "HEAD").is_file():
        return ""
    head = (git_dir / "HEAD").read_text().strip()
    return head if _OID.fullmatch(head) else run(path, "rev-parse", "--quiet", "--verify", "HEAD", check=False)


def is_settled(path: Path, git_dir: Path, record: Record) -> bool:
    """Whether the submodule at `path` was checked out as `record` has it, and still is."""
    return read_record(git_dir) == record and head_of(path) == record.commit


def _check_place(name: str, path: str, tree: Mapping[str, Entry], names: list[str], who: str) -> None:
    parts = PurePosixPath(path).parts
    git = any(re.fullmatch(r"\.git|git~\d+", part, re.I) for part in parts)
    outside = path.startswith(("/", "-")) or ".." in parts or git
    # compared as on file systems that ignore case
    links = {place.casefold() for place, entry in tree.items() if entry.mode == SYMLINK}
    through = any(parent.casefold() in links for parent in parents(path))
    bad_name = not _NAME.fullmatch(name) or not _printable(name) or any(n.startswith(f"{name}/") for n in names)
    if outside or through or bad_name or not _printable(path):
        said = redact(f"submodule {name!a} at {path!a}")
        what = f"{who}: .gitmodules, {said}: it would lead out of the checkout."
        raise SourcesError(what, "Nothing of it was fetched.")


def _printable(name: str) -> bool:
    return os.fsencode(name).decode("utf-8", "surrogateescape").isprintable()  # whatever the locale
