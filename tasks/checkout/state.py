"""What a checkout is now, read from its files and refs without asking a remote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..git.command import run
from ..git.config import read_config
from ..git.revisions import highest, release
from ..models import Repository
from ..packages.layouts import Layout, find_layout
from ..packages.metadata import Metadata, read_metadata
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
    def layout(self) -> Layout:
        """Raises SourcesError where the files have no layout that is known."""
        return find_layout(self.repository.name, lambda path: (self.path / path).exists())

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The metadata files (path to content)."""
        places = {name: self.path / name for name in self.layout.metadata_files}
        return {name: place.read_bytes() for name, place in places.items() if place.is_file()}

    @cached_property
    def metadata(self) -> Metadata:
        """Raises SourcesError where a file cannot be read as what it is."""
        return read_metadata(self.files, self.layout.folder)

    @property
    def version(self) -> str:
        """What the files say; where they leave it to the tags (setuptools-scm), the release at this commit, else the
        highest, as SGLang's build has it. Empty where neither tells."""
        if self.layout.installable and not self.metadata.from_tags:
            return self.metadata.version or ""
        here = (release(tag) for tag, (_, commit) in self.tags.items() if commit == self.head)
        newest = max((version for version in here if version), default=None)
        return str(newest or (highest(self.tags) if self.layout.installable else None) or "")


def read_checkout(repository: Repository) -> Checkout:
    """The state of the checkout at the repository's path, which has to be one. Raises GitError if git cannot tell."""
    form = "%(refname)%00%(objectname)%00%(*objectname)"
    told = run(repository.path, "for-each-ref", f"--format={form}", "refs/heads", "refs/tags", "refs/remotes/origin")
    refs = {name: (oid, peeled or oid) for name, oid, peeled in (line.split("\0") for line in told.splitlines())}
    head = (repository.path / ".git" / "HEAD").read_text().strip()
    branch = head.removeprefix("ref: refs/heads/") if head.startswith("ref: refs/heads/") else ""
    commit = refs.get(f"refs/heads/{branch}", ("", ""))[0] if head.startswith("ref: ") else head
    return Checkout(repository, commit, branch, refs)
