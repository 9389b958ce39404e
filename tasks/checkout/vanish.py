"""The one place that makes directories vanish: those of submodules that the next commit does not have.

Each file in such a directory has to be a tracked, unchanged file of a repository below our own .git/modules, at any
depth; git deletes these, and nothing else. The repositories themselves stay.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from .. import names
from ..errors import LocalWorkError, counted, examples
from ..git import submodules
from ..git.repository import Checkout, linked_git_dir
from . import local_work


def problems(checkout: Checkout, commit: str) -> list[LocalWorkError]:
    """What keeps the submodules that the commit does not have from vanishing."""
    found = []
    for path, oid in leaving(checkout, commit).items():
        try:
            check(checkout, path, oid, commit)
        except LocalWorkError as error:
            found.append(error)
    return found


def remove(checkout: Checkout, commit: str) -> None:
    """Delete the files of the submodules that the commit does not have, and the directories that are empty then. Raises
    LocalWorkError for what is the user's."""
    for path, oid in leaving(checkout, commit).items():
        check(checkout, path, oid, commit)
        _remove(checkout, path)


def remove_empty(top: Path) -> None:
    """Delete the directories at and below `top` that are empty."""
    for directory, _, _ in os.walk(top, topdown=False) if not top.is_symlink() else ():
        with suppress(OSError):
            Path(directory).rmdir()


def check(parent: Checkout, path: str, commit: str, following: str = "") -> None:
    """Raise LocalWorkError where something in the directory of the submodule at `path` is the user's; the parent has it
    at `commit`. Ignored files count, and those that git was told not to look at; where there is no repository, files of
    the parent's `following` commit do not: git may have written them, or refuses to overwrite them."""
    place = parent.path / path
    git_dir = linked_git_dir(place)
    if place.is_symlink() or (place / ".git").is_symlink():
        raise refusal(parent, place, "is a symbolic link")
    if git_dir is None:
        listed = parent.git("ls-tree", "-r", "-z", "--name-only", following, "--", path) if following else ""
        files = [file for file in place.rglob("*") if file.is_symlink() or not file.is_dir()]
        strays = sorted({str(file.relative_to(parent.path)) for file in files}.difference(listed.split("\0")))
    elif not git_dir.resolve().is_relative_to((parent.git_dir / "modules").resolve()):
        raise refusal(parent, place, "is a repository of its own")
    else:
        checkout = submodules.checkout_at(parent, path, git_dir)
        problems = [*local_work.operation(checkout), *local_work.commits(checkout, [commit])]
        local_work.refuse([*problems, *local_work.staged(checkout)])
        with local_work.own_index(checkout) as index:
            changed = ("diff-files", "-z", "--name-only", "--diff-filter=d", "--ignore-submodules=all")
            strays = [*filter(None, checkout.git(*changed, env=index).split("\0"))]
            strays += local_work.untracked_files(checkout, env=index)
        for inner, oid in submodules.gitlinks(checkout, "HEAD").items():
            check(checkout, inner, oid)
    if strays:
        raise refusal(parent, place, f"contains {counted(len(strays), 'file')} of yours ({examples(strays)})")


def _remove(parent: Checkout, path: str) -> None:
    place = parent.path / path
    if git_dir := linked_git_dir(place):
        checkout = submodules.checkout_at(parent, path, git_dir)
        for inner in submodules.gitlinks(checkout, "HEAD"):
            _remove(checkout, inner)
        nothing = checkout.git("mktree")
        with local_work.own_index(checkout) as index:
            checkout.git("read-tree", "-m", "-u", "HEAD", nothing, env=index)
        (place / ".git").unlink()
    remove_empty(place)


def refusal(checkout: Checkout, place: Path, holds: str) -> LocalWorkError:
    """What is wrong with a place that `holds` something of the user's."""
    move = names.shell("mv", str(place), f"{place}.mine")
    what = f"{checkout.name}: {place} {holds}, where the next commit has something else."
    return LocalWorkError(what, "Move what you need elsewhere, such as with:", move)


def leaving(checkout: Checkout, commit: str) -> Mapping[str, str]:
    """The paths of the submodules that the commit does not have as the same ones, each with its commit in HEAD."""
    return _leaving(checkout, checkout.head, commit)


@cache
def _leaving(checkout: Checkout, head: str, commit: str) -> Mapping[str, str]:
    leaving: dict[str, str] = {}
    if not head or head == commit:
        return leaving
    difference = checkout.git("diff-tree", "-r", "-z", "--raw", "--no-renames", head, commit).split("\0")
    for entry, path in zip(difference[::2], difference[1::2], strict=False):
        old, new, oid, *_ = entry.lstrip(":").split()
        if old == submodules.GITLINK and new != old:
            leaving[path] = oid
    after = submodules.declared(checkout, commit)
    for path, submodule in submodules.declared(checkout, head).items():
        if path in after and after[path].name != submodule.name:
            leaving[path] = submodule.commit
    return leaving
