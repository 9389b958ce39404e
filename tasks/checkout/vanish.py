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
        for directory, _, _ in os.walk(checkout.path / path, topdown=False):
            with suppress(OSError):
                Path(directory).rmdir()


def account(parent: Checkout, path: str, commit: str) -> set[Path]:
    """The files in the directory of the submodule at `path`, which its parent's commit has at `commit`.

    Raises LocalWorkError where something in it is the user's.
    """
    place = parent.path / path
    git_dir = linked_git_dir(place)
    files = {place / ".git"}
    if place.is_symlink() or (place / ".git").is_symlink():
        raise refusal(parent, place, "is a symbolic link")
    if git_dir and not git_dir.resolve().is_relative_to((parent.git_dir / "modules").resolve()):
        raise refusal(parent, place, "is a repository of its own")
    if git_dir:
        checkout = submodules.checkout_at(parent, path, git_dir)
        problems = [*local_work.operation(checkout), *local_work.commits(checkout, [commit])]
        local_work.refuse([*problems, *local_work.staged(checkout)])
        for tracked, (mode, oid) in _unchanged(checkout).items():
            files |= account(checkout, tracked, oid) if mode == submodules.GITLINK else {place / tracked}
    if strays := [str(file.relative_to(place)) for file in walk(place) if file not in files]:
        raise refusal(parent, place, f"contains {counted(len(strays), 'file')} of yours ({examples(strays)})")
    return files


def walk(top: Path) -> list[Path]:
    """Every file and link below `top`."""
    files = []
    for directory, directories, filenames in os.walk(top):
        links = [name for name in directories if (Path(directory) / name).is_symlink()]
        files += [Path(directory) / name for name in (*filenames, *links)]
    return files


def refusal(checkout: Checkout, place: Path, holds: str) -> LocalWorkError:
    """What is wrong with a place that `holds` something of the user's."""
    move = names.shell("mv", str(place), f"{place}.mine")
    what = f"{checkout.name}: {place} {holds}, where the next commit has something else."
    return LocalWorkError(what, "Move what you need elsewhere, such as with:", move)


@cache
def leaving(checkout: Checkout, commit: str) -> Mapping[str, str]:
    """The paths of the submodules that the commit does not have as the same ones, each with its commit in HEAD."""
    leaving: dict[str, str] = {}
    if not checkout.head or checkout.head == commit:
        return leaving
    difference = checkout.git("diff-tree", "-r", "-z", "--raw", "--no-renames", checkout.head, commit).split("\0")
    for entry, path in zip(difference[::2], difference[1::2], strict=False):
        old, new, oid, *_ = entry.lstrip(":").split()
        if old == submodules.GITLINK and new != old:
            leaving[path] = oid
    after = submodules.declared(checkout, commit)
    for path, submodule in submodules.declared(checkout, checkout.head).items():
        if path in after and after[path].name != submodule.name:
            leaving[path] = submodule.commit
    return leaving


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
    suspects = {}
    for path in filter(entries.__contains__, changed):
        mode, oid = entries[path]
        if mode.startswith("100") and (checkout.path / path).is_file():
            suspects[path] = oid
    alike = local_work.same_bytes(checkout, suspects)
    return {path: entry for path, entry in entries.items() if path not in changed or path in alike}
