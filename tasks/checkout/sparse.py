"""Which folders of a submodule are checked out (git-sparse-checkout(1), cone mode)."""

from __future__ import annotations

import re

from ..git.command import run
from ..git.config import GitConfig, write_config
from ..git.fetch import Remote
from ..git.packs import write_atomic
from .paths import folders_of

_ON = {"core.sparsecheckout": "true", "core.sparsecheckoutcone": "true"}


def set_sparse(remote: Remote, folders: tuple[str, ...] | None, known: GitConfig) -> None:
    """Have `folders` checked out with the next commit, or all where they are None. `known` is the configuration.

    git's own command would first bring and write the files of the commit that is about to be left.
    """
    file = remote.git_dir / "info/sparse-checkout"
    if folders is None and not _is_sparse(remote):
        return
    above = folders_of(folders or ())
    lines = ["/*"] if folders is None else ["/*", "!/*/"]
    for place in sorted({*above, *(folders or ())}):
        quoted = re.sub(r"([\\*?\[])", r"\\\1", place)
        lines += [f"/{quoted}/", f"!/{quoted}/*/"] if place in above else [f"/{quoted}/"]
    text = "".join(f"{line}\n" for line in lines)
    if not file.exists() or file.read_text(encoding="utf-8", errors="surrogateescape") != text:
        file.parent.mkdir(exist_ok=True)
        write_atomic(file, text)
    write_config(remote.git_dir, known, _ON)
    if (remote.git_dir / "config.worktree").exists():  # it counts first, and git makes it
        for key, value in _ON.items():
            run(remote.path, "config", "--worktree", key, value)


def end_sparse(remote: Remote) -> None:
    """Leave nothing sparse about a checkout that holds all its files."""
    if _is_sparse(remote):
        run(remote.path, "sparse-checkout", "disable")


def _is_sparse(remote: Remote) -> bool:
    here = (remote.git_dir / "info/sparse-checkout").exists()
    return here and run(remote.path, "config", "core.sparseCheckout", check=False) == "true"
