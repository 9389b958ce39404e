"""What a checkout is now, read from its files and refs without asking a remote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..git.command import run
from ..git.config import read_config
from ..models import Repository
from ..packages.source import Source
from .record import Record, read_record


@dataclass(frozen=True)
class Checkout:
    """The checkout of `repository` at the commit `head`; `branch` is empty on a detached HEAD. `refs` are its branches,
    remote-tracking branches and tags, by their full names: (object id, commit id)."""

    repository: Repository
    head: str
    branch: str
    refs: Mapping[str, tuple[str, str]]

    @cached_property
    def url(self) -> str:
        """Where its remote is; empty where it has none."""
        return read_config(self.git_dir).get("remote.origin.url", ("",))[0]

    @cached_property
    def tags(self) -> dict[str, tuple[str, str]]:
        """The local tags, by name."""
        return self.named("refs/tags/")

    def named(self, folder: str) -> dict[str, tuple[str, str]]:
        """The refs in `folder`, by their names in it."""
        return {name.removeprefix(folder): oids for name, oids in self.refs.items() if name.startswith(folder)}

    @property
    def path(self) -> Path:
        return self.repository.path

    @property
    def git_dir(self) -> Path:
        return self.repository.path / ".git"

    @property
    def record(self) -> Record:
        return read_record(self.git_dir)

    @cached_property
    def source(self) -> Source:
        """What the files say about the package."""
        return Source(self.repository, self.head, {tag: commit for tag, (_, commit) in self.tags.items()})


def read_checkout(repository: Repository) -> Checkout:
    """The state of the checkout at the repository's path, which has to be one. Raises GitError if git cannot tell."""
    form = "%(refname)%00%(objectname)%00%(*objectname)"
    told = run(repository.path, "for-each-ref", f"--format={form}", "refs/heads", "refs/tags", "refs/remotes/origin")
    refs = {name: (oid, peeled or oid) for name, oid, peeled in (line.split("\0") for line in told.splitlines())}
    head = (repository.path / ".git" / "HEAD").read_text().strip()
    branch = head.removeprefix("ref: refs/heads/") if head.startswith("ref: refs/heads/") else ""
    commit = refs.get(f"refs/heads/{branch}", ("", ""))[0] if head.startswith("ref: ") else head
    return Checkout(repository, commit, branch, refs)
