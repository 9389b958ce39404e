"""Brings everything that a checkout of one commit needs, of the repository and of its submodules, all at once."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import LocalWorkError, SourcesError, UsageError
from ..git.command import run
from ..git.config import read_config
from ..git.fetch import (
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
from ..git.messages import UnknownObjectError
from ..git.packs import Cache, Cached, moved_bytes, read_shallow
from ..git.revisions import Advertised, Target, release
from ..git.submodules import GITLINK, Submodule, head_of, is_settled, linked_git_dir, read_submodules
from .paths import cone
from .record import Record

PYPROJECT = "pyproject.toml"
METADATA = (
    ".gitmodules",
    *(f"{folder}{name}" for folder in ("", "python/") for name in (PYPROJECT, "setup.py", "setup.cfg", "version.txt")),
)
DEEPEST = 8  # submodules of submodules
AT_ONCE = 32  # of a repository's submodules


@dataclass(frozen=True)
class Brought:
    """A commit whose objects are all here, with its submodules; `came` bytes for it, theirs not counted."""

    remote: Remote
    target: Target
    tree: Mapping[str, Entry]
    folders: tuple[str, ...] | None
    submodules: tuple[Brought, ...]
    came: int

    @property
    def record(self) -> Record:
        """What is kept once it is checked out; a submodule's REF is its URL, and its folders are its configuration."""
        target = self.target
        return Record(target.ref, " ".join(self.folders or ()), target.kind, target.name, target.commit)

    @property
    def settled(self) -> bool:
        """Whether this submodule is checked out as it was brought."""
        return is_settled(self.remote.path, self.remote.git_dir, self.record)

    @property
    def moved(self) -> int:
        """The bytes that came for it and all submodules below."""
        return self.came + sum(each.moved for each in self.submodules)

    def below(self) -> Iterator[Brought]:
        """All submodules below."""
        for submodule in self.submodules:
            yield submodule
            yield from submodule.below()


@dataclass(frozen=True)
class Bringer:
    """How objects are brought: into which `cache`, and with whole histories or not.

    `show` gets the repository's paths and metadata files (path to content) as soon as they are here. `check` sees its
    tree before anything outside the git directory is touched. `complete` is told when the repository's own objects are
    all here, while those of the submodules at these paths may still come, and `arrived` of each submodule.
    """

    cache: Path | None
    full: bool
    show: Callable[[Iterable[str], Mapping[str, bytes]], None]
    check: Callable[[Mapping[str, Entry]], None] = lambda tree: None
    complete: Callable[[Iterable[str]], None] = lambda paths: None
    arrived: Callable[[Brought], None] = lambda submodule: None

    def bring(self, remote: Remote, target: Target, advertised: Advertised, haves: Iterable[str]) -> Brought:
        """Bring the repository itself. `haves` are commits that it has checked out before. Raises NetworkError,
        DiskError, UsageError for a commit that the remote does not have, SourcesError for what .gitmodules declares."""
        cache = Cache(self.cache, remote.url)
        with cache.keeping(remote.git_dir):
            return self._bring(remote, target, advertised, haves, cache)

    def _bring(
        self, remote: Remote, target: Target, advertised: Advertised, haves: Iterable[str], cache: Cache
    ) -> Brought:
        tags = {tag: oid for tag, oid in advertised.tags.items() if release(tag)}
        cached = cache.take(remote.git_dir, full=self.full)
        before = moved_bytes(remote.git_dir)
        tree, missing = self._tree(remote, target, tags.values(), haves, cached)
        metadata = _files(tree, METADATA)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            # The largest part begins first, and brings the metadata again, rather than waiting for it.
            whole = len(missing) > len(tree) / 2
            files = pool.submit(fetch_whole, remote, target) if whole else None
            if not fetch_blobs(remote, missing & {*metadata.values()}, "reading metadata"):
                files = files or pool.submit(fetch_whole, remote, target)
                files.result()
            contents = read_blobs(remote, metadata.values())
            known = {path: contents[oid] for path, oid in metadata.items()}
            self.show(tree, known)
            submodules, complaints = read_submodules(remote, tree, known.get(PYPROJECT, b""), whole=self.full)
            for complaint in complaints:
                remote.network.reporter.warn(remote.who, complaint)
            parts = [pool.submit(self._submodule, remote, each, 1) for each in submodules]
            others = [] if self.full else [pool.submit(fetch_tags, remote, tags, advertised.peeled)]
            if not files:
                _fetch_files(remote, target, missing - {*metadata.values()})
            for other in filter(None, (files, *others)):
                other.result()
            histories = {**tags, target.name or "HEAD": target.object} if self.full else {}
            cache.give(remote.git_dir, "" if self.full else target.commit, histories.items())
            moved = moved_bytes(remote.git_dir) - before
            self.complete([each.path for each in submodules])
            return Brought(remote, target, tree, None, tuple(part.result() for part in parts), moved)

    def _tree(
        self, remote: Remote, target: Target, tags: Iterable[str], haves: Iterable[str], cached: Cached
    ) -> tuple[dict[str, Entry], set[str]]:
        """Bring the commit and its trees, or all its history. Returns the tree and which of its blobs are missing."""
        fresh = moved_bytes(remote.git_dir) == 0
        try:
            if self.full:
                fetch_history(remote, target, tags, dict(cached.full))
            else:
                _slim_trees(remote, target, [*haves, *cached.tips], blobs=False)
        except UnknownObjectError as error:
            raise UsageError(f"{error.what}", "Name a commit that the remote has, or a branch or tag.") from None
        tree = read_tree(remote, target.commit)
        self.check(tree)
        blobs = {entry.oid for entry in tree.values() if entry.mode != GITLINK}
        if fresh and not self.full and not present(remote.git_dir, list(blobs)[:1]):
            return tree, blobs
        return tree, missing_objects(remote, target.commit)  # of a full one too: a user may have filtered

    def _submodule(self, parent: Remote, submodule: Submodule, depth: int) -> Brought:
        who, path = f"{parent.who}/{submodule.path}", parent.path / submodule.path
        remote = Remote(path, submodule_git_dir(parent, submodule), who, submodule.url, parent.network)
        store = replace(remote, path=remote.git_dir)  # its files come with the move
        target = Target(submodule.url, "commit", submodule.name, submodule.commit, submodule.commit)
        if depth > DEEPEST:
            raise SourcesError(f"{who}: submodules are nested more than {DEEPEST} deep.")
        before = Brought(remote, target, {}, submodule.folders, (), 0)
        if before.settled and not (self.full and read_shallow(remote.git_dir)):
            return before
        prepare_submodule(store)
        cache = Cache(self.cache, submodule.url)
        cached = cache.take(remote.git_dir, full=self.full)
        size = moved_bytes(remote.git_dir)
        with cache.keeping(remote.git_dir):
            if self.full:
                fetch_history(store, target, (), dict(cached.full))
            else:
                _slim_trees(store, target, [*cached.tips, head_of(path)], blobs=submodule.folders is None)
            tree, holds = read_tree(store, target.commit), cone(submodule.folders)
            if not self.full:
                needed = {entry.oid for path, entry in tree.items() if entry.mode != GITLINK and holds(path)}
                _fetch_files(store, target, needed - present(store.git_dir, needed))
        below: tuple[Brought, ...] = ()
        if submodule.folders is None and any(entry.mode == GITLINK for entry in tree.values()):
            pyproject = b"".join(read_blobs(store, _files(tree, [PYPROJECT]).values()).values())
            inner, _ = read_submodules(store, tree, pyproject, whole=self.full)
            below = tuple(self._submodule(remote, each, depth + 1) for each in inner)
        brought = Brought(remote, target, tree, submodule.folders, below, moved_bytes(remote.git_dir) - size)
        tip, histories = ("", [("HEAD", submodule.commit)]) if self.full else (submodule.commit, [])
        cache.give(remote.git_dir, tip, histories)
        self.arrived(brought)
        return brought


def _files(tree: Mapping[str, Entry], paths: Iterable[str]) -> dict[str, str]:
    """Path -> object id of those that are regular files."""
    return {path: tree[path].oid for path in paths if path in tree and tree[path].mode.startswith("100")}


def _slim_trees(remote: Remote, target: Target, haves: Iterable[str], *, blobs: bool) -> None:
    """Bring the commit and its trees; with `blobs` on all files, too, where none of the commits `haves` is here."""
    keep_promises(remote)
    if missing_trees(remote, target.commit):
        here = present(remote.git_dir, haves)
        fetch_trees(remote, target, here, blobs=blobs and not here)
    close_history(remote, [target.commit])


def _fetch_files(remote: Remote, target: Target, missing: set[str]) -> None:
    if not fetch_blobs(remote, missing, "fetching files"):
        fetch_whole(remote, target)


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


def prepare_submodule(store: Remote) -> None:
    """Make the submodule's repository, or point an existing one at its present URL."""
    store.git_dir.mkdir(parents=True, exist_ok=True)
    known = read_config(store.git_dir)
    file, url = f"--file={store.git_dir}/config", known.get("remote.origin.url", ("",))[0]
    if not url:
        return initialise(store.git_dir, store.url, bare=True)
    worktree = known.get("core.worktree", ("",))[-1]
    if worktree and not (store.git_dir / worktree).is_dir():  # git would go there first
        run(store.git_dir.parent, "config", file, "--unset-all", "core.worktree")
    if url != store.url:
        run(store.git_dir, "config", file, "remote.origin.url", store.url)
