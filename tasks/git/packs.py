"""Git objects on this machine: packs shared by hard links between checkouts and the cache of this user.

A pack is named for its content and never changes, so a link is as good as a copy, and a checkout stays whole when the
cache is deleted (gitrepository-layout(5)).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PARTS = (".promisor", ".rev", ".pack", ".idx")  # the index last: git sees a pack from then on


def link_packs(source: Path, target: Path) -> None:
    """Put every pack of the objects folder `source` into the objects folder `target`, by links where possible."""
    (target / "pack").mkdir(parents=True, exist_ok=True)
    for index in (source / "pack").glob("pack-*.idx"):
        for part in _PARTS:
            file = index.with_suffix(part)
            place = target / "pack" / file.name
            if file.exists() and not place.exists():
                _link(file, place)


def moved_bytes(git_dir: Path) -> int:
    """The size of all packs in the repository, in bytes."""
    return sum(pack.stat().st_size for pack in git_dir.glob("objects/pack/pack-*.pack"))


def read_shallow(git_dir: Path) -> set[str]:
    """The commits whose parents were not fetched (gitrepository-layout(5), `shallow`)."""
    file = git_dir / "shallow"
    return set(file.read_text().split()) if file.exists() else set()


def add_shallow(git_dir: Path, commits: Iterable[str]) -> None:
    """Mark `commits` as having no parents here, in one atomic step."""
    before = read_shallow(git_dir)
    if after := set(commits) - before:
        write_atomic(git_dir / "shallow", "".join(f"{commit}\n" for commit in sorted(before | after)))


def write_atomic(file: Path, text: str, drafts: Path | None = None) -> None:
    """Replace the content of `file` so that it is the old or the new one whenever the machine stops.

    The draft lies in `drafts` (default: beside the file), where one that a killed process left is nobody's trouble.
    """
    draft = (drafts or file.parent) / f"{file.name}.{os.getpid()}.new"
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
class Cached:
    """What the cache knows of one remote: `shallow` commits, `tips` among them that were checked out, the last one
    last, and `full`, the refs whose whole history it holds (ref name to object id)."""

    shallow: tuple[str, ...] = ()
    tips: tuple[str, ...] = ()
    full: tuple[tuple[str, str], ...] = ()


class Cache:
    """The packs of one remote, shared by every checkout of this user on this machine. Deleting it loses nothing."""

    def __init__(self, folder: Path | None, url: str) -> None:
        digest = hashlib.sha256(url.encode()).hexdigest()[:16]
        self._folder = folder and folder / f"{url.rstrip('/').split('/')[-1].removesuffix('.git')}-{digest}"

    def take(self, git_dir: Path, *, full: bool = False) -> Cached:
        """Link what is there into the repository `git_dir` and return what it is. Whatever is broken is not there."""
        if not self._folder or not self._folder.is_dir():
            return Cached()
        cached = self._read()
        link_packs(self._folder / "objects", git_dir / "objects")
        if not full:
            add_shallow(git_dir, cached.shallow)
        return cached

    def give(self, git_dir: Path, tip: str = "", full: Iterable[tuple[str, str]] = ()) -> None:
        """Keep the packs of `git_dir`, whose commit `tip` is checked out, or whose refs `full` have their whole
        history. A cache that cannot be written is as good as none."""
        from filelock import FileLock

        if not self._folder:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / "lock"):
                for left in self._folder.rglob("*.new"):  # of a process that was killed
                    left.unlink()
                link_packs(git_dir / "objects", self._folder / "objects")
                old = self._read()
                new = Cached(
                    tuple(sorted({*old.shallow, *read_shallow(git_dir)})),
                    tuple(dict.fromkeys([*(t for t in old.tips if t != tip), *([tip] if tip else [])]))[-20:],
                    tuple(sorted({**dict(old.full), **dict(full)}.items())),
                )
                if new != old:
                    write_atomic(self._folder / "known.json", json.dumps(vars(new)))
        except OSError:
            return

    @contextmanager
    def keeping(self, git_dir: Path) -> Iterator[None]:
        """Keep what has come into `git_dir` where the rest does not come."""
        try:
            yield
        except BaseException:
            self.give(git_dir)
            raise

    def _read(self) -> Cached:
        assert self._folder
        try:
            known = json.loads((self._folder / "known.json").read_text())
            return Cached(tuple(known["shallow"]), tuple(known["tips"]), tuple((r, o) for r, o in known["full"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Cached()


def _link(file: Path, place: Path) -> None:
    try:
        place.hardlink_to(file)
    except FileExistsError:
        pass
    except OSError:  # another file system, or one without links
        draft = place.with_name(f"{place.name}.{os.getpid()}.new")
        try:
            shutil.copyfile(file, draft)
            draft.replace(place)
        finally:
            draft.unlink(missing_ok=True)
