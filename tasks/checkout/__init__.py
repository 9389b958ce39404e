"""One checkout: cloned, updated, downloaded, switched to another commit, protected, recovered after an interruption."""

from .clone import clone, plan_clone
from .lfs import bring_lfs, check_lfs
from .local_work import changed_paths, find_checkout, require_checkout, unreproducible
from .lock import exclusive
from .session import Session, commit_time, remote_files, tag_times
from .space import space_hint
from .state import Checkout, read_checkout
from .update import gitlinks, plan_update, update

__all__ = [
    "Checkout", "Session", "bring_lfs", "changed_paths", "check_lfs", "clone", "commit_time", "exclusive",
    "find_checkout", "gitlinks", "plan_clone", "plan_update", "read_checkout", "remote_files", "require_checkout",
    "space_hint", "tag_times", "unreproducible", "update",
]  # fmt: skip
