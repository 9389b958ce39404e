"""Whether there is room on the disk for what is about to come."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import DiskError
from ..git import DiskFullError
from ..models import Settings

MB = 1_000_000


@dataclass(frozen=True)
class Cost:
    """What a clone costs in bytes: slim on disk; with `--full` moved and on disk."""

    slim_disk: int
    full_moved: int
    full_disk: int


_COSTS: Mapping[str, Cost] = {  # measured, but for `--full` of SGLang, which is an estimate
    "sglang": Cost(120 * MB, 300 * MB, 500 * MB),
    "flashinfer": Cost(160 * MB, 212 * MB, 550 * MB),
}


def cost(name: str) -> Cost:
    """The cost of a clone of that repository; an estimate for one that was never measured."""
    return _COSTS.get(name, Cost(100 * MB, 100 * MB, 300 * MB))


def check_space(settings: Settings, needed: int, who: str) -> None:
    """Raise DiskFullError where the disk of the sources directory has less than `needed` bytes free."""
    directory = settings.directory
    free = shutil.disk_usage(next(each for each in (directory, *directory.parents) if each.exists())).free
    if free < needed:
        what = f"{who}: about {in_words(needed)} are needed in {directory}, {in_words(free)} are free."
        raise DiskFullError(what, space_hint(settings))


def space_hint(settings: Settings) -> str:
    """How to make room."""
    cache = settings.cache
    if not cache or not cache.is_dir():
        return "Free some space or set another sources.directory, then run the same command again."
    size = sum(file.stat().st_blocks * 512 for file in cache.rglob("*") if file.is_file())
    freed = f"the cache {cache} holds {in_words(size)} and can be deleted"
    return f"Free some space ({freed}) or set another sources.directory, then run the same command again."


def check_writable(directory: Path) -> None:
    """Create `directory` if need be. Raises DiskError where that, or writing into it, is not possible."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        hint = "Set another directory: INVOKE_SOURCES_DIRECTORY=/path invoke …"
        raise DiskError(f"{directory} cannot be written: {error.strerror}.", hint) from None


def in_words(size: int) -> str:
    """The size in bytes as people write it: 62 MB, 1.4 GB (powers of ten)."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}" if size < 10 * factor else f"{size / factor:.0f} {unit}"
    return f"{size} bytes"
