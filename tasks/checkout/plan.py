"""A move of a checkout to another commit: every object is brought first, then what could be lost is looked for."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from ..errors import LocalWorkError, SourcesError
from ..git import fetch, messages, refs, submodules
from ..git.repository import Checkout, Record
from . import local_work, sparse, vanish

PYPROJECT = "pyproject.toml"
DEEPEST = 8  # submodules of submodules
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


def bring_submodules(move: Move, source: fetch.Source, depth: int = 1) -> Move:
    """Bring every object of the submodules of a commit that is here, all at once. Raises NetworkError, DiskError, and
    SourcesError for what .gitmodules declares."""
    checkout, commit = move.checkout, move.target.commit
    declared = submodules.declared(checkout, commit)
    if not declared:
        return move
    if depth > DEEPEST:
        raise SourcesError(f"{checkout.name}: submodules are nested more than {DEEPEST} deep.")
    pyproject = checkout.git("cat-file", "blob", f"{commit}:{PYPROJECT}", check=False)
    before = submodules.declared(checkout, checkout.head) if checkout.head else {}

    def bring_one(submodule: submodules.Submodule) -> Move:
        shipped = None if source.full else sparse.shipped_directories(pyproject, submodule.path)
        known = before[submodule.path].commit if submodule.path in before else ""
        return _bring_submodule(checkout, submodule, shipped, known, source, depth)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return replace(move, submodules=tuple(pool.map(bring_one, declared.values())))


def _bring_submodule(
    parent: Checkout, submodule: submodules.Submodule, shipped: sparse.Directories, before: str, source: fetch.Source,
    depth: int,
) -> Move:  # fmt: skip
    checkout = submodules.checkout_of(parent, submodule)
    target = refs.Target(submodule.url, "commit", submodule.name, submodule.commit, submodule.commit)
    fetch.initialise(checkout)
    if not checkout.remote:  # the submodule's URL has changed
        checkout.git("config", "remote.origin.url", submodule.url)
        checkout = checkout.again()
    needed, directories = sparse.choose(checkout, shipped, source.full)
    move = Move(checkout, target, before, directories)
    if move.is_done and not (source.full and checkout.is_shallow):
        return move
    fetch.bring(checkout, target, source, needed)
    return bring_submodules(move, source, depth + 1) if needed is None else move


def problems(move: Move) -> Iterator[LocalWorkError]:
    """Everything of the user's that the move could lose, in the checkout and below it."""
    checkout, commit = move.checkout, move.target.commit
    moved = not move.is_done
    if moved and checkout.head:
        tracking = checkout.refs.get(checkout.tracking(move.target.branch))
        known = [checkout.record.commit, commit, move.before, tracking.commit if tracking else ""]
        yield from local_work.problems(checkout, branch=move.target.branch, known=known)
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
