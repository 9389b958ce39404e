"""One checkout: cloned, updated, protected, recovered after an interruption."""

from .clone import clone
from .directory import alone
from .local_work import changed_files, unreproducible
from .session import Session
from .state import describe, find, is_users_branch, require, submodule_faults
from .update import update

__all__ = [
    "Session", "alone", "changed_files", "clone", "describe", "find", "is_users_branch", "require", "submodule_faults",
    "unreproducible", "update",
]  # fmt: skip
