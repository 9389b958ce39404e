"""The one place that makes directories vanish: those of submodules that the next commit does not have.

Everything in such a directory has to be accounted for: each file is a tracked, unchanged file of a repository below our
own .git/modules, at any depth. What is not accounted for is never deleted.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .. import names
from ..errors import LocalWorkError, counted, examples
from ..git import submodules
from ..git.repository import Checkout, linked_git_dir
from . import local_work


@dataclass(frozen=True)
class Account:
    """What is known of a directory that is to vanish: its `files` may be deleted; `problems` keep it where it is."""

    path: Path
    files: tuple[Path, ...]
    problems: tuple[LocalWorkError, ...]


def accounts(checkout: Checkout, commit: str) -> list[Account]:
    """The accounts of the submodules of a checkout whose directories the commit does not have as the same ones."""
    return [account(checkout, path, oid) for path, oid in _leaving(checkout, checkout.head, commit).items()]


@cache
def _leaving(checkout: Checkout, head: str, commit: str) -> dict[str, str]:
    """The paths of the submodules that the commit does not have as the same ones, each with its commit in `head`."""
    leaving = {}
    difference = checkout.git("diff-tree", "-r", "-z", "--raw", "--no-renames", head, commit).split("\0")
    for entry, path in zip(difference[::2], difference[1::2], strict=False):
        old, new, oid, *_ = entry.lstrip(":").split()
        if old == submodules.GITLINK and new != old:
            leaving[path] = oid
    before, after = submodules.declared(checkout, head), submodules.declared(checkout, commit)
    for path, submodule in before.items():
        if path in after and after[path].name != submodule.name:
            leaving[path] = submodule.commit
    return leaving


def account(parent: Checkout, path: str, commit: str) -> Account:
    """Account for the directory of the submodule at `path`, which its parent's commit has at `commit`."""
    place, holds = parent.path / path, ""
    git_dir = linked_git_dir(place)
    if place.is_symlink() or (git_dir is None and (place / ".git").is_symlink()):
        holds = "is a symbolic link"
    elif git_dir is None:
        strays = [file for file in walk(place) if file.name != ".git"]
        holds = _strays(place, strays) if strays else ""
    elif git_dir.resolve().is_relative_to((parent.git_dir / "modules").resolve()):
        return _account(submodules.checkout_at(parent, path, git_dir), commit)
    else:
        holds = "is a repository of its own"
    return Account(place, (), (refusal(parent, place, holds),) if holds else ())


def _account(checkout: Checkout, commit: str) -> Account:
    """Account for a submodule's working tree and for those of its own submodules."""
    problems = local_work.problems(checkout, known=[commit])
    ours = {checkout.path / ".git"}
    nested: list[Path] = []
    for path, (mode, oid) in _unchanged(checkout).items():
        place = checkout.path / path
        if mode != submodules.GITLINK:
            ours.add(place)
        elif place.is_dir() and not place.is_symlink():
            below = account(checkout, path, oid)
            nested.append(place)
            ours |= {*below.files}
            problems += below.problems
    strays = [file for file in walk(checkout.path, *nested) if file not in ours]
    if strays and not problems:
        problems.append(refusal(checkout, checkout.path, _strays(checkout.path, strays)))
    return Account(checkout.path, tuple(ours), tuple(problems))


def remove(account: Account) -> None:
    """Delete the files that were accounted for, then the directories that are empty, and nothing else."""
    for file in sorted(account.files, key=lambda file: file.name == ".git"):  # the links to repositories come last
        file.unlink(missing_ok=True)
    for directory, _, _ in os.walk(account.path, topdown=False):
        with suppress(OSError):
            Path(directory).rmdir()


def _unchanged(checkout: Checkout) -> dict[str, tuple[str, str]]:
    """The tracked files and submodules that are as the commit has them, each with its mode and object id."""
    if not checkout.head:
        return {}
    with local_work.own_index(checkout) as index:
        checkout.git("update-index", "-q", "--refresh", check=False, env=index)
        changed = checkout.git("diff-files", "-z", "--name-only", "--ignore-submodules=all", env=index).split("\0")
        lines = checkout.git("ls-files", "--stage", "-z", env=index).split("\0")
    entries = {}
    for head, path in (line.split("\t", 1) for line in lines if line):
        mode, oid, _ = head.split()
        entries[path] = (mode, oid)
    suspects = {
        path: entries[path][1]
        for path in changed
        if path in entries and entries[path][0].startswith("100") and (checkout.path / path).is_file()
    }
    alike = local_work.same_bytes(checkout, suspects)
    return {path: entry for path, entry in entries.items() if path not in changed or path in alike}


def walk(top: Path, *inside: Path) -> list[Path]:
    """Every file and link below `top`, less what is in the directories `inside`."""
    files = []
    for directory, directories, filenames in os.walk(top):
        place = Path(directory)
        links = [name for name in directories if (place / name).is_symlink()]
        directories[:] = [name for name in directories if place / name not in inside]
        files += [place / name for name in (*filenames, *links)]
    return files


def refusal(checkout: Checkout, place: Path, holds: str) -> LocalWorkError:
    """What is wrong with a place that `holds` something of the user's."""
    move = names.shell("mv", str(place), f"{place}.mine")
    what = f"{checkout.name}: {place} {holds}, where the next commit has something else."
    return LocalWorkError(what, "Move what you need elsewhere, such as with:", move)


def _strays(top: Path, files: list[Path]) -> str:
    shown = examples([str(file.relative_to(top)) for file in files])
    return f"contains {counted(len(files), 'file')} of yours ({shown})"
