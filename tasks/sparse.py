"""Which folders of a submodule are checked out (git-sparse-checkout(1), cone mode)."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from .fetch import Remote
from .git import run
from .objects import write_atomic


def set_sparse(remote: Remote, folders: tuple[str, ...] | None) -> None:
    """Have `folders` checked out with the next commit, or all where they are None.

    git's own command would first bring and write the files of the commit that is about to be left.
    """
    if read_sparse(remote) == (folders and sorted(folders)):
        return
    parents = {str(parent) for folder in folders or () for parent in PurePosixPath(folder).parents} - {"."}
    lines = ["/*"] if folders is None else ["/*", "!/*/"]
    for place in sorted({*parents, *(folders or ())}):
        quoted = re.sub(r"([\\*?\[])", r"\\\1", place)
        lines += [f"/{quoted}/", f"!/{quoted}/*/"] if place in parents else [f"/{quoted}/"]
    (remote.git_dir / "info").mkdir(exist_ok=True)
    write_atomic(remote.git_dir / "info/sparse-checkout", "".join(f"{line}\n" for line in lines))
    for key in ("core.sparseCheckoutCone", "core.sparseCheckout"):
        run(remote.path, "config", "--worktree", key, "true")


def end_sparse(remote: Remote) -> None:
    """Leave nothing sparse about a checkout that holds all its files."""
    if read_sparse(remote) is not None:
        run(remote.path, "sparse-checkout", "disable")


def read_sparse(remote: Remote) -> list[str] | None:
    """The folders that are checked out, None for all."""
    if not (remote.git_dir / "info/sparse-checkout").exists():
        return None
    if run(remote.path, "config", "core.sparseCheckout", check=False) != "true":
        return None
    return sorted(run(remote.path, "sparse-checkout", "list").splitlines())
