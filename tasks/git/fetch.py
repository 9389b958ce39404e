"""Bringing the objects of a commit into a repository, all of them before a file changes.

A slim repository begins one commit deep and grows with each update of a branch; a slim submodule has the files of some
directories only. A full one has the full history, and the file contents of the commits that were checked out. All are
partial clones (git-clone(1), --filter), so that git itself fetches what a user asks for beyond that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath

from ..errors import NetworkError, SourcesError, UsageError
from ..models import Network
from ..names import HEADS, TAGS, redact
from . import command, refs
from .messages import GitError, RefusedError
from .repository import Checkout
from .submodules import REFUSED

BROUGHT = "refs/sources/"  # commits that no branch of the remote has led to
GIVE_ANOTHER = "Give the full id of a commit that was pushed, or name a branch."
ROUNDS = 4  # of fetching what is missing: trees, then the trees and files in them


@dataclass(frozen=True)
class Source:
    """How objects come: over which network, and with the `full` history or not."""

    network: Network
    full: bool


def initialise(checkout: Checkout) -> Checkout:
    """Make the repository of a new checkout, or of a submodule whose files come later (git-init(1), which may be run
    again), or give it the submodule's URL, which has changed. Returns the checkout."""
    others = takewhile(lambda parent: parent.name != "modules", checkout.git_dir.parents)
    if checkout.git_dir.name != ".git" and any((other / "HEAD").exists() for other in others):
        what = f"{checkout.name}: its repository would be inside that of another submodule, {checkout.git_dir.parent}."
        raise SourcesError(what, REFUSED)
    if checkout.remote:
        return checkout
    above, name = checkout.git_dir.parent, checkout.git_dir.name
    above.mkdir(parents=True, exist_ok=True)
    command.git(above, "init", "--quiet", "--bare", "--template=", name, who=checkout.name)
    settings = {
        "core.bare": "false",
        "remote.origin.promisor": "true",
        "remote.origin.partialclonefilter": "blob:none",
        "remote.origin.url": checkout.url,  # the last one: with it the repository is complete
    }
    for key, value in settings.items():
        command.git(checkout.git_dir, "config", key, value, who=checkout.name)
    return checkout.again()


def packed_bytes(git_dir: Path) -> int:
    """The size of all packs of the repository and of its submodules, in bytes."""
    return sum(pack.stat().st_size for pack in git_dir.rglob("objects/pack/pack-*.pack"))


def has_commit(checkout: Checkout, commit: str) -> bool:
    """Whether the commit is here."""
    return checkout.git("cat-file", "-t", commit, check=False) == "commit"


def bring(checkout: Checkout, target: refs.Target, source: Source, directories: Sequence[str] | None = None) -> None:
    """Fetch the commit with all its files, or those of some `directories` and of the directories above them.

    Raises UsageError for a tag that names no commit, NetworkError for a commit that the remote does not serve.
    """
    partial = source.full or directories is not None
    is_complete = False
    if not has_commit(checkout, target.commit) or (source.full and checkout.is_shallow):
        _fetch_commit(checkout, target, source, partial=partial)
        is_complete = not partial and not checkout.is_sparse
    elif (ref := _following(checkout, target)) not in checkout.refs or target.branch:
        checkout.git("update-ref", ref, target.commit)
    if not is_complete:
        _bring_files(checkout, target.commit, source.network, directories)


def bring_tag(checkout: Checkout, tag: str, advertised: refs.Advertised, source: Source) -> None:
    """Fetch a tag and its commit, without the files. A tag of that name that is here already stays as it is, as with
    git-fetch(1)."""
    if f"{TAGS}{tag}" in checkout.refs or refs.conflicting(checkout.tags, tag):
        return
    oid = advertised.tags[tag]
    if not checkout.git("cat-file", "-t", oid, check=False):
        is_alone = checkout.is_shallow and not has_commit(checkout, advertised.commit(tag))
        depth = ["--depth=1"] if is_alone else []
        _fetch(checkout, source.network, *depth, "--filter=tree:0", checkout.remote, oid, doing="fetching a tag")
    checkout.git("update-ref", f"{TAGS}{tag}", oid)


def _following(checkout: Checkout, target: refs.Target) -> str:
    """The ref by which what was brought is known as the remote's."""
    return checkout.tracking(target.branch) if target.branch else f"{BROUGHT}{target.commit}"


def _fetch_commit(checkout: Checkout, target: refs.Target, source: Source, *, partial: bool) -> None:
    """Fetch the target; where its branch is followed already, with the history since, so that none is cut."""
    ref = _following(checkout, target)
    before = checkout.refs.get(ref)
    options = ["--filter=blob:none"] if partial else ["--no-filter"]
    if checkout.head and not partial:
        options.append(f"--negotiation-tip={checkout.head}")  # whose files are all here
    if source.full:
        options += ["--unshallow"] if checkout.is_shallow else []
    elif not checkout.head or (checkout.is_shallow and not before):
        options.append("--depth=1")
    for other in refs.conflicting(checkout.refs, ref):
        checkout.git("update-ref", "-d", other)  # gone from the remote, and its name is in the way
    try:
        _fetch(checkout, source.network, *options, checkout.remote, f"+{target.object}:{ref}")
    except RefusedError as error:
        if target.kind == "commit":
            is_given = target.ref.lower() == target.object
            raise (UsageError(error.what, GIVE_ANOTHER) if is_given else error) from None
        name = f"{HEADS if target.branch else TAGS}{target.name}"
        _fetch(checkout, source.network, *options, checkout.remote, f"+{name}:{ref}")
    if not has_commit(checkout, target.commit):
        kind = UsageError if target.kind == "tag" else NetworkError  # a tag may name a file
        what = f"{checkout.name}: {redact(checkout.url)} has no commit {target.commit} ({target.name})."
        raise kind(what, "It may have moved on: run the same command again, or name another REF.")
    if before and checkout.is_shallow:
        _connect(checkout, before.commit, target, source)


def _connect(checkout: Checkout, before: str, target: refs.Target, source: Source) -> None:
    """Fetch the history between what the branch was at and what it is at now, where a tag that was fetched alone cuts
    it."""
    if checkout.git("merge-base", before, target.commit, check=False):
        return
    boundary = (checkout.git_dir / "shallow").read_text().split()
    listed = checkout.git("rev-list", "--no-walk", "--timestamp", "--ignore-missing", before, *boundary).split("\n")
    since = min(int(line.split()[0]) for line in listed) - 1
    words = (f"--shallow-since={since}", "--filter=blob:none", checkout.remote, target.commit)
    _fetch(checkout, source.network, *words, doing="connecting history")


def _bring_files(checkout: Checkout, commit: str, network: Network, directories: Sequence[str] | None) -> None:
    listing = ("rev-list", "--objects", "--missing=print", "--no-walk", commit)
    paths = ["--", *cone(directories)] if directories is not None else []
    for _ in range(ROUNDS):
        try:
            lines = checkout.git(*listing, *paths).split("\n")
            missing = [line[1:] for line in lines if line.startswith("?")]
        except GitError:  # a directory on the way to the paths is missing: all of them are wanted
            missing = [checkout.git("cat-file", "commit", commit).split()[1]]
        if not missing:
            return
        options = ("--filter=blob:none", "--stdin", checkout.remote)
        _fetch(checkout, network, *options, doing="fetching files", stdin="\n".join(missing))


def cone(directories: Iterable[str]) -> list[str]:
    """The pathspecs of a sparse checkout of these directories (git-sparse-checkout(1), cone mode)."""
    above = {str(parent) for directory in directories for parent in PurePosixPath(directory).parents}
    return [*(f":(top,literal){directory}" for directory in directories),
            *(f":(top,glob){'' if parent == '.' else f'{parent}/'}*" for parent in sorted(above))]  # fmt: skip


def _fetch(checkout: Checkout, network: Network, *words: str, doing: str = "fetching", stdin: str = "") -> None:
    """git-fetch(1), retried. Objects that are wanted by their ids have nothing in common with what is here."""
    noop = ("-c", "fetch.negotiationAlgorithm=noop") if stdin else ()
    options = ("fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--refmap=", *words)
    place, url, who = checkout.place, checkout.url, checkout.name
    command.transfer(place, *noop, *options, url=url, who=who, doing=doing, network=network, stdin=stdin)
