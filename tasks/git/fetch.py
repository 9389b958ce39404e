"""Brings the objects of one commit from a remote: as few as the work needs, each at most once.

A slim checkout holds one commit (git-fetch(1), --depth), and of a submodule only the blobs of the declared folders
(partial clone, --filter). Its trees come first, since they say what else is needed. A full one holds the whole history.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import NetworkError
from ..models import Network
from .command import run
from .config import write_config
from .messages import RefusedError
from .packs import add_shallow, link_packs, read_shallow
from .revisions import Target
from .transfer import transfer

_QUIET = ("--no-tags", "--no-write-fetch-head")
_NO_HAVES = ("-c", "fetch.negotiationAlgorithm=noop")


@dataclass(frozen=True)
class Entry:
    """One file (or submodule) of a commit's tree: mode as in git-ls-tree(1) and object id."""

    mode: str
    oid: str


@dataclass(frozen=True)
class Remote:
    """The repository at `path` that objects come into from its remote `origin` at `url`, told about as `who`."""

    path: Path
    git_dir: Path
    who: str
    url: str
    network: Network

    def fetch(self, *args: str, doing: str, stdin: str = "", options: tuple[str, ...] = ()) -> str:
        """git-fetch(1) with `args`, retried. Raises what `transfer` raises."""
        command = (*options, "fetch", *_QUIET, *args)
        return transfer(self.path, *command, who=self.who, doing=doing, network=self.network, stdin=stdin)


def initialise(path: Path, url: str, *, bare: bool = False) -> None:
    """Make an empty repository at `path` whose remote `origin` is `url`; a `bare` one is `path` itself."""
    path.mkdir(parents=True, exist_ok=True)
    run(path, "init", "--quiet", "--template=", *(("--bare",) if bare else ()))
    git_dir = path if bare else path / ".git"
    (git_dir / "info").mkdir(exist_ok=True)
    config = git_dir / "config"
    config.write_text(config.read_text().replace("bare = true", "bare = false"))
    write_config(git_dir, {}, {"remote.origin.url": url})


def keep_promises(remote: Remote) -> None:
    """Let git ask the remote for what packs of a partial clone left out, where they came out of the cache."""
    promised = "partialclonefilter" in (remote.git_dir / "config").read_text(encoding="utf-8", errors="surrogateescape")
    if not promised and any(remote.git_dir.glob("objects/pack/*.promisor")):
        settings = {"remote.origin.promisor": "true", "remote.origin.partialclonefilter": "blob:none"}
        write_config(remote.git_dir, {}, settings)


def present(git_dir: Path, oids: Iterable[str]) -> set[str]:
    """Which of the objects are in the repository, looked up without asking a promisor remote for the others."""
    from gitdb.pack import PackIndexFile  # and no GitDB, which fails where a pack has no index yet

    objects = git_dir / "objects"
    packs = [PackIndexFile(str(index)) for index in objects.glob("pack/pack-*.idx")]

    def here(oid: str) -> bool:
        packed = any(pack.sha_to_index(bytes.fromhex(oid)) is not None for pack in packs)
        return packed or (objects / oid[:2] / oid[2:]).is_file()

    return {oid for oid in oids if oid and here(oid)}


def fetch_trees(remote: Remote, target: Target, haves: Iterable[str], *, blobs: bool) -> None:
    """Bring the commit of `target` and its trees, and its files too with `blobs` on.

    `haves` are commits of which this repository holds every tree; what they share with the target is not sent.
    """
    tips = [f"--negotiation-tip={oid}" for oid in haves]
    flags = (*tips, "--depth=1", *(() if blobs else ("--filter=blob:none",)))
    _fetch_one(remote, target, flags, () if tips else _NO_HAVES, "fetching files" if blobs else "reading the tree")


def read_tree(remote: Remote, commit: str) -> dict[str, Entry]:
    """Every path of the commit's tree (git-ls-tree(1), -r)."""
    listing = run(remote.path, "ls-tree", "-r", "-z", "--full-tree", commit)
    lines = (line.split("\t", 1) for line in listing.split("\0") if line)
    return {path: Entry(mode, oid) for (mode, _, oid), path in ((head.split(), path) for head, path in lines)}


def missing_trees(remote: Remote, commit: str) -> set[str]:
    """The commit and those of its trees that are not here (git-rev-list(1), --missing)."""
    return missing_objects(remote, commit, "--filter=blob:none") if present(remote.git_dir, [commit]) else {commit}


def missing_objects(remote: Remote, commit: str, *flags: str) -> set[str]:
    """The trees and blobs of the commit that are not here."""
    listed = ("rev-list", "--objects", "--missing=print", "--no-object-names", "--no-walk", *flags, commit)
    return {line[1:] for line in run(remote.path, *listed).splitlines() if line.startswith("?")}


def close_history(remote: Remote, commits: Iterable[str]) -> None:
    """Mark those of the commits that are here as having no parents, where their parents are not; git itself does so
    after the pack has come, and may have been killed between."""
    if unsure := present(remote.git_dir, commits) - read_shallow(remote.git_dir):
        headers = {oid: text.partition(b"\n\n")[0] for oid, text in read_blobs(remote, unsure).items()}
        found = {oid: re.findall(rb"^parent (\w+)$", header, re.M) for oid, header in headers.items()}
        parents = {oid: {parent.decode() for parent in theirs} for oid, theirs in found.items()}
        here = present(remote.git_dir, set().union(*parents.values()))
        add_shallow(remote.git_dir, [oid for oid, theirs in parents.items() if theirs - here])


def fetch_blobs(remote: Remote, oids: Iterable[str], doing: str) -> bool:
    """Bring exactly these objects, in one request. False where the remote serves none by its id."""
    if wanted := sorted(set(oids)):
        flags = ("--filter=blob:none", "--stdin", "origin")
        try:
            remote.fetch(*flags, doing=doing, stdin="\n".join(wanted) + "\n", options=_NO_HAVES)
        except RefusedError:
            return False
    return True


def read_blobs(remote: Remote, oids: Iterable[str]) -> dict[str, bytes]:
    """The content of objects that are here (git-cat-file(1), --batch)."""
    asked, found = "".join(f"{oid}\n" for oid in oids), dict[str, bytes]()
    told = run(remote.path, "cat-file", "--batch", stdin=asked) if asked else ""
    rest = told.encode("utf-8", "surrogateescape") + b"\n"
    while rest.strip():
        head, _, rest = rest.partition(b"\n")
        oid, _, size = head.decode().split()
        found[oid], rest = rest[: int(size)], rest[int(size) + 1 :]
    return found


def fetch_whole(remote: Remote, target: Target) -> None:
    """Bring all files of the target in one delta-compressed pack, though its commit and trees are here already."""
    with _aside(remote) as aside:
        _fetch_one(aside, target, ("--depth=1",), (), "fetching files")


def fetch_tags(remote: Remote, tags: Mapping[str, str], peeled: Mapping[str, str]) -> None:
    """Bring the commits that the tags (name to object id) name, without their trees, where they are not here yet."""
    here = present(remote.git_dir, [*tags.values(), *peeled.values()])
    wanted = {oid for name, oid in tags.items() if not {oid, peeled.get(name, oid)} <= here}
    if wanted:
        flags = ("--depth=1", "--filter=tree:0", "--stdin", "origin")
        remote.fetch(*flags, doing="reading tags", stdin="\n".join(sorted(wanted)) + "\n", options=_NO_HAVES)
    add_shallow(remote.git_dir, {peeled.get(name, oid) for name, oid in tags.items() if oid not in wanted})


def fetch_history(remote: Remote, target: Target, wanted: Iterable[str], cached: Mapping[str, str]) -> None:
    """Bring the whole history of `target` and of the object ids `wanted`; a slim repository becomes a full one.

    `cached` are refs whose whole history lies in packs that are here already.
    """
    slim = bool(read_shallow(remote.git_dir))
    with _aside(remote) if slim else _in_place(remote) as place:
        for number, oid in enumerate(cached.values()):
            run(place.path, "update-ref", f"refs/cached/{number}", oid, check=False)
        oids = "\n".join(sorted({target.commit, *wanted})) + "\n"
        try:
            place.fetch("--stdin", "origin", doing="fetching the history", stdin=oids)
        except RefusedError:
            place.fetch("origin", "+refs/heads/*:refs/cached/*", doing="fetching the history")
        for number in range(len(cached)):
            run(place.path, "update-ref", "-d", f"refs/cached/{number}", check=False)
    if slim:
        for key in ("promisor", "partialclonefilter"):
            run(remote.path, "config", "--unset-all", f"remote.origin.{key}", check=False)
        for promise in (remote.git_dir / "objects" / "pack").glob("*.promisor"):
            promise.unlink()
        (remote.git_dir / "shallow").unlink()  # last: without it, all is taken to be here


def _fetch_one(remote: Remote, target: Target, flags: tuple[str, ...], options: tuple[str, ...], doing: str) -> None:
    try:
        remote.fetch(*flags, "origin", target.commit, doing=doing, options=options)
        return
    except RefusedError:
        remote.network.reporter.event(remote.who, "the remote serves no commit by its id; asking by name")
    names = {"branch": f"refs/heads/{target.name}", "tag": f"refs/tags/{target.name}", "commit": "refs/heads/*"}
    name = names[target.kind]
    # Protocol v0 claims every tag that is here, though their trees are not: nothing may be claimed.
    depth = () if target.kind == "commit" else [flag for flag in flags if "negotiation" not in flag]
    try:
        remote.fetch(
            *depth,
            "origin",
            f"+{name}:refs/named/*" if "*" in name else f"+{name}:refs/named/one",
            doing=doing,
            options=_NO_HAVES,
        )
    except RefusedError:
        remote.fetch("origin", "+refs/heads/*:refs/named/*", doing=doing, options=_NO_HAVES)
    if not present(remote.git_dir, [target.commit]):
        raise NetworkError(
            f"{remote.who}: the remote does not serve the commit {target.commit}.",
            "Name a branch or a tag that it serves, or configure another url.",
        )


@contextmanager
def _in_place(remote: Remote) -> Iterator[Remote]:
    yield remote


@contextmanager
def _aside(remote: Remote) -> Iterator[Remote]:
    """A repository of its own to fetch into, whose objects the remote's repository has at the end."""
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=remote.git_dir) as folder:
        aside = replace(remote, path=Path(folder), git_dir=Path(folder) / ".git")
        initialise(aside.path, remote.url)
        yield aside
        link_packs(aside.git_dir / "objects", remote.git_dir / "objects")
