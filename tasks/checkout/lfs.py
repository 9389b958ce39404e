"""Git LFS: which files of a checkout are pointers (the LFS specification, docs/spec.md), and bringing what they name.

A checkout starts with pointers, whatever git-lfs is configured globally: git runs with GIT_LFS_SKIP_SMUDGE.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .. import processes
from ..errors import NetworkError, SourcesError
from ..git.command import run
from ..models import Check, Network, Repository, Status
from ..names import redact

LONGEST_POINTER = 1024  # bytes, by the specification
_POINTER = re.compile(rb"version https?://\S+/spec/v1\n(?:.*\n)*?oid sha256:([0-9a-f]{64})\nsize ([0-9]{1,18})\n")
_PROGRESS = re.compile(r"\b(\d+)% \(\d+/\d+\)")


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
    """Replace all pointers of the checkout by their files with git-lfs, and return the bytes that this moved.

    Where none is a pointer nothing is started. Raises SourcesError where git-lfs is missing, NetworkError.
    """
    path, who = repository.path, repository.name
    lfs = read_lfs(path)
    if not lfs.pointers:
        return 0
    if not shutil.which("git-lfs"):
        hint = "It is the package git-lfs on Debian and Ubuntu (apt-get) and on macOS (brew)."
        install = "brew install git-lfs" if sys.platform == "darwin" else "sudo apt-get install git-lfs"
        raise SourcesError(f"{who}: `lfs: true` needs git-lfs, which was not found on the PATH.", hint, install)
    network.reporter.event(who, f"downloading {lfs.pointers} files with Git LFS ({lfs.missing / 1e6:.1f} MB)")
    stall, attempts = math.ceil(network.stall), network.attempts
    settings = {"activitytimeout": stall, "dialtimeout": stall, "tlstimeout": stall, "transfer.maxretries": attempts,
              "fetchinclude": "", "fetchexclude": ""}  # fmt: skip
    options = [word for key, value in settings.items() for word in ("-c", f"lfs.{key}={value}")]
    environment = {**os.environ, "GIT_LFS_FORCE_PROGRESS": "1", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "false"}

    def on_errors(block: bytes) -> None:
        if percent := _PROGRESS.findall(block.decode(errors="replace")):
            network.reporter.progress(who, "downloading LFS files", int(percent[-1]) / 100, 0, 0.0)

    # `git lfs pull` does nothing where the filter is not configured, and writes its progress to standard output.
    pull = ["sh", "-c", 'exec git "$@" >&2', "git", *options, "lfs", "pull"]
    for argv in (["git", "lfs", "install", "--local", "--skip-repo"], pull):
        done = processes.run(argv, cwd=path, env=environment, silence=stall * (attempts + 1), on_errors=on_errors)
        if done.status:
            lines = re.split(r"[\r\n]+", redact(os.fsdecode(done.output + done.errors)).strip())
            reason = next((line for line in lines if not _PROGRESS.search(line)), "no answer")
            raise NetworkError(f"{who}: git-lfs could not download from {redact(repository.url)}: {reason[:300]}")
    return lfs.missing


def check_lfs(repository: Repository) -> Check | None:
    """What of the checkout's LFS files is there; None where it has none. Pointers fail where `lfs: true` is set."""
    lfs = read_lfs(repository.path)
    if not lfs.total:
        return None
    detail = f"{lfs.total - lfs.pointers} of {lfs.total} files"
    if lfs.pointers:
        detail += f", {lfs.pointers} pointers to {lfs.size / 1e6:.1f} MB ({lfs.missing / 1e6:.1f} MB to download)"
    hint = "Set `lfs: true` for it and update, or let git-lfs download them once." if lfs.pointers else ""
    git = f"git -C {shlex.quote(str(repository.path))} lfs"
    command = f"{git} install --local --skip-repo && {git} pull" if lfs.pointers else ""
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
