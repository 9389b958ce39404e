"""Git LFS: which files of a checkout are pointers (the LFS specification, docs/spec.md), and bringing what they name.

A checkout starts with pointers, whatever git-lfs is configured globally: git runs with GIT_LFS_SKIP_SMUDGE.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from ..errors import SourcesError, counted
from ..git import run, transfer
from ..models import Check, Network, Repository, Status

LONGEST_POINTER = 1024  # bytes, by the specification
_POINTER = re.compile(rb"version https?://\S+/spec/v1\n(?:.*\n)*?oid sha256:([0-9a-f]{64})\nsize ([0-9]{1,18})\n")
_ALL = ("-c", "lfs.fetchinclude=", "-c", "lfs.fetchexclude=", "-c", "lfs.forceprogress=true")

_INSTALL = {"brew": "brew install git-lfs", "apt-get": "sudo apt-get install git-lfs"}


@dataclass(frozen=True)
class LfsFiles:
    """The files of a checkout that Git LFS tracks: `total` of them, of which `pointers` are pointers; what these name
    has `size` bytes and is still to be downloaded for `missing` bytes."""

    total: int
    pointers: int
    size: int
    missing: int


def read_lfs(path: Path) -> LfsFiles:
    """Count the tracked files of the checkout at `path`, offline and without git-lfs. Raises GitError."""
    names = run(path, "ls-files", "-z", "--", ":(attr:filter=lfs)").split("\0")
    files = [path / name for name in filter(None, names)]
    found = list(_pointers(files))
    objects = path / ".git/lfs/objects"
    missing = {oid: size for oid, size in found if not (objects / oid[:2] / oid[2:4] / oid).exists()}
    return LfsFiles(len(files), len(found), sum(size for _, size in found), sum(missing.values()))


def bring_lfs(repository: Repository, network: Network) -> int:
    """Replace all pointers of the checkout by their files with git-lfs, and return the bytes that were downloaded.

    Where none is a pointer nothing is started. Raises SourcesError where git-lfs is missing, and what `transfer` does.
    """
    path, who = repository.path, repository.name
    lfs = read_lfs(path)
    if not lfs.pointers:
        return 0
    if not shutil.which("git-lfs"):
        hint = "It is the package git-lfs on Debian and Ubuntu (apt-get) and on macOS (brew)."
        command = next((words for tool, words in _INSTALL.items() if shutil.which(tool)), "")
        raise SourcesError(f"{who}: `lfs: true` needs git-lfs, which was not found on the PATH.", hint, command)
    network.reporter.event(who, f"downloading {counted(lfs.pointers, 'file')} with Git LFS ({decimal(lfs.missing)})")
    run(path, "lfs", "install", "--local", "--skip-repo")  # else `git lfs pull` does nothing
    pull = "alias.pull-lfs=!git lfs pull >&2"  # where progress is read
    words = (*_ALL, "-c", pull, "pull-lfs")
    transfer(path, *words, url=repository.url, who=who, doing="downloading LFS files", network=network)
    return lfs.missing


def check_lfs(repository: Repository) -> Check | None:
    """What of the checkout's LFS files is there; None where it has none. Pointers fail where `lfs: true` is set."""
    lfs = read_lfs(repository.path)
    if not lfs.total:
        return None
    detail, hint, command = f"files: {lfs.total - lfs.pointers}, pointers: {lfs.pointers}", "", ""
    if lfs.pointers:
        detail += f" (to {decimal(lfs.size)}, of which {decimal(lfs.missing)} are not downloaded)"
        hint = "Set `lfs: true` for it and update, or let git-lfs download them once:"
        git = f"git -C {shlex.quote(str(repository.path))} lfs"
        command = f"{git} install --local --skip-repo && {git} pull"
    status: Status = "fail" if repository.lfs and lfs.pointers else "pass"
    return Check(f"{repository.name}: Git LFS", status, detail, hint, command)


def _pointers(files: Iterable[Path]) -> Iterator[tuple[str, int]]:
    """The object id and size that each file names that is a pointer."""
    for file in files:
        try:
            if file.is_symlink() or file.stat().st_size >= LONGEST_POINTER:
                continue
            found = _POINTER.match(file.read_bytes())
        except OSError:  # deleted, or left out by a sparse checkout
            continue
        if found:
            yield found[1].decode(), int(found[2])
