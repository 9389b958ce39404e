"""The configuration tree `sources`: defaults, known repositories, and how both become `Settings`.

`DEFAULTS` loads nothing else, since `invoke --list` waits for it; `load` reads Invoke's configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .defaults import DEFAULTS

if TYPE_CHECKING:
    from .settings import load

__all__ = ["DEFAULTS", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from .settings import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
