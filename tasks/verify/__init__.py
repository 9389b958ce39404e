"""Checks of checkouts, packages, CUDA and trace data, offline and without changing anything; and their schemas."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checks import verify
    from .kernels import run_kernels

__all__ = ["run_kernels", "verify"]


def __getattr__(name: str) -> Any:
    """Import a name at its first use (PEP 562), since `invoke --list` imports this package, too."""
    if name in __all__:
        return getattr(import_module(f".{'checks' if name == 'verify' else 'kernels'}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
