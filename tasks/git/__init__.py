"""Running git: commands, what their messages mean, transfers with retries, revisions, submodules, packs."""

from .command import check_version, keep_open, run
from .fetch import (
    Entry,
    LocalRepository,
    close_history,
    fetch_commit,
    fetch_history,
    fetch_objects,
    fetch_tags,
    initialise,
    is_full,
    local_objects,
    present_commits,
    read_blob,
    read_target,
    read_tree,
)
from .messages import DiskFullError, GitError, NoObjectError, OverwriteError, RefusedError, overwrite_error
from .packs import Cache, packed_bytes, read_shallow
from .repository import Refs, RepositoryRefs, read_refs
from .revisions import Advertised, Target, conflicting, highest, latest, nearest, newest, release, resolve
from .submodules import (
    GITLINK,
    Submodule,
    head_of,
    linked_git_dir,
    move_aside,
    read_submodules,
    submodule_git_dir,
    untracked_files,
)
from .transfer import transfer

__all__ = [
    "GITLINK", "Advertised", "Cache", "DiskFullError", "Entry", "GitError", "LocalRepository", "NoObjectError",
    "OverwriteError", "Refs", "RefusedError", "RepositoryRefs", "Submodule", "Target", "check_version",
    "close_history", "conflicting", "fetch_commit", "fetch_history", "fetch_objects", "fetch_tags", "head_of",
    "highest", "initialise", "is_full", "keep_open", "latest", "linked_git_dir", "local_objects", "move_aside",
    "nearest", "newest", "overwrite_error", "packed_bytes", "present_commits", "read_blob", "read_refs",
    "read_shallow", "read_submodules", "read_target", "read_tree", "release", "resolve", "run", "submodule_git_dir",
    "transfer", "untracked_files",
]  # fmt: skip
