"""What a commit declares about its submodules (gitmodules(5)), accepted only as far as it stays within the checkout."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import LocalWorkError, SourcesError, UsageError
from ..names import redact, resolve_submodule_url
from .command import run
from .fetch import Entry, LocalRepository

GITLINK, SYMLINK = "160000", "120000"
_NAME = re.compile(r"[^-./\\\s][^/\\]*(/[^./\\][^/\\]*)*")
_REFUSED = "Nothing of it was fetched."


@dataclass(frozen=True)
class Submodule:
    """A submodule of a commit, at `commit`."""

    name: str
    path: str
    url: str
    commit: str


def read_submodules(repository: LocalRepository, tree: Mapping[str, Entry]) -> tuple[list[Submodule], list[str]]:
    """The submodules of a commit with this `tree`, and the paths of those that have no entry in .gitmodules.

    Raises SourcesError for an entry that leads out of the checkout, or to a transport that is not allowed.
    """
    links = {path: entry.oid for path, entry in tree.items() if entry.mode == GITLINK}
    declared = _declared(repository, tree) if links else {}
    found = []
    for path, (name, link) in sorted(declared.items()):
        if path not in links:
            continue
        _check_place(name, path, tree, [other for other, _ in declared.values()], repository.who)
        try:
            url = resolve_submodule_url(link, repository.url)
        except UsageError as error:
            what = f"{repository.who}: .gitmodules, submodule {name!a}: {error.what}"
            raise SourcesError(what, _REFUSED) from None
        found.append(Submodule(name, path, url, links[path]))
    return found, sorted(links.keys() - declared.keys())


def _declared(repository: LocalRepository, tree: Mapping[str, Entry]) -> dict[str, tuple[str, str]]:
    """Path -> (name, URL), as .gitmodules has them; no symbolic link is followed."""
    entry = tree.get(".gitmodules")
    if entry is None or entry.mode == SYMLINK:
        return {}
    settings = repository.git("config", "--null", f"--blob={entry.oid}", "--list", check=False)
    modules: dict[str, dict[str, str]] = {}
    for setting in settings.split("\0"):
        key, _, value = setting.partition("\n")
        section, _, variable = key.rpartition(".")
        if section.startswith("submodule."):
            modules.setdefault(section.removeprefix("submodule."), {})[variable] = value
    return {each["path"]: (name, each["url"]) for name, each in modules.items() if {"path", "url"} <= each.keys()}


def linked_git_dir(path: Path) -> Path | None:
    """The git directory that the directory `path` names as its own (gitrepository-layout(5), gitfile), or None."""
    file = path / ".git"
    if not os.path.lexists(file):
        return None
    text = os.fsdecode(file.read_bytes()) if file.is_file() and not file.is_symlink() else ""
    return (path / text.removeprefix("gitdir:").strip()).resolve() if text.startswith("gitdir:") else file


def head_of(path: Path) -> str:
    """The commit that the checkout at `path` is at; empty where it is none."""
    git_dir = linked_git_dir(path)
    if git_dir is None or not (git_dir / "HEAD").is_file():
        return ""
    head = (git_dir / "HEAD").read_text(errors="replace").strip()  # the commit itself, where it is detached
    if re.fullmatch("[0-9a-f]{40,64}", head):
        return head
    return run(path, "rev-parse", "--quiet", "--verify", "HEAD", check=False)


def submodule_git_dir(parent: LocalRepository, submodule: Submodule) -> Path:
    """Where the submodule's repository is or will be: that of the files at its path, else where git-submodule(1) puts
    it. Raises LocalWorkError where the path holds anything else, SourcesError for a repository inside another."""
    modules, place = parent.git_dir / "modules", parent.path / submodule.path
    linked = linked_git_dir(place)
    if linked and linked.is_relative_to(modules.resolve()) and (linked / "HEAD").is_file():
        return modules / linked.relative_to(modules.resolve())
    if linked or untracked_files(parent.path, f":(literal){submodule.path}"):
        what = f"{parent.who}: {place} is in the way: it is not a checkout of the submodule {submodule.name}."
        raise LocalWorkError(what, command=move_aside(place))
    git_dir = modules / submodule.name
    if any((above / "HEAD").is_file() for above in git_dir.parents if above.is_relative_to(modules)):
        what = f"{parent.who}: submodule {submodule.name!a} would be inside the repository of another one."
        raise SourcesError(what, _REFUSED)
    return git_dir


def untracked_files(path: Path, *pathspecs: str) -> list[str]:
    """The files of the checkout at `path` that git does not track, ignored ones included; of a repository in it, its
    directory with a slash at the end (git-ls-files(1), --others)."""
    return list(filter(None, run(path, "ls-files", "--others", "-z", "--", *pathspecs, check=False).split("\0")))


def move_aside(path: Path) -> str:
    """The command that renames what is at `path`, to a name that is free."""
    import shlex

    names = (path.with_name(f"{path.name}.mine{number or ''}") for number in range(1000))
    return shlex.join(["mv", str(path), str(next(each for each in names if not os.path.lexists(each)))])


def _check_place(name: str, path: str, tree: Mapping[str, Entry], names: list[str], who: str) -> None:
    parts = PurePosixPath(path).parts
    git = any(re.fullmatch(r"\.git|git~\d+", part, re.I) for part in parts)
    outside = path.startswith(("/", "-")) or ".." in parts or git
    # compared as on file systems that ignore case
    links = {place.casefold() for place, entry in tree.items() if entry.mode == SYMLINK}
    through = any(str(parent).casefold() in links for parent in PurePosixPath(path).parents)
    bad_name = not _NAME.fullmatch(name) or not _printable(name) or any(n.startswith(f"{name}/") for n in names)
    if outside or through or bad_name or not _printable(path):
        what = f"{who}: .gitmodules: {redact(f'submodule {name!a} at {path!a}')} would lead out of the checkout."
        raise SourcesError(what, _REFUSED)


def _printable(name: str) -> bool:
    return os.fsencode(name).decode("utf-8", "surrogateescape").isprintable()  # whatever the locale
