"""Checks of checkouts, packages, CUDA and trace data, offline and without changing anything; and their result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checks import verify

__all__ = ["verify"]


def __getattr__(name: str) -> Any:
    """Imported when it is asked for (PEP 562): the tasks import this package before anything is run."""
    if name == "verify":
        from .checks import verify

        return verify
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
