"""What a repository is now: HEAD, branch, remote and refs, as git reads them. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..names import HEADS, TAGS
from .command import run


@dataclass(frozen=True)
class RepositoryRefs:
    """`head` is the commit that is checked out (empty: none yet), `branch` the branch HEAD is on (empty: detached, or
    on a ref that is no branch), `url` that of the remote `origin` (empty: there is none)."""

    path: Path
    head: str
    branch: str
    url: str

    @cached_property
    def refs(self) -> Mapping[str, tuple[str, str]]:
        """Local branches and tags by their full names: object id, and the id of the commit that it leads to."""
        form = "%(refname)%00%(objectname)%00%(*objectname)"
        lines = run(self.path, "for-each-ref", f"--format={form}", HEADS, TAGS).splitlines()
        return {name: (oid, peeled or oid) for name, oid, peeled in (line.split("\0") for line in lines)}

    @property
    def branches(self) -> dict[str, str]:
        """Local branches, name to commit id."""
        return self._named(HEADS)

    @property
    def tags(self) -> dict[str, str]:
        """Tags, name to commit id."""
        return self._named(TAGS)

    def _named(self, namespace: str) -> dict[str, str]:
        return {ref.removeprefix(namespace): oid for ref, (_, oid) in self.refs.items() if ref.startswith(namespace)}


def read_refs(path: Path) -> RepositoryRefs:
    """The refs of the repository whose working tree is `path`."""
    url = run(path, "config", "--local", "remote.origin.url", check=False)
    head, _, name = run(path, "rev-parse", "HEAD", "--symbolic-full-name", "HEAD", check=False).partition("\n")
    return RepositoryRefs(path, head, name.removeprefix(HEADS) if name.startswith(HEADS) else "", url)
