"""Whether there is room on a disk for what is about to come."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..errors import DiskError
from ..models import Settings

NEXT_TO_NOTHING = 1_000_000  # bytes


def check_space(folder: Path, needed: int, what: str, removable: str) -> None:
    """Raise DiskError where the file system that `folder` is (or will be) on has less than `needed` bytes free.

    `what` needs the room; `removable` names what could be deleted to make some.
    """
    if _free(folder) < needed:
        raise DiskFullError(f"{what}: too little space.").counted(folder, needed, removable)


def removable(settings: Settings) -> str:
    """What of ours could be deleted."""
    if not settings.cache or not settings.cache.is_dir():
        return ""
    size = sum(file.stat().st_blocks * 512 for file in settings.cache.rglob("*") if file.is_file())
    return f"the cache {settings.cache} holds {in_words(size)}, and nothing is lost with it"


class DiskFullError(DiskError):
    """No space is left for something."""

    def __init__(self, what: str, fix: str = "Free some space and run the same command again.") -> None:
        super().__init__(what, fix)

    def counted(self, folder: Path, needed: int, removable: str) -> DiskFullError:
        """The same, saying how much of `needed` bytes is free in `folder`, and what is `removable` to make room."""
        what = f"{self.what} {in_words(needed)} are needed in {folder}, {in_words(_free(folder))} are free there."
        hint = f" ({removable})" if removable else ""
        return DiskFullError(what, f"Make room{hint} or set another folder, then run the same command again.")


def is_full(folder: Path) -> bool:
    """Whether next to nothing is free on the file system that `folder` is on."""
    return _free(folder) < NEXT_TO_NOTHING


def _free(folder: Path) -> int:
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(place).free


def check_writable(folder: Path) -> None:
    """Make `folder` if need be; DiskError where that or writing into it is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise DiskError(
            f"{folder} cannot be written: {error.strerror}.",
            "Set another folder: INVOKE_SOURCES_DIRECTORY=/path invoke …",
        ) from None


def in_words(size: int) -> str:
    """The size in bytes as people write it: 62 MB, 1.4 GB (powers of ten)."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}" if size < 10 * factor else f"{size / factor:.0f} {unit}"
    return f"{size} bytes"
