"""Checks of one checkout, offline: its directory, remote, REF, submodules, key directories and changed files."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from ..checkout import Checkout, changed_paths, check_lfs, find_checkout, gitlinks
from ..errors import SourcesError
from ..git import head_of
from ..models import Check, Repository, RepositoryState, Status
from ..names import redact
from ..packages import Source
from .packages import skipped

CHECKED = ("remote", "ref", "submodules", "directories", "tree")
SHOWN = 3  # examples in a message


@dataclass(frozen=True)
class FoundCheckout:
    """One repository as it was found; `source` is None where there is no checkout that can be read."""

    repository: Repository
    source: Source | None
    state: RepositoryState
    checks: tuple[Check, ...]


def check_checkout(repository: Repository) -> FoundCheckout:
    """Check the checkout of the repository. Nothing that is found raises, and nothing is changed."""
    name = repository.name
    state = RepositoryState(repository.path, redact(repository.url), repository.branch, None, None, None, {})
    try:
        if checkout := find_checkout(repository):
            return _found(checkout, state)
        first = Check(f"{name}: repository", "fail", f"not cloned: {repository.path}", command="invoke clone")
        why = "not cloned"
    except (SourcesError, OSError) as error:
        first, why = _failed(f"{name}: repository", error), "no checkout that can be read"
    return FoundCheckout(repository, None, state, (first, *skipped(name, CHECKED, why)))


def _found(checkout: Checkout, state: RepositoryState) -> FoundCheckout:
    repository, name, path = checkout.repository, checkout.repository.name, checkout.path
    source = Source(repository, checkout.head, checkout.tags)
    checks = [
        Check(f"{name}: repository", "pass", str(path)),
        Check(f"{name}: remote", "pass", redact(repository.url)),
        _ref(checkout),
    ]
    places, changed, version = dict[str, str | None](), None, None
    with _reported(f"{name}: submodules", checks):
        checks.append(_submodules(checkout))
    with _reported(f"{name}: directories", checks):
        places = source.layout.find_directories(lambda each: (path / each).is_dir())
        checks += [_directory(source, role, place) for role, place in places.items()]
    with _reported(f"{name}: tree", checks, "skip"):
        changed = changed_paths(path)
        checks.append(_tree(checkout, changed))
    with suppress(SourcesError):
        version = source.version or None
    state = replace(
        state,
        ref=checkout.record.ref or checkout.now.branch or checkout.head,
        commit=checkout.head,
        version=version,
        dirty=None if changed is None else bool(changed),
        directories={role: path / place for role, place in places.items() if place},
    )
    return FoundCheckout(repository, source, state, (*checks, *filter(None, [check_lfs(repository)])))


@contextmanager
def _reported(name: str, checks: list[Check], status: Status = "fail") -> Iterator[None]:
    """Turn what keeps a check from being made into one with that name and status."""
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
    at = f"{checkout.head[:10]} ({checkout.now.branch or 'detached HEAD'})"
    ref, source = checkout.ref
    if record.moving:
        return Check(name, "fail", "an update was interrupted", command="invoke update")
    if not record.ref:
        return Check(name, "warn", f"{at}, which this tool did not check out", command="invoke update")
    if record.ref != ref:
        return Check(name, "warn", f"{record.shown}, but {ref} is configured", command="invoke update")
    if (checkout.head, checkout.now.branch) != (record.commit, record.name if record.kind == "branch" else ""):
        return Check(name, "fail", f"{at}, not {record.shown} ({record.commit[:10]})", command="invoke update")
    return Check(name, "pass", f"{record.shown} ({checkout.head[:10]}), from the {source}".replace("the this", "this"))


def _submodules(checkout: Checkout) -> Check:
    name, links = f"{checkout.repository.name}: submodules", gitlinks(checkout.path, checkout.head)
    wrong = [path for path, oid in links.items() if head_of(checkout.path / path) != oid]
    if wrong:
        return Check(name, "fail", f"missing or at another commit: {', '.join(wrong)}", command="invoke update")
    return Check(name, "pass" if links else "skip", ", ".join(links) or "there are none")


def _directory(source: Source, role: str, place: str | None) -> Check:
    name, path = f"{source.repository.name}: {role}", source.repository.path
    if place:
        return Check(name, "pass", place)
    first = source.layout.directories[role][0]
    restore = shlex.join(["git", "-C", str(path), "checkout", "HEAD", "--", first])
    return Check(name, "fail", f"{path / first} is missing", command=restore)


def _tree(checkout: Checkout, changed: list[str]) -> Check:
    name = f"{checkout.repository.name}: tree"
    if not changed:
        return Check(name, "pass", "no tracked file is changed")
    command = shlex.join(["git", "-C", str(checkout.path), "status"])
    return Check(name, "warn", f"{len(changed)} changed: {', '.join(changed[:SHOWN])}", command=command)
