"""Running git: commands, what their messages mean, repositories, refs, submodules, and bringing objects."""

from .repository import Checkout, Record

__all__ = ["Checkout", "Record"]
