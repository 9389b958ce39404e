"""One repository as it is on disk, and the checks of its checkout, offline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .. import checkout as checkouts
from ..errors import SourcesError, examples
from ..git import Checkout
from ..models import Check, Repository, RepositoryState
from ..names import redact, shell
from ..packages import Package, version_of


@dataclass
class Found:
    """One repository as it is. `checkout` and `package` are None where there is none; where that is a fault, or one of
    them cannot be read, `problem` says why."""

    repository: Repository
    state: RepositoryState
    checkout: Checkout | None = None
    package: Package | None = None
    problem: Check | None = None


def find(repository: Repository, *, refresh: bool = False) -> Found:
    """Look at the checkout of the repository and at the package in it. Nothing that is found raises. With `refresh` git
    may write to its index what it found, as git-status(1) does."""
    path = repository.path
    found = Found(repository, RepositoryState(path, redact(repository.url), repository.branch))
    try:
        checkout = found.checkout = checkouts.find(repository)
        if not checkout:
            found.problem = Check("repository", "fail", "not cloned", command="invoke clone")
        else:
            found.state = replace(checkouts.describe(checkout, refresh=refresh), version=version_of(checkout) or None)
            if repository.install:
                package = found.package = Package(checkout)
                found.state = replace(found.state, directories=package.layout.find_directories(path))
    except (SourcesError, OSError) as error:
        found.problem = _failed("metadata" if found.checkout else "checkout", error)
    if found.problem:
        found.state = replace(found.state, problem=found.problem.detail)
    return found


def check_checkout(found: Found) -> Iterator[Check]:
    """Check the checkout; a problem that `find` met is the only check."""
    checkout, state = found.checkout, found.state
    if found.problem or not checkout:
        yield from filter(None, [found.problem])
        return
    yield Check("repository", "pass", f"{state.path}, from {state.url}")
    yield _ref(checkout, state)
    try:
        yield _submodules(checkout)
    except (SourcesError, OSError) as error:
        yield _failed("submodules", error)
    if state.changed:
        yield Check("tree", "warn", f"{len(state.changed)} changed: {examples(state.changed)}")
    else:
        yield Check("tree", "pass", "no file is changed")
    expected = found.package.layout.directories if found.package else {}
    for role, places in expected.items():
        if role in state.directories:
            yield Check(role, "pass", str(state.directories[role]))
        else:
            restore = shell("git", "-C", state.path, "checkout", "HEAD", "--", places[0])
            yield Check(role, "fail", f"{state.path / places[0]} is missing", command=restore)


def _failed(name: str, error: SourcesError | OSError) -> Check:
    if isinstance(error, SourcesError):
        return Check(name, "fail", error.what, error.hint, error.command)
    return Check(name, "fail", str(error))


def _ref(checkout: Checkout, state: RepositoryState) -> Check:
    name, record = "ref", checkout.record
    configured = state.ref if state.ref_source == "this checkout" else checkout.repository.branch
    at = f"{checkout.head[:10]} ({state.branch or 'detached HEAD'})"
    if state.problem:
        return Check(name, "fail", state.problem, command="invoke update")
    if record.ref != configured:
        return Check(name, "warn", f"{record.shown or at}, but {configured} is configured", command="invoke update")
    if checkouts.is_users_branch(checkout, record.branch):
        return Check(name, "pass", f"your branch {state.branch} ({checkout.head[:10]}), not {record.shown}")
    if (checkout.head, state.branch) != (record.commit, record.branch):
        return Check(name, "fail", f"{at}, not {record.shown} ({record.commit[:10]})", command="invoke update")
    return Check(name, "pass", f"{record.shown} ({checkout.head[:10]}), from {state.ref_source}")


def _submodules(checkout: Checkout) -> Check:
    name, faults = "submodules", checkouts.submodule_faults(checkout)
    if not faults:
        return Check(name, "pass", "complete")
    path, fault = next(iter(faults.items()))
    restore = shell("git", "-C", checkout.path / path, "checkout-index", "--all", "--quiet")  # overwrites nothing
    command = restore if fault.endswith("gone") else "invoke update"
    return Check(name, "fail", examples([f"{path}: {fault}" for path, fault in faults.items()]), command=command)
