"""One checkout: cloned, updated, downloaded, switched to another commit, protected, recovered after an interruption."""

from .clone import clone, plan_clone
from .lfs import bring_lfs, check_lfs
from .local_work import changed_paths, find_checkout
from .recovery import remove_stale_files
from .session import Session, remote_files
from .space import check_writable, space_hint
from .state import Checkout, read_checkout
from .update import gitlinks, plan_update, update

__all__ = [
    "Checkout", "Session", "bring_lfs", "changed_paths", "check_lfs", "check_writable", "clone", "find_checkout",
    "gitlinks", "plan_clone", "plan_update", "read_checkout", "remote_files", "remove_stale_files", "space_hint",
    "update",
]  # fmt: skip
