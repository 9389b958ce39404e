"""A move of a checkout to another commit: every object is brought first, then what could be lost is looked for."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from ..errors import LocalWorkError
from ..git import fetch, messages, refs, submodules
from ..git.repository import Checkout, Record
from . import local_work, sparse, vanish

PYPROJECT = "pyproject.toml"
AT_ONCE = 32  # downloads of one repository's submodules


@dataclass(frozen=True)
class Move:
    """A checkout that is to be at `target`, whose objects are all here. Of a submodule, `before` is the commit that its
    parent is at now, and `directories` are to be checked out (see `sparse.choose`)."""

    checkout: Checkout
    target: refs.Target
    before: str = ""
    directories: sparse.Directories = None
    submodules: tuple[Move, ...] = ()

    @property
    def record(self) -> Record:
        """What is kept once it is done. For a submodule, the directories that this tool has set."""
        checkout, target = self.checkout, self.target
        configured = checkout.repository.branch or (checkout.record.configured if checkout.is_linked else "")
        if self.directories is not None:
            configured = "\n".join(self.directories)
        return Record(target.ref, configured, target.kind, target.name, target.commit)

    @property
    def is_done(self) -> bool:
        """Whether this submodule is as it is to be."""
        checkout = self.checkout
        return checkout.is_linked and checkout.again().head == self.target.commit and checkout.record == self.record


def bring_submodules(move: Move, source: fetch.Source) -> Move:
    """Bring every object of the submodules of a commit that is here, all at once. Raises NetworkError, DiskError, and
    SourcesError for what .gitmodules declares."""
    checkout, commit = move.checkout, move.target.commit
    declared = submodules.declared(checkout, commit)
    if not declared:
        return move
    pyproject = checkout.git("cat-file", "blob", f"{commit}:{PYPROJECT}", check=False)
    before = submodules.declared(checkout, checkout.head) if checkout.head else {}

    def bring(submodule: submodules.Submodule) -> Move:
        shipped = None if source.full else sparse.shipped_directories(pyproject, submodule.path)
        known = before[submodule.path].commit if submodule.path in before else ""
        target = refs.Target(submodule.url, "commit", submodule.name, submodule.commit, submodule.commit)
        return _bring(Move(submodules.checkout_of(checkout, submodule), target, known), shipped, source)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return replace(move, submodules=tuple(pool.map(bring, declared.values())))


def _bring(move: Move, shipped: sparse.Directories, source: fetch.Source) -> Move:
    """Bring every object of a submodule that ships these directories, and of its own submodules."""
    checkout = move.checkout
    fetch.initialise(checkout)
    if not checkout.remote:  # the submodule's URL has changed
        checkout.git("config", "remote.origin.url", checkout.url)
        checkout = checkout.again()
    needed, directories = sparse.choose(checkout, shipped, source.full)
    move = replace(move, checkout=checkout, directories=directories)
    if move.is_done and not (source.full and checkout.is_shallow):
        return move
    fetch.bring(checkout, move.target, source, needed)
    return bring_submodules(move, source) if needed is None else move


def problems(move: Move) -> Iterator[LocalWorkError]:
    """Everything of the user's that the move could lose, in the checkout and below it."""
    checkout, commit = move.checkout, move.target.commit
    moved = not move.is_done
    if moved and checkout.head:
        yield from local_work.problems(checkout, branch=move.target.branch, known=[commit, move.before])
        if checkout.is_sparse or any(not submodule.is_done for submodule in move.submodules):
            yield from local_work.in_the_way(checkout, commit)  # before a submodule moves
        for account in vanish.accounts(checkout, commit):
            yield from account.problems
    for submodule in move.submodules:
        if submodule.checkout.is_linked:
            yield from problems(submodule)
        elif checkout.head:
            yield from _obstacle(checkout, submodule)


def _obstacle(parent: Checkout, submodule: Move) -> Iterator[LocalWorkError]:
    """What is in the place of a submodule whose files are not there yet."""
    path = str(submodule.checkout.path.relative_to(parent.path))
    if submodules.gitlinks(parent, parent.head, path):
        yield from vanish.account(parent, path, submodule.before).problems
    elif strays := local_work.untracked_files(parent, "--", f":(literal){path}"):
        yield messages.overwrite_error(parent.name, parent.path, strays, untracked=True)
