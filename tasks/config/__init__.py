"""The configuration tree `sources`: defaults, known repositories, and how both become `Settings`.

`DEFAULTS` loads nothing else, since `invoke --list` waits for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .defaults import DEFAULTS

if TYPE_CHECKING:
    from ..models import Settings

__all__ = ["DEFAULTS", "load"]


def load(config: Any, root: Path) -> Settings:
    """The settings that Invoke's configuration holds under `sources`, over the defaults.

    `root` is the directory that relative paths start from. Raises UsageError, which names the key and the file or
    environment variable that holds the wrong value.
    """
    from .settings import read_settings

    return read_settings(config, root)
