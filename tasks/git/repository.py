"""What is on disk: a checkout of a configured repository or of a submodule, its refs and the record in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path

from ..files import write_atomic
from ..models import Repository
from ..names import HEADS, TAGS
from . import command

RECORD = "sources.json"  # in the git directory


@dataclass(frozen=True)
class Ref:
    """A ref by its object id, the commit that it leads to, and the linked or main worktree that has it checked out."""

    object: str
    commit: str
    worktree: str


@dataclass(frozen=True)
class Record:
    """What was last checked out: `ref` as it was asked for, which was the `kind` (branch, tag, commit) `name` at
    `commit`; `configured` was the configured branch at that time. `moving` is the commit that a switch has begun to,
    empty when none is under way."""

    ref: str = ""
    configured: str = ""
    kind: str = ""
    name: str = ""
    commit: str = ""
    moving: str = ""

    @classmethod
    def read(cls, git_dir: Path) -> Record:
        """The record in `git_dir`; an empty one where there is none that can be read."""
        try:
            known = json.loads((git_dir / RECORD).read_text())
            return cls(**{field.name: str(known.get(field.name, "")) for field in fields(cls)})
        except (OSError, ValueError, AttributeError):
            return cls()

    @property
    def shown(self) -> str:
        """The REF for people: `matching (v0.6.7.post3)` where the word means a name."""
        return f"{self.ref} ({self.name})" if self.name not in ("", self.ref) else self.ref

    @property
    def branch(self) -> str:
        """The branch that was checked out; empty where it was none."""
        return self.name if self.kind == "branch" else ""


@dataclass(frozen=True)
class Checkout:
    """A repository with its working tree: that of a configured repository, or a submodule, whose `repository` is named
    like `flashinfer/3rdparty/cutlass`. What was read stays as it was read; `again` reads it anew."""

    repository: Repository
    git_dir: Path

    @property
    def name(self) -> str:
        """Its name in messages."""
        return self.repository.name

    @property
    def path(self) -> Path:
        """The working tree."""
        return self.repository.path

    @property
    def url(self) -> str:
        """Where it is fetched from."""
        return self.repository.url

    @property
    def is_linked(self) -> bool:
        """Whether the working tree is there and is this repository's."""
        linked = linked_git_dir(self.path)
        return linked is not None and linked.resolve() == self.git_dir.resolve()

    @property
    def place(self) -> Path:
        """Where git runs: the working tree, or the git directory of a submodule whose files are not there."""
        return self.path if self.is_linked else self.git_dir

    def git(self, *words: str, stdin: str = "", check: bool = True, env: Mapping[str, str] | None = None) -> str:
        """Run a local git command: see `command.git`."""
        return command.git(self.place, *words, who=self.name, stdin=stdin, check=check, env=env)

    def switch(self, commit: str) -> None:
        """Let the files be those of the commit, and HEAD on no branch. Raises LocalWorkError where git refuses."""
        self.git("switch", "--quiet", "--no-overwrite-ignore", "--detach", commit)

    def again(self) -> Checkout:
        """The checkout as it is now."""
        return replace(self)

    @cached_property
    def head(self) -> str:
        """The commit that is checked out; empty on a branch that has none yet."""
        ref = self._head_file
        if not ref.startswith("refs/"):
            return ref
        return self.refs[ref].commit if ref in self.refs else ""

    @property
    def branch(self) -> str:
        """The branch HEAD is on; empty where HEAD is detached."""
        return self._head_file.removeprefix(HEADS) if self._head_file.startswith(HEADS) else ""

    @cached_property
    def _head_file(self) -> str:
        """What HEAD is: a commit, or the full name of a ref; empty where there is no HEAD that can be read."""
        try:
            text = (self.git_dir / "HEAD").read_text(errors="surrogateescape")
        except OSError:
            return ""
        return text.removesuffix("\n").removeprefix("ref: ").strip(" ")

    @cached_property
    def refs(self) -> Mapping[str, Ref]:
        """All refs by their full names."""
        layout = "%(refname)%00%(objectname)%00%(*objectname)%00%(worktreepath)"
        refs = {}
        for line in filter(None, self.git("for-each-ref", f"--format={layout}").split("\n")):
            name, oid, peeled, worktree = line.split("\0")
            refs[name] = Ref(oid, peeled or oid, worktree)
        return refs

    @property
    def tags(self) -> dict[str, str]:
        """Tags, name to commit."""
        return {name.removeprefix(TAGS): ref.commit for name, ref in self.refs.items() if name.startswith(TAGS)}

    @cached_property
    def config(self) -> Mapping[str, str]:
        """The configuration that counts in the repository, the last value of each key."""
        pairs = (setting.partition("\n") for setting in self.git("config", "--null", "--list", check=False).split("\0"))
        return {key: value for key, _, value in pairs}

    @property
    def remotes(self) -> dict[str, str]:
        """The remotes, name to URL."""
        keys = [key for key in self.config if key.startswith("remote.") and key.endswith(".url")]
        return {key.removeprefix("remote.").removesuffix(".url"): self.config[key] for key in keys}

    @property
    def remote(self) -> str:
        """The remote with the configured URL; empty where there is none."""
        named = [name for name, url in self.remotes.items() if _plain(url) == _plain(self.url)]
        return "origin" if "origin" in named else next(iter(named), "")

    @property
    def is_shallow(self) -> bool:
        """Whether its history is cut somewhere."""
        return (self.git_dir / "shallow").exists()

    @property
    def is_sparse(self) -> bool:
        """Whether only some directories are checked out."""
        return self.config.get("core.sparsecheckout") == "true"

    @cached_property
    def directories(self) -> tuple[str, ...] | None:
        """The directories that are checked out (git-sparse-checkout(1), cone mode); None where all are, or where
        patterns choose the files."""
        if not self.is_sparse or self.config.get("core.sparsecheckoutcone") == "false":
            return None
        return tuple(filter(None, self.git("sparse-checkout", "list", check=False).split("\n")))

    @property
    def record(self) -> Record:
        """What this tool last checked out."""
        return Record.read(self.git_dir)

    def tracking(self, branch: str) -> str:
        """The full name of the ref that follows the remote's branch."""
        return f"refs/remotes/{self.remote}/{branch}"

    def keep_record(self, record: Record) -> None:
        """Keep the record, atomically."""
        if record != self.record:
            write_atomic(self.git_dir / RECORD, json.dumps(asdict(record)) + "\n")


def linked_git_dir(path: Path) -> Path | None:
    """The git directory that the directory `path` names as its own (gitrepository-layout(5), gitfile), or None."""
    file = path / ".git"
    if file.is_dir():
        return file
    if path.is_symlink() or not file.is_file():
        return None
    text = file.read_text(errors="surrogateescape")
    return (path / text.removeprefix("gitdir:").strip()).resolve() if text.startswith("gitdir:") else None


def _plain(url: str) -> str:
    return url.rstrip("/").removesuffix(".git")
