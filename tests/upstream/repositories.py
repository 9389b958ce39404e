"""Everything that the small upstreams consist of, built into one folder."""

from __future__ import annotations

from pathlib import Path

from . import flashinfer, sglang, workshop
from .store import PATHS, Upstream


def build(folder: Path) -> Upstream:
    """Build all repositories into a new folder, always with the same commit ids."""
    sglang.build(folder / f"{PATHS['sglang']}.git")
    flashinfer.build(folder)
    workshop.build(folder)
    return Upstream(folder)
