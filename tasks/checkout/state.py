"""What a checkout is now, and the record that this tool keeps in its git directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ..git import RepositoryRefs, read_refs, write_atomic
from ..models import RefSource, Repository

_FILE = "sources.json"


@dataclass(frozen=True)
class Record:
    """What was last checked out: `ref` as it was asked for, which was the `kind` (branch, tag, commit) `name` at
    `commit`; `configured` was the configured branch at that time. `moving` is the commit that a switch has begun to,
    empty when none is under way. For a submodule `ref` is its URL, and `configured` its sparse directories."""

    ref: str = ""
    configured: str = ""
    kind: str = ""
    name: str = ""
    commit: str = ""
    moving: str = ""

    @property
    def shown(self) -> str:
        """The REF for people: `matching (v0.6.7.post3)` where the word means a name."""
        return f"{self.ref} ({self.name})" if self.name not in ("", self.ref) else self.ref


def read_record(git_dir: Path) -> Record:
    """The record in `git_dir`; an empty one where there is none that can be read."""
    try:
        known = json.loads((git_dir / _FILE).read_text())
        return Record(**{each.name: str(known.get(each.name, "")) for each in fields(Record)})
    except (OSError, ValueError, AttributeError):
        return Record()


def write_record(git_dir: Path, record: Record) -> None:
    """Keep the record, atomically."""
    if record != read_record(git_dir):
        write_atomic(git_dir / _FILE, json.dumps(asdict(record)) + "\n")


@dataclass(frozen=True)
class Checkout:
    """The checkout of `repository` as it was found."""

    repository: Repository
    now: RepositoryRefs
    record: Record

    @property
    def path(self) -> Path:
        """The working tree."""
        return self.repository.path

    @property
    def git_dir(self) -> Path:
        """The repository."""
        return self.repository.path / ".git"

    @property
    def head(self) -> str:
        """The commit that is checked out."""
        return self.now.head

    @property
    def tags(self) -> Mapping[str, str]:
        """The local tags, name to commit id."""
        return self.now.tags

    @property
    def ref(self) -> tuple[str, RefSource]:
        """The REF that counts without an option, and where it comes from."""
        return kept_ref(self.repository, self.record)


def kept_ref(repository: Repository, record: Record) -> tuple[str, RefSource]:
    """The REF that counts without an option, and where it comes from: a REF that was given as an option stays with the
    checkout until the configuration changes."""
    if record.ref and record.configured == repository.branch != record.ref:
        return record.ref, "this checkout"
    return repository.branch, "configuration"


def read_checkout(repository: Repository) -> Checkout:
    """The checkout at the repository's path."""
    return Checkout(repository, read_refs(repository.path), read_record(repository.path / ".git"))
