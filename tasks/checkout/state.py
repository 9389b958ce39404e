"""What is at a repository's path, and the record that this tool keeps in a git directory."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ..errors import LocalWorkError, SourcesError
from ..files import write_atomic
from ..git import RepositoryRefs, move_aside, read_refs, run
from ..models import RefSource, Repository
from ..names import redact

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


def find_checkout(repository: Repository) -> Checkout | None:
    """The checkout at the repository's path; None where nothing is. Raises LocalWorkError for anything else, and for a
    checkout of another URL."""
    path = repository.path
    if not path.is_symlink() and (not path.exists() or (path.is_dir() and not any(path.iterdir()))):
        return None
    if path.is_symlink() or not (path / ".git" / "HEAD").is_file():
        kind = "a symbolic link" if path.is_symlink() else "not a checkout"
        raise LocalWorkError(f"{repository.name}: {path} is {kind}.", command=move_aside(path))
    checkout = read_checkout(repository)
    if not checkout.head or not checkout.now.url:
        run(path, "rev-parse", "--git-dir")  # refuses a repository of another user
    if not checkout.head:
        what = f"{repository.name}: {path} is a repository without a commit."
        raise LocalWorkError(what, command=move_aside(path))
    check_remote(checkout)
    return checkout


def require_checkout(repository: Repository) -> Checkout:
    """The checkout at the repository's path. Raises as `find_checkout`, and SourcesError where nothing is."""
    if checkout := find_checkout(repository):
        return checkout
    raise SourcesError(f"{repository.name}: not cloned.", command="invoke clone")


def check_remote(checkout: Checkout) -> None:
    """Raise LocalWorkError where the checkout comes from another URL than the configured one."""
    repository, path, url = checkout.repository, checkout.path, checkout.now.url
    if url != repository.url:
        action = "set-url" if url else "add"
        set_url = shlex.join(["git", "-C", str(path), "remote", action, "origin", repository.url])
        command = set_url if redact(set_url) == set_url else move_aside(path)  # no password is shown or typed
        found, wanted = redact(url) or "no remote", redact(repository.url)
        raise LocalWorkError(f"{repository.name}: {path} comes from {found}, not from {wanted}.", command=command)
