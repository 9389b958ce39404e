"""Fetching the objects of one commit: as few as the work needs, each at most once.

A slim repository holds one commit (git-fetch(1), --depth), the commits of version tags without their trees, and of a
submodule only the blobs of some directories (partial clone, --filter). A full one holds the full history.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import NetworkError, UsageError
from ..models import Network
from .command import run
from .messages import GitError, NoObjectError, RefusedError
from .packs import add_shallow, link_packs, read_shallow
from .revisions import Target
from .transfer import reading, transfer

_NOTHING_IN_COMMON = ("-c", "fetch.negotiationAlgorithm=noop")


@dataclass(frozen=True)
class Entry:
    """One file or submodule of a commit's tree: mode as in git-ls-tree(1), and object id."""

    mode: str
    oid: str


@dataclass(frozen=True)
class LocalRepository:
    """The repository `git_dir` with its working tree `path`, whose remote `origin` is at `url`. `who` is its name in
    messages, such as `flashinfer/3rdparty/cutlass`."""

    path: Path
    git_dir: Path
    who: str
    url: str
    network: Network

    def git(self, *args: str, stdin: str = "", check: bool = True, index: Path | None = None, doing: str = "") -> str:
        """`command.run` in the working tree; what it is `doing` is reported with git's progress."""
        on_errors = reading(self.network.reporter, self.who, doing) if doing else None
        return run(self.path, *args, who=self.who, stdin=stdin, check=check, index=index, on_errors=on_errors)

    def fetch(self, *args: str, doing: str, stdin: str = "", options: tuple[str, ...] = ()) -> None:
        """git-fetch(1) with `args`, retried. Raises what `transfer` raises."""
        command = (*options, "fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--refmap=", *args)
        transfer(self.path, *command, url=self.url, who=self.who, doing=doing, network=self.network, stdin=stdin)


def initialise(repository: LocalRepository, *, bare: bool = False, sparse: bool = False) -> None:
    """Make a repository with the remote `origin`, or point the remote of an existing one at its present URL. A `bare`
    one is a submodule's, whose files come later, in a new one as a `sparse` checkout."""
    known = ""
    if (repository.git_dir / "objects").is_dir():
        known = repository.git("config", "remote.origin.url", check=False)
    else:
        repository.path.mkdir(parents=True, exist_ok=True)
        run(repository.path, "init", "--quiet", "--template=", *(("--bare",) if bare else ()))
    if not known:
        url = repository.url.replace("\\", "\\\\").replace('"', '\\"')
        remote = f'[remote "origin"]\n\turl = "{url}"\n\tpromisor = true\n\tpartialclonefilter = blob:none\n'
        with (repository.git_dir / "config").open("a", encoding="utf-8") as config:  # in place of five git processes
            config.write("[core]\n\tbare = false\n" if bare else "")
            config.write("\tsparseCheckout = true\n\tsparseCheckoutCone = true\n" if sparse else "")
            config.write(remote)
    elif known != repository.url:
        repository.git("config", "remote.origin.url", repository.url)


def present_commits(repository: LocalRepository, oids: Iterable[str]) -> dict[str, list[str]]:
    """Those of the commits that are in the repository, each with its parents as far as its history goes here; of a
    tag, the commit that it names. No remote is asked for the others."""
    if not (stdin := "".join(f"{oid}\n" for oid in oids)):
        return {}
    options = ("--no-walk=unsorted", "--parents", "--ignore-missing", "--missing=allow-any", "--stdin")
    lines = repository.git("rev-list", *options, stdin=stdin).splitlines()
    return {commit: parents for commit, *parents in map(str.split, lines)}


def is_full(repository: LocalRepository) -> bool:
    """Whether the repository has its full history."""
    return not read_shallow(repository.git_dir) and not any(repository.git_dir.glob("objects/pack/*.promisor"))


def close_history(repository: LocalRepository, commits: Iterable[str]) -> None:
    """Mark those of the commits whose parents are not here as having none. git does so after a fetch, but not for packs
    out of the cache, and it may have been killed before it did."""
    if not (unmarked := {*commits} - read_shallow(repository.git_dir)):
        return
    here = present_commits(repository, unmarked)
    if not any(here.values()):
        return
    parents = present_commits(repository, {parent for each in here.values() for parent in each})
    add_shallow(repository.git_dir, [commit for commit, wanted in here.items() if not {*wanted} <= {*parents}])


def read_tree(path: Path, commit: str) -> dict[str, Entry]:
    """Every path of the commit's tree (git-ls-tree(1), -r), in the repository at `path`."""
    listing = run(path, "ls-tree", "-r", "-z", "--full-tree", commit)
    lines = (line.split("\t", 1) for line in listing.split("\0") if line)
    return {path: Entry(mode, oid) for (mode, _, oid), path in ((head.split(), path) for head, path in lines)}


def read_blob(repository: LocalRepository, tree: Mapping[str, Entry], path: str) -> str:
    """The content of a regular file of a tree; empty where there is none."""
    entry = tree.get(path)
    return repository.git("cat-file", "blob", entry.oid) if entry and entry.mode.startswith("100") else ""


def local_objects(repository: LocalRepository) -> set[str]:
    """All objects that are here (git-cat-file(1)). A question about single ones would go to the remote."""
    options = ("--batch-all-objects", "--batch-check=%(objectname)", "--unordered", "--buffer")
    return {*repository.git("cat-file", *options).split()}


def fetch_commit(
    repository: LocalRepository, target: Target, haves: Iterable[str], *, files: bool
) -> dict[str, Entry]:
    """Fetch a commit with its trees, and all `files`, too, where none of the commits `haves` is here to build on: with
    one, only the trees that differ are sent, and `fetch_objects` brings the files that are missing. Returns its tree.
    Raises as `read_target` does."""
    here = present_commits(repository, [target.commit, *filter(None, haves)])
    if target.commit in here:  # out of the cache, or of an interrupted run
        with suppress(GitError):
            tree = read_tree(repository.path, target.commit)
            close_history(repository, [target.commit])
            return tree
    bases = [f"--negotiation-tip={oid}" for oid in here if oid != target.commit]
    content = "--no-filter" if files and not bases else "--filter=blob:none"
    _fetch_one(repository, target, (*bases, "--depth=1", content), () if bases else _NOTHING_IN_COMMON)
    try:
        return read_target(repository, target)
    except GitError:
        if not bases:
            raise
    # with protocol v0 git claims to have all of every tag that is here, though their trees are not
    _fetch_one(repository, target, ("--depth=1", content), _NOTHING_IN_COMMON)
    return read_target(repository, target)


def read_target(repository: LocalRepository, target: Target) -> dict[str, Entry]:
    """The tree of the target, which was fetched. Raises UsageError for a tag of something else than a commit."""
    if target.kind == "tag" and not present_commits(repository, [target.commit]):
        raise UsageError(f"{repository.who}: the tag {target.name} names no commit.", "Name another REF.")
    return read_tree(repository.path, target.commit)


def fetch_objects(repository: LocalRepository, target: Target, oids: Iterable[str]) -> None:
    """Fetch exactly these objects in one request; where the remote serves none by its id, all files of the target."""
    if wanted := sorted(set(oids)):
        try:
            _fetch_ids(repository, wanted, "blob:none", "fetching files")
        except (RefusedError, NoObjectError):
            with _aside(repository) as aside:
                _fetch_one(aside, target, ("--depth=1", "--no-filter"), ())


def fetch_tags(repository: LocalRepository, tags: Mapping[str, str], peeled: Mapping[str, str]) -> None:
    """Fetch the objects that tags name (name to object id) without trees, where they are not here. `peeled` are the
    commits of annotated ones."""
    here = local_objects(repository)
    wanted = {oid for name, oid in tags.items() if not {oid, peeled.get(name, oid)} <= here}
    if wanted:
        _fetch_ids(repository, sorted(wanted), "tree:0", "fetching tags")
    if found := {peeled.get(name, oid) for name, oid in tags.items() if oid not in wanted}:
        close_history(repository, found)


def fetch_history(repository: LocalRepository, target: Target, wanted: Iterable[str], complete: Iterable[str]) -> None:
    """Fetch the full history of `target` and of the objects `wanted`; a slim repository becomes a full one. The full
    history of the commits `complete` is here already."""
    slim = not is_full(repository)
    with _aside(repository) if slim else _in_place(repository) as place:
        bases = [f"--negotiation-tip={oid}" for oid in present_commits(place, complete)]
        oids = "".join(f"{oid}\n" for oid in sorted({target.commit, *wanted}))
        try:
            place.fetch(*bases, "--no-filter", "--stdin", "origin", doing="fetching the history", stdin=oids)
        except RefusedError:
            refspec = "+refs/heads/*:refs/fetched/*"
            place.fetch("--no-filter", "origin", refspec, doing="fetching the history")
    if slim:
        for promise in repository.git_dir.glob("objects/pack/*.promisor"):
            promise.unlink()
        (repository.git_dir / "shallow").unlink(missing_ok=True)  # last: from then on the history counts as complete
    for key in ("promisor", "partialclonefilter"):
        repository.git(
            "config", f"--file={repository.git_dir}/config", "--unset-all", f"remote.origin.{key}", check=False
        )


def _fetch_ids(repository: LocalRepository, oids: list[str], filter_: str, doing: str) -> None:
    options = ("--depth=1", f"--filter={filter_}", "--stdin", "origin")
    lines = "".join(f"{oid}\n" for oid in oids)
    repository.fetch(*options, doing=doing, stdin=lines, options=_NOTHING_IN_COMMON)


def _fetch_one(repository: LocalRepository, target: Target, flags: tuple[str, ...], options: tuple[str, ...]) -> None:
    doing = "fetching files" if "--no-filter" in flags else "fetching trees"
    try:
        repository.fetch(*flags, "origin", target.commit, doing=doing, options=options)
        return
    except (RefusedError, NoObjectError) as error:
        if isinstance(error, NoObjectError) and target.kind == "commit" and "/" not in repository.who:
            raise UsageError(error.what, "Name a commit that the remote has, or a branch or tag.") from None
    repository.network.reporter.event(repository.who, "the remote serves no commit by its id; fetching by name")
    names = {"branch": f"refs/heads/{target.name}", "tag": f"refs/tags/{target.name}", "commit": "refs/heads/*"}
    refspec = f"+{names[target.kind]}:refs/fetched/{'*' if target.kind == 'commit' else 'one'}"
    # protocol v0 claims to have every tag that is here, though their trees are not: nothing may be claimed
    unwanted = ("--negotiation", "--depth") if target.kind == "commit" else ("--negotiation",)
    kept = [flag for flag in flags if not flag.startswith(unwanted)]
    try:
        repository.fetch(*kept, "origin", refspec, doing=doing, options=_NOTHING_IN_COMMON)
    except NoObjectError:
        pass  # gone since the remote was asked
    except RefusedError:
        refspec = "+refs/heads/*:refs/fetched/*"
        repository.fetch("--no-filter", "origin", refspec, doing=doing, options=_NOTHING_IN_COMMON)
    if not present_commits(repository, [target.commit]):
        raise NetworkError(
            f"{repository.who}: {repository.url} does not serve the commit {target.commit}.",
            "It may have moved on: run the same command again, or name a branch or tag that it serves.",
        )


@contextmanager
def _in_place(repository: LocalRepository) -> Iterator[LocalRepository]:
    yield repository


@contextmanager
def _aside(repository: LocalRepository) -> Iterator[LocalRepository]:
    """A repository of its own to fetch into, whose objects `repository` has at the end: git does not send again what
    it takes to be here."""
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=repository.git_dir) as directory:
        aside = replace(repository, path=Path(directory), git_dir=Path(directory) / ".git")
        initialise(aside)
        yield aside
        link_packs(aside.git_dir / "objects", repository.git_dir / "objects")
