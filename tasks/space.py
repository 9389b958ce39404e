"""Whether there is room on a disk for what is about to come."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .errors import DiskError


def check_space(folder: Path, needed: int, what: str, removable: str) -> None:
    """Raise DiskError where the file system that `folder` is (or will be) on has less than `needed` bytes free.

    `what` needs the room; `removable` names what could be deleted to make some.
    """
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise DiskError(
            f"{what}: {in_words(needed)} are needed in {folder}, {in_words(free)} are free there.",
            f"Make room ({removable}), or set another folder.",
        )


def check_writable(folder: Path) -> None:
    """Make `folder` if need be; DiskError where that or writing into it is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise DiskError(f"{folder} cannot be written: {error.strerror}.",
                        "Set another folder: INVOKE_SOURCES_DIRECTORY=/path invoke …") from None  # fmt: skip


def in_words(size: int) -> str:
    """The size in bytes as people write it: 62 MB, 1.4 GB (powers of ten)."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}" if size < 10 * factor else f"{size / factor:.0f} {unit}"
    return f"{size} bytes"
