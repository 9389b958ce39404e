"""The one place that makes directories vanish: those of submodules that the next commit does not have.

Everything in such a directory has to be accounted for: each file is a tracked, unchanged file of a repository below our
own .git/modules, at any depth. What is not accounted for is never deleted. The repositories themselves stay.
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
            account(checkout, path, oid)
        except LocalWorkError as error:
            found.append(error)
    return found


def remove(checkout: Checkout, commit: str) -> None:
    """Delete the files of the submodules that the commit does not have, then the directories that are empty, and
    nothing else. Raises LocalWorkError for what is not accounted for."""
    for path, oid in leaving(checkout, commit).items():
        files = account(checkout, path, oid)
        for file in sorted(files, key=lambda file: file.name == ".git"):  # the links to repositories come last
            file.unlink(missing_ok=True)
        remove_empty(checkout.path / path)


def remove_empty(top: Path) -> None:
    """Delete the directories at and below `top` that are empty."""
    for directory, _, _ in os.walk(top, topdown=False) if not top.is_symlink() else ():
        with suppress(OSError):
            Path(directory).rmdir()


def account(parent: Checkout, path: str, commit: str) -> set[Path]:
    """The files in the directory of the submodule at `path`, which its parent's commit has at `commit`.

    Raises LocalWorkError where something in it is the user's.
    """
    place = parent.path / path
    git_dir = linked_git_dir(place)
    if place.is_symlink() or (place / ".git").is_symlink():
        raise refusal(parent, place, "is a symbolic link")
    if git_dir is None:
        files, strays = {place / ".git"}, [str(file.relative_to(place)) for file in walk(place) if file.name != ".git"]
    elif not git_dir.resolve().is_relative_to((parent.git_dir / "modules").resolve()):
        raise refusal(parent, place, "is a repository of its own")
    else:
        checkout = submodules.checkout_at(parent, path, git_dir)
        problems = [*local_work.operation(checkout), *local_work.commits(checkout, [commit])]
        local_work.refuse([*problems, *local_work.staged(checkout)])
        files, strays = _files(checkout)
    if strays:
        raise refusal(parent, place, f"contains {counted(len(strays), 'file')} of yours ({examples(strays)})")
    return files


def walk(top: Path) -> list[Path]:
    """Every file and link below `top`."""
    return [path for path in top.rglob("*") if path.is_symlink() or not path.is_dir()]


def _files(checkout: Checkout) -> tuple[set[Path], list[str]]:
    """The files of a submodule's commit and of its own submodules; and what is in its directory beside or instead of
    them, ignored files and those that git was told not to look at included."""
    with local_work.own_index(checkout) as index:
        checkout.git("update-index", "-q", "--refresh", check=False, env=index)
        lines = checkout.git("ls-files", "--stage", "-z", env=index).split("\0")
        strays = local_work.untracked_files(checkout, env=index)
        changed = checkout.git("diff-files", "-z", "--name-only", "--ignore-submodules=all", env=index).split("\0")
    files, oids = {checkout.path / ".git"}, {}
    for entry, path in (line.split("\t", 1) for line in lines if line):
        mode, oid, _ = entry.split()
        if mode == submodules.GITLINK:
            files |= account(checkout, path, oid)
        elif not os.path.lexists(checkout.path / path) or path not in changed:
            files.add(checkout.path / path)
        else:
            oids[path] = oid
    alike = local_work.same_bytes(checkout, oids)
    strays += [path for path in oids if path not in alike]
    return files | {checkout.path / path for path in alike}, strays


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
