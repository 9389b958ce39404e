"""Packs of git objects, shared between the checkouts and the cache of this user by hard links.

A pack is named for its content and never changes, so a link is as good as a copy, and no checkout depends on the cache
(gitrepository-layout(5)). git has no equivalent: its alternates break when what they name is deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_PARTS = (".promisor", ".rev", ".pack", ".idx")  # the index last: from then on git sees the pack
_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_MOST_TIPS = 20


def link_packs(source: Path, target: Path) -> list[Path]:
    """Put every sound pack of the objects directory `source` into `target` and return the new files."""
    (target / "pack").mkdir(parents=True, exist_ok=True)
    new = []
    for index in (source / "pack").glob("pack-*.idx"):
        if (target / "pack" / index.name).exists() or not _is_sound(index):
            continue
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


def write_atomic(file: Path, text: str) -> None:
    """Replace the content of `file`, so that it is the old or the new one whenever the machine stops."""
    draft = file.with_name(f"{file.name}.{os.getpid()}.new")
    try:
        with draft.open("w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        if file.exists():
            shutil.copymode(file, draft)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


@dataclass(frozen=True)
class Known:
    """What a cache holds: commits that are `shallow` there, `tips` that were checked out (the last one last), and
    `complete` commits, whose whole history is there."""

    shallow: tuple[str, ...] = ()
    tips: tuple[str, ...] = ()
    complete: tuple[str, ...] = ()


class Cache:
    """The packs of one remote, shared by all checkouts of this user. An unreadable or damaged cache is as good as none,
    and deleting it loses nothing. `directory` is None where no cache is wanted."""

    def __init__(self, directory: Path | None, url: str) -> None:
        digest = hashlib.sha256(url.encode()).hexdigest()[:16]
        self._directory = directory and directory / f"{url.rstrip('/').split('/')[-1].removesuffix('.git')}-{digest}"

    def take(self, git_dir: Path, *, full: bool) -> tuple[Known, list[Path]]:
        """Link what the cache has into the repository `git_dir`; returns what that is, and the new files."""
        try:
            if not self._directory or not self._directory.is_dir():
                return Known(), []
            known = self._read()
            new = link_packs(self._directory / "objects", git_dir / "objects")
        except OSError:
            return Known(), []
        if not full:
            add_shallow(git_dir, known.shallow)
        return known, new

    def give(self, git_dir: Path, waiting: Callable[[], object], *, tip: str = "", complete: str = "") -> None:
        """Keep the packs of `git_dir`, of which the commit `tip` is checked out or `complete` has its whole history.
        `waiting` is called where another process writes to the cache at the moment."""
        from filelock import FileLock, Timeout

        if not self._directory:
            return
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._directory / "lock")
            try:
                held = lock.acquire(timeout=0)
            except Timeout:
                waiting()
                held = lock.acquire()
            with held:
                link_packs(git_dir / "objects", self._directory / "objects")
                old = self._read()
                new = Known(
                    tuple(sorted({*old.shallow, *read_shallow(git_dir)})),
                    tuple(dict.fromkeys([*(each for each in old.tips if each != tip), *filter(None, [tip])]))[
                        -_MOST_TIPS:
                    ],
                    tuple(dict.fromkeys([*old.complete, *filter(None, [complete])]))[-_MOST_TIPS:],
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
        except (OSError, ValueError, KeyError, TypeError):
            return Known()


def _is_sound(index: Path) -> bool:
    """Whether a pack and its index exist, begin as such and belong together: the index ends with the pack's checksum
    and its own (gitformat-pack(5))."""
    with suppress(OSError), index.open("rb") as idx, index.with_suffix(".pack").open("rb") as pack:
        magic = idx.read(4), pack.read(4)
        idx.seek(-40, os.SEEK_END)
        pack.seek(-20, os.SEEK_END)
        return magic == (b"\xfftOc", b"PACK") and idx.read(20) == pack.read(20)
    return False


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
