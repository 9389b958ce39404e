"""Checks of one checkout, offline: its directory, remote, REF, submodules, key directories and changed files."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from ..checkout import changed_files, find, submodule_faults
from ..checkout.state import kept_ref
from ..errors import EXAMPLES, SourcesError
from ..git import Checkout, submodules
from ..models import Check, Repository, RepositoryState, Status
from ..names import redact
from ..packages import Source
from .packages import skipped

CHECKED = ("remote", "ref", "submodules", "directories", "tree")


@dataclass(frozen=True)
class FoundCheckout:
    """One repository as it was found; `source` is None if there is no checkout that can be read."""

    repository: Repository
    source: Source | None
    state: RepositoryState
    checks: tuple[Check, ...]


def check_checkout(repository: Repository) -> FoundCheckout:
    """Check the checkout of the repository. Nothing that is found raises, and nothing is changed."""
    name = repository.name
    state = RepositoryState(repository.path, redact(repository.url), repository.branch, None, None, None, {})
    try:
        if checkout := find(repository):
            return _found(checkout, state)
        first = Check(f"{name}: repository", "fail", f"not cloned: {repository.path}", command="invoke clone")
        reason = "not cloned"
    except (SourcesError, OSError) as error:
        first, reason = _failed(f"{name}: repository", error), "the checkout cannot be read"
    return FoundCheckout(repository, None, state, (first, *skipped(name, CHECKED, reason)))


def _found(checkout: Checkout, state: RepositoryState) -> FoundCheckout:
    repository, name, path = checkout.repository, checkout.repository.name, checkout.path
    source = Source(repository, checkout.head, checkout.tags)
    directories, changed, version = dict[str, str | None](), None, None
    checks = [
        Check(f"{name}: repository", "pass", str(path)),
        Check(f"{name}: remote", "pass", redact(repository.url)),
        _ref(checkout),
    ]
    with _reported(f"{name}: submodules", checks):
        checks.append(_submodules(checkout))
    with _reported(f"{name}: directories", checks):
        directories = source.layout.find_directories(lambda each: (path / each).is_dir())
        checks += [_directory(source, role, found) for role, found in directories.items()]
    with _reported(f"{name}: tree", checks, "skip"):
        changed = changed_files(checkout)
        checks.append(_tree(checkout, changed))
    with suppress(SourcesError):
        version = source.version or None
    state = replace(
        state,
        ref=checkout.record.ref or checkout.branch or checkout.head,
        commit=checkout.head,
        version=version,
        dirty=None if changed is None else bool(changed),
        directories={role: path / found for role, found in directories.items() if found},
    )
    return FoundCheckout(repository, source, state, tuple(checks))


@contextmanager
def _reported(name: str, checks: list[Check], status: Status = "fail") -> Iterator[None]:
    """Turn the error that a check ends with into the check `name`, with that status."""
    try:
        yield
    except (SourcesError, OSError) as error:
        checks.append(replace(_failed(name, error), status=status))


def _failed(name: str, error: SourcesError | OSError) -> Check:
    if isinstance(error, SourcesError):
        return Check(name, "fail", error.what, error.hint, error.command)
    return Check(name, "fail", str(error))


def _ref(checkout: Checkout) -> Check:
    name, record = f"{checkout.repository.name}: ref", checkout.record
    branch, (ref, source) = checkout.branch, kept_ref(checkout.repository, record)
    at = f"{checkout.head[:10]} ({branch or 'detached HEAD'})"
    if record.moving:
        return Check(name, "fail", "an update was interrupted", command="invoke update")
    if not record.ref:
        return Check(name, "warn", f"{at}, which this tool did not check out", command="invoke update")
    if record.ref != ref:
        return Check(name, "warn", f"{record.shown}, but {ref} is configured", command="invoke update")
    if (checkout.head, branch) != (record.commit, record.name if record.kind == "branch" else ""):
        return Check(name, "fail", f"{at}, not {record.shown} ({record.commit[:10]})", command="invoke update")
    origin = "this checkout" if source == "this checkout" else f"the {source}"
    return Check(name, "pass", f"{record.shown} ({checkout.head[:10]}), from {origin}")


def _submodules(checkout: Checkout) -> Check:
    name, commits = f"{checkout.repository.name}: submodules", submodules.declared(checkout, checkout.head)
    if faults := submodule_faults(checkout):
        detail = ", ".join(f"{path}: {fault}" for path, fault in faults.items())
        return Check(name, "fail", detail, command="invoke update")
    return Check(name, "pass" if commits else "skip", ", ".join(commits) or "there are none")


def _directory(source: Source, role: str, found: str | None) -> Check:
    name, path = f"{source.repository.name}: {role}", source.repository.path
    if found:
        return Check(name, "pass", found)
    first = source.layout.directories[role][0]
    restore = shlex.join(["git", "-C", str(path), "checkout", "HEAD", "--", first])
    return Check(name, "fail", f"{path / first} is missing", command=restore)


def _tree(checkout: Checkout, changed: list[str]) -> Check:
    name = f"{checkout.repository.name}: tree"
    if not changed:
        return Check(name, "pass", "no tracked file is changed")
    command = shlex.join(["git", "-C", str(checkout.path), "status"])
    return Check(name, "warn", f"{len(changed)} changed: {', '.join(changed[:EXAMPLES])}", command=command)
