"""Brings everything that a checkout of one commit needs, of the repository and of its submodules, all at once."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from .errors import LocalWorkError, SourcesError, UsageError
from .fetch import (
    Entry,
    Remote,
    close_history,
    fetch_blobs,
    fetch_history,
    fetch_tags,
    fetch_trees,
    fetch_whole,
    initialise,
    keep_promises,
    missing_objects,
    missing_trees,
    present,
    read_blobs,
    read_tree,
)
from .git import run
from .objects import Cache, Cached, moved_bytes, read_shallow
from .record import Record
from .refs import Advertised, Target, release
from .submodules import GITLINK, Submodule, is_settled, linked_git_dir, read_submodules, wanted
from .trouble import UnknownObjectError

METADATA = (
    ".gitmodules",
    *(
        f"{folder}{name}"
        for folder in ("", "python/")
        for name in ("pyproject.toml", "setup.py", "setup.cfg", "version.txt")
    ),
)
DEEPEST = 8  # submodules of submodules


@dataclass(frozen=True)
class Brought:
    """A commit whose objects are all here, with its submodules; `moved` bytes came for it, theirs not counted."""

    remote: Remote
    target: Target
    tree: Mapping[str, Entry]
    folders: tuple[str, ...] | None
    submodules: tuple[Brought, ...]
    moved: int

    @property
    def record(self) -> Record:
        """What is kept once it is checked out; a submodule's REF is its URL, and its folders are its configuration."""
        target = self.target
        return Record(target.ref, " ".join(self.folders or ()), target.kind, target.name, target.commit)

    @property
    def settled(self) -> bool:
        """Whether this submodule is checked out as it was brought."""
        return is_settled(self.remote.path, self.remote.git_dir, self.record)

    def everything(self) -> Iterator[Brought]:
        """This and all submodules below."""
        yield self
        for submodule in self.submodules:
            yield from submodule.everything()


@dataclass(frozen=True)
class Bringer:
    """How objects are brought: into which `cache`, and with whole histories or not.

    `show` gets the repository's paths and metadata files (path to content) as soon as they are here. `check` sees its
    tree before anything outside the git directory is touched, and `arrived` each submodule that is all here.
    """

    cache: Path | None
    full: bool
    show: Callable[[Iterable[str], Mapping[str, bytes]], None]
    check: Callable[[Mapping[str, Entry]], None]
    arrived: Callable[[Brought], None]

    def bring(self, remote: Remote, target: Target, url: str, advertised: Advertised, haves: Iterable[str]) -> Brought:
        """Bring the repository itself. `haves` are commits that it has checked out before. Raises NetworkError,
        DiskError, UsageError for a commit that the remote does not have, SourcesError for what .gitmodules declares."""
        cache = Cache(self.cache, url)
        with cache.keeping(remote.git_dir):
            return self._bring(remote, target, url, advertised, haves, cache)

    def _bring(
        self, remote: Remote, target: Target, url: str, advertised: Advertised, haves: Iterable[str], cache: Cache
    ) -> Brought:
        tags = {tag: oid for tag, oid in advertised.tags.items() if release(tag)}
        full = self.full
        cached = cache.take(remote.git_dir, full=full)
        if not full:
            keep_promises(remote)
        before = moved_bytes(remote.git_dir)
        try:
            if full:
                fetch_history(remote, target, tags.values(), dict(cached.full))
            elif missing_trees(remote, target.commit):
                fetch_trees(remote, target, present(remote.git_dir, [*haves, *cached.tips]), blobs=False)
        except UnknownObjectError as error:
            raise UsageError(f"{error.what}", "Name a commit that the remote has, or a branch or tag.") from None
        if not full:
            close_history(remote, [target.commit])
        tree = read_tree(remote, target.commit)
        self.check(tree)
        missing = missing_objects(
            remote, target.commit
        )  # of a full one too, which a user may have cloned with a filter
        metadata = {path: tree[path].oid for path in METADATA if path in tree and tree[path].mode.startswith("100")}
        if fetch_blobs(remote, target, missing & set(metadata.values()), "reading metadata"):
            missing = set()
        contents = read_blobs(remote, metadata.values())
        self.show(tree, {path: contents[oid] for path, oid in metadata.items()})
        missing -= set(metadata.values())
        submodules, complaints = read_submodules(remote.path, tree, url, remote.who, whole=full)
        for complaint in complaints:
            remote.network.listener.warn(remote.who, complaint)
        with ThreadPoolExecutor(len(submodules) + 2) as pool:
            parts = [pool.submit(self._submodule, remote, each, 1) for each in submodules]
            others: list[Future[object]] = (
                [pool.submit(fetch_tags, remote, tags, advertised.peeled)] if not full else []
            )
            files = sum(entry.mode != GITLINK for entry in tree.values())
            if len(missing) > files / 2:
                others.append(pool.submit(fetch_whole, remote, target))
            elif missing:
                others.append(pool.submit(fetch_blobs, remote, target, missing, "fetching files"))
        for other in others:
            other.result()
        histories = {**tags, target.name or "HEAD": target.object} if full else {}
        cache.give(remote.git_dir, "" if full else target.commit, histories.items())
        inner = tuple(part.result() for part in parts)
        return Brought(remote, target, tree, None, inner, moved_bytes(remote.git_dir) - before)

    def _submodule(self, parent: Remote, submodule: Submodule, depth: int) -> Brought:
        who, path = f"{parent.who}/{submodule.path}", parent.path / submodule.path
        remote = Remote(path, submodule_git_dir(parent, submodule), who, parent.network)
        store = replace(remote, path=remote.git_dir)  # its files come with the move
        target = Target(submodule.url, "commit", submodule.name, submodule.commit, submodule.commit)
        if depth > DEEPEST:
            raise SourcesError(f"{who}: submodules are nested more than {DEEPEST} deep.")
        before = Brought(remote, target, {}, submodule.folders, (), 0)
        if before.settled and not (self.full and read_shallow(remote.git_dir)):
            return before
        prepare_submodule(store, submodule.url)
        cache = Cache(self.cache, submodule.url)
        cached = cache.take(remote.git_dir, full=self.full)
        size = moved_bytes(remote.git_dir)
        with cache.keeping(remote.git_dir):
            if self.full:
                fetch_history(store, target, (), dict(cached.full))
            else:
                self._slim_submodule(store, target, submodule, cached)
        tree = read_tree(store, submodule.commit)
        inner: list[Submodule] = []
        if submodule.folders is None:
            inner, _ = read_submodules(store.path, tree, submodule.url, remote.who, whole=self.full)
        below = tuple(self._submodule(remote, each, depth + 1) for each in inner)
        brought = Brought(remote, target, tree, submodule.folders, below, moved_bytes(remote.git_dir) - size)
        tip, histories = ("", [("HEAD", submodule.commit)]) if self.full else (submodule.commit, [])
        cache.give(remote.git_dir, tip, histories)
        self.arrived(brought)
        return brought

    def _slim_submodule(self, remote: Remote, target: Target, submodule: Submodule, cached: Cached) -> None:
        keep_promises(remote)
        head = run(remote.path, "rev-parse", "--quiet", "--verify", "HEAD", check=False)
        if missing_trees(remote, target.commit):
            haves = present(remote.git_dir, [*cached.tips, head])
            fetch_trees(remote, target, haves, blobs=submodule.folders is None and not haves)
        close_history(remote, [target.commit])
        if missing := missing_objects(remote, target.commit):
            tree = read_tree(remote, target.commit)
            needed = {entry.oid for path, entry in tree.items() if wanted(path, submodule.folders)}
            fetch_blobs(remote, target, missing & needed, "fetching files")


def submodule_git_dir(parent: Remote, submodule: Submodule) -> Path:
    """Where the submodule's repository is, or will be: that of the files at its path, else as git-submodule(1) has it.

    Raises LocalWorkError where the files at its path belong to a repository elsewhere, SourcesError for a repository in
    another one.
    """
    modules = parent.git_dir / "modules"
    if linked := linked_git_dir(parent.path / submodule.path):
        if linked.is_relative_to(modules.resolve()) and (linked / "HEAD").is_file():
            return modules / linked.relative_to(modules.resolve())
        absorb = shlex.join(["git", "-C", str(parent.path), "submodule", "absorbgitdirs", "--", submodule.path])
        raise LocalWorkError(f"{parent.who}/{submodule.path}: its repository is {linked}, not in {modules}.", absorb)
    place = modules / submodule.name
    if any((folder / "HEAD").is_file() for folder in place.parents if folder.is_relative_to(modules)):
        raise SourcesError(
            f"{parent.who}: submodule {submodule.name!a} would lie inside the repository of another one.",
            "Nothing of it was fetched.",
        )
    return place


def prepare_submodule(store: Remote, url: str) -> None:
    """Make the submodule's repository, or point an existing one at its present URL."""
    file = f"--file={store.git_dir}/config"
    store.git_dir.mkdir(parents=True, exist_ok=True)
    known = run(store.git_dir.parent, "config", file, "remote.origin.url", check=False)
    if not known:
        initialise(store.git_dir, url, bare=True)
        return
    worktree = run(store.git_dir.parent, "config", file, "core.worktree", check=False)
    if worktree and not (store.git_dir / worktree).is_dir():  # git would go there first
        run(store.git_dir.parent, "config", file, "--unset-all", "core.worktree")
    if known != url:
        run(store.git_dir, "config", file, "remote.origin.url", url)
