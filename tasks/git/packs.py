"""Packs of git objects, shared between the checkouts and the cache of this user by hard links.

A pack is named for its content and never changes, so a link is as good as a copy, and no checkout depends on the cache
(gitrepository-layout(5)). git has no equivalent: its alternates break when what they name is deleted.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import processes
from ..files import write_atomic

_PARTS = (".promisor", ".pack", ".idx")  # the index last: from then on git sees the pack
_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_MOST_TIPS = 20
BLOCK = 1 << 20


def link_packs(source: Path, target: Path) -> list[Path]:
    """Put every pack of the objects directory `source` into `target` and return the new files. Raises OSError (EIO) for
    a damaged pack."""
    (target / "pack").mkdir(parents=True, exist_ok=True)
    new = []
    for index in (source / "pack").glob("pack-*.idx"):
        if (target / "pack" / index.name).exists():
            continue
        _check_pack(index)
        for file in filter(Path.exists, map(index.with_suffix, _PARTS)):
            place = target / "pack" / file.name
            if not place.exists():
                _link(file, place)
                new.append(place)
    return new


def packed_bytes(git_dir: Path) -> int:
    """The size of all packs of the repository, in bytes."""
    return sum(pack.stat().st_size for pack in git_dir.glob("objects/pack/pack-*.pack"))


def read_shallow(git_dir: Path) -> set[str]:
    """The commits whose parents were not fetched (gitrepository-layout(5), `shallow`)."""
    file = git_dir / "shallow"
    return set(file.read_text().split()) if file.exists() else set()


def add_shallow(git_dir: Path, commits: Iterable[str]) -> None:
    """Mark commits as having no parents in this repository: git itself marks only what it has fetched there."""
    before = read_shallow(git_dir)
    if after := set(commits) - before:
        write_atomic(git_dir / "shallow", "".join(f"{commit}\n" for commit in sorted(before | after)))


@dataclass(frozen=True)
class Known:
    """What a cache holds: commits that are `shallow` there, `tips` that were checked out (the last one last), and
    `complete` commits, whose full history is there."""

    shallow: tuple[str, ...] = ()
    tips: tuple[str, ...] = ()
    complete: tuple[str, ...] = ()


class Cache:
    """The packs of one remote, shared by all checkouts of this user. An unreadable or damaged cache is as good as none,
    and deleting it loses nothing. `directory` is None where no cache is wanted."""

    def __init__(self, directory: Path | None, url: str) -> None:
        digest = hashlib.sha256(url.encode()).hexdigest()[:16]
        self._directory = directory and directory / f"{url.rstrip('/').split('/')[-1].removesuffix('.git')}-{digest}"

    def take(self, git_dir: Path) -> tuple[Known, list[Path]]:
        """Link what the cache has into the repository `git_dir`; returns what that is, and the new files."""
        try:
            if self._directory and self._directory.is_dir():
                return self._read(), link_packs(self._directory / "objects", git_dir / "objects")
        except OSError as error:
            if error.errno == errno.EIO:
                self.discard()
        return Known(), []

    def give(self, git_dir: Path, waiting: Callable[[], object], *, tip: str = "", complete: str = "") -> None:
        """Keep the packs of `git_dir`, of which the commit `tip` is checked out or `complete` has its full history.
        `waiting` is called where another process writes to the cache at the moment."""
        if not self._directory:
            return
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with _locked(self._directory / "lock", waiting):
                link_packs(git_dir / "objects", self._directory / "objects")
                old = self._read()
                tips = [*(each for each in old.tips if each != tip), *filter(None, [tip])]
                histories = dict.fromkeys([*old.complete, *filter(None, [complete])])
                new = Known(
                    tuple(sorted({*old.shallow, *read_shallow(git_dir)})),
                    tuple(tips[-_MOST_TIPS:]),
                    tuple([*histories][-_MOST_TIPS:]),
                )
                if new != old:
                    write_atomic(self._directory / "known.json", json.dumps(asdict(new)))
        except OSError:
            return

    def discard(self) -> None:
        """Remove a cache that turned out to be damaged."""
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _read(self) -> Known:
        assert self._directory
        try:
            known = json.loads((self._directory / "known.json").read_text())
            return Known(**{key: tuple(filter(_OID.fullmatch, known[key])) for key in ("shallow", "tips", "complete")})
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return Known()


@contextmanager
def _locked(file: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Hold the lock `file` (flock(2)); `waiting` is called where that takes longer than a second."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        for attempt in itertools.count():
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if attempt == 10:  # noqa: PLR2004
                waiting()
            processes.wait(0.1)
        yield
    finally:
        os.close(descriptor)


def _check_pack(index: Path) -> None:
    """Raise OSError (EIO) where a pack and its index are not as git wrote them: both end with the checksum of what
    precedes it, and the index repeats that of the pack (gitformat-pack(5)). Takes 0.2 s for 100 MB."""
    pack = index.with_suffix(".pack")
    if not pack.exists() or _trailer(pack)[20:] != _trailer(index)[:20]:
        raise OSError(errno.EIO, "a damaged pack", str(pack))


def _trailer(file: Path) -> bytes:
    """The last 40 bytes of a file, of which the last 20 are the right checksum; else nothing."""
    digest, left = hashlib.sha1(usedforsecurity=False), file.stat().st_size - 20
    with file.open("rb") as stream:
        while left > 0 and (block := stream.read(min(left, BLOCK))):
            digest.update(block)
            left -= len(block)
        stored = stream.read()
        stream.seek(max(0, file.stat().st_size - 40))
        return stream.read() if digest.digest() == stored else b""


def _link(file: Path, place: Path) -> None:
    try:
        place.hardlink_to(file)
    except FileExistsError:
        return
    except OSError:  # another file system, or one without links
        draft = place.with_name(f"{place.name}.{os.getpid()}.new")
        try:
            shutil.copyfile(file, draft)
            draft.replace(place)
        finally:
            draft.unlink(missing_ok=True)
