"""One checkout: cloned, updated, downloaded, switched to another commit, protected, recovered after an interruption."""

from .clone import clone
from .describe import describe
from .lfs import bring_lfs, check_lfs
from .local_work import read_changes, unreproducible
from .lock import exclusive
from .session import Session, commit_time, remote_files, tag_times
from .space import space_hint
from .state import Checkout, find_checkout, require_checkout
from .update import gitlinks, update

__all__ = [
    "Checkout", "Session", "bring_lfs", "check_lfs", "clone", "commit_time", "describe", "exclusive", "find_checkout",
    "gitlinks", "read_changes", "remote_files", "require_checkout", "space_hint", "tag_times", "unreproducible",
    "update",
]  # fmt: skip
