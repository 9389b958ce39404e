"""Downloading everything that a checkout of one commit needs, before anything in a working tree changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import SourcesError
from ..git import (
    GITLINK,
    Advertised,
    Cache,
    Entry,
    GitError,
    LocalRepository,
    Refs,
    Submodule,
    Target,
    close_history,
    fetch_commit,
    fetch_history,
    fetch_objects,
    fetch_tags,
    head_of,
    initialise,
    linked_git_dir,
    local_objects,
    packed_bytes,
    read_blob,
    read_shallow,
    read_submodules,
    read_target,
    release,
    run,
    submodule_git_dir,
)
from .sparse import cone, is_users, shipped_directories
from .state import Record, read_record

PYPROJECT = "pyproject.toml"
DEEPEST = 8  # submodules of submodules
AT_ONCE = 32  # downloads of one repository's submodules


@dataclass(frozen=True)
class Commit:
    """A commit whose objects are all here. `directories` are those of a submodule that are checked out, None for all
    of it; `moved` are the bytes that were fetched, without those of its submodules."""

    repository: LocalRepository
    target: Target
    tree: Mapping[str, Entry]
    directories: tuple[str, ...] | None = None
    submodules: tuple[Commit, ...] = ()
    moved: int = 0

    @property
    def record(self) -> Record:
        """What is kept once it is checked out."""
        directories = "\n".join(self.directories or ())
        return Record(self.target.ref, directories, self.target.kind, self.target.name, self.target.commit)

    @property
    def is_checked_out(self) -> bool:
        """Whether this submodule is checked out like this already."""
        recorded = read_record(self.repository.git_dir) == self.record
        return recorded and head_of(self.repository.path) == self.target.commit

    @property
    def bytes(self) -> int:
        """The bytes that were fetched for it and all submodules below it."""
        return sum(each.moved for each in self.all())

    def all(self) -> Iterator[Commit]:
        """The commit, and those of all submodules below it."""
        yield self
        for submodule in self.submodules:
            yield from submodule.all()


@dataclass(frozen=True)
class Download:
    """How objects are downloaded: with which `cache` directory, and with the `full` history or not."""

    cache: Path | None
    full: bool

    def commit(
        self, repository: LocalRepository, target: Target, advertised: Advertised, haves: Iterable[str]
    ) -> Commit:
        """Download the commit itself; `haves` are commits that were checked out before. Raises NetworkError, DiskError,
        UsageError for a commit that the remote does not have."""
        tags = [oid for tag, oid in advertised.tags.items() if release(tag)]
        return self._fetch(repository, target, haves, None, tags)

    def rest(self, commit: Commit, advertised: Advertised, local: Refs) -> Commit:
        """Download the version tags, less those of the `local` refs, and the submodules, all at once. Raises as
        `commit` does, and SourcesError for what .gitmodules declares."""
        repository = commit.repository
        submodules, undeclared = read_submodules(repository, commit.tree)
        for path in undeclared:
            repository.network.reporter.warn(repository.who, f"{path} is a submodule without an entry in .gitmodules")
        known = {oid for oid, _ in local.values()}
        tags = {tag: oid for tag, oid in advertised.tags.items() if release(tag) and oid not in known}
        pyproject = read_blob(repository, commit.tree, PYPROJECT) if submodules else ""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            parts = [pool.submit(self._submodule, repository, each, pyproject, 1) for each in submodules]
            moved = commit.moved
            if tags and not self.full:
                before = packed_bytes(repository.git_dir)
                fetch_tags(repository, tags, advertised.peeled)
                moved += packed_bytes(repository.git_dir) - before
                Cache(self.cache, repository.url).give(repository.git_dir, _waiting(repository))
            return replace(commit, submodules=tuple(part.result() for part in parts), moved=moved)

    def _fetch(
        self,
        repository: LocalRepository,
        target: Target,
        haves: Iterable[str],
        directories: tuple[str, ...] | None,
        tags: Iterable[str] = (),
    ) -> Commit:
        cache = Cache(self.cache, repository.url)
        known, linked = cache.take(repository.git_dir)
        before = packed_bytes(repository.git_dir)
        with self._keeping(cache, repository):
            try:
                if linked and not self.full:
                    close_history(repository, known.shallow)
                if self.full:
                    fetch_history(repository, target, tags, known.complete)
                    tree = read_target(repository, target)
                else:
                    tree = fetch_commit(repository, target, [*haves, *known.tips], files=directories is None)
                holds = cone(directories)
                files = {entry.oid for path, entry in tree.items() if holds(path) and entry.mode != GITLINK}
                fetch_objects(repository, target, files - local_objects(repository))
            except GitError:
                if not linked:
                    raise
                for file in linked:  # the cache is damaged: the same again without it
                    file.unlink(missing_ok=True)
                cache.discard()
                return self._fetch(repository, target, haves, directories, tags)
        tip = {"complete" if self.full else "tip": target.commit}
        cache.give(repository.git_dir, _waiting(repository), **tip)
        return Commit(repository, target, tree, directories, (), packed_bytes(repository.git_dir) - before)

    def _submodule(self, parent: LocalRepository, submodule: Submodule, pyproject: str, depth: int) -> Commit:
        who, path = f"{parent.who}/{submodule.path}", parent.path / submodule.path
        if depth > DEEPEST:
            raise SourcesError(f"{who}: submodules are nested more than {DEEPEST} deep.")
        git_dir = submodule_git_dir(parent, submodule)
        repository = LocalRepository(path, git_dir, who, submodule.url, parent.network)
        directories = None if self.full else shipped_directories(pyproject, submodule.path)
        target = Target(submodule.url, "commit", submodule.name, submodule.commit, submodule.commit)
        commit = Commit(repository, target, {}, directories)
        if commit.is_checked_out and not (self.full and read_shallow(git_dir)):
            return commit
        store = replace(repository, path=git_dir)  # whose files come with the switch
        _prepare(store, sparse=directories is not None)
        if is_users(store, read_record(git_dir)):
            directories = None
        fetched = self._fetch(store, target, [head_of(path)], directories)
        below: tuple[Commit, ...] = ()
        if directories is None and any(entry.mode == GITLINK for entry in fetched.tree.values()):
            inner, _ = read_submodules(store, fetched.tree)
            shipped = read_blob(store, fetched.tree, PYPROJECT)
            below = tuple(self._submodule(repository, each, shipped, depth + 1) for each in inner)
        return replace(commit, tree=fetched.tree, submodules=below, moved=fetched.moved)

    @contextmanager
    def _keeping(self, cache: Cache, repository: LocalRepository) -> Iterator[None]:
        """Keep in the cache what has arrived, where the rest does not."""
        try:
            yield
        except BaseException:
            cache.give(repository.git_dir, _waiting(repository))
            raise


def _prepare(store: LocalRepository, *, sparse: bool) -> None:
    """Create the submodule's repository, or point an existing one at its present URL."""
    if (store.git_dir / "refs").is_dir() and not (store.git_dir / "HEAD").exists():
        (store.git_dir / "HEAD").write_text("ref: refs/heads/main\n")  # which git-init(1) does not write again here
    is_new = not store.git_dir.exists()
    initialise(store, bare=True, sparse=sparse)
    worktree = "" if is_new else store.git("config", "core.worktree", check=False)
    if worktree and linked_git_dir(store.git_dir / worktree) != store.git_dir.resolve():
        unset_worktree(store.git_dir)


def unset_worktree(git_dir: Path) -> None:
    """Let git work in the repository of a submodule whose files are gone."""
    for where in ("--local", "--worktree"):  # git-sparse-checkout(1) moves the value to the second
        run(git_dir, "config", where, "--unset-all", "core.worktree", check=False)


def _waiting(repository: LocalRepository) -> Callable[[], object]:
    return lambda: repository.network.reporter.event(repository.who, "waiting for another run that writes to the cache")
