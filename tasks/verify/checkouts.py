"""Checks of one checkout, offline: its place, remote, REF, submodules, key directories and changed files."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from ..checkout import Checkout, changed_paths, check_lfs, find_checkout, gitlinks
from ..errors import SourcesError
from ..git import head_of
from ..models import Check, Repository, RepositoryState
from ..names import redact
from ..packages import Source

CHECKED = ("remote", "ref", "submodules", "directories", "tree")
SHOWN = 3  # examples in a message


@dataclass(frozen=True)
class FoundCheckout:
    """One repository as it was found; `source` is None where there is no checkout that can be read."""

    repository: Repository
    source: Source | None
    state: RepositoryState
    checks: tuple[Check, ...]


def skipped(repository: str, names: Iterable[str], why: str) -> list[Check]:
    """Checks that could not be made."""
    return [Check(f"{repository}: {name}", "skip", why) for name in names]


def check_checkout(repository: Repository) -> FoundCheckout:
    """Check the checkout of the repository. Nothing that is found raises, and nothing is changed."""
    name = repository.name
    nothing = RepositoryState(repository.path, redact(repository.url), repository.branch, None, None, None, {})
    try:
        checkout = find_checkout(repository)
        if not checkout:
            missing = Check(f"{name}: repository", "fail", f"not cloned: {repository.path}", command="invoke clone")
            return FoundCheckout(repository, None, nothing, (missing, *skipped(name, CHECKED, "not cloned")))
        return _found(checkout)
    except (SourcesError, OSError) as error:
        failed = (_failed(f"{name}: repository", error), *skipped(name, CHECKED, "no checkout that can be read"))
        return FoundCheckout(repository, None, nothing, failed)


def _found(checkout: Checkout) -> FoundCheckout:
    repository, name = checkout.repository, checkout.repository.name
    source = Source(repository, checkout.head, checkout.tags)
    with ThreadPoolExecutor(1) as pool:
        tree = pool.submit(changed_paths, repository.path)  # what takes longest begins first
        checks = [
            Check(f"{name}: repository", "pass", str(repository.path)),
            Check(f"{name}: remote", "pass", redact(repository.url)),
            _ref(checkout),
            *_guarded(f"{name}: submodules", lambda: _submodules(checkout)),
            *_guarded(f"{name}: directories", lambda: _directories(source)),
        ]
        try:
            changed: list[str] | None = tree.result()
            listed = f"{len(changed or ())} changed: {', '.join((changed or [])[:SHOWN])}"
            command = shlex.join(["git", "-C", str(repository.path), "status"]) if changed else ""
            detail = listed if changed else "no tracked file is changed"
            checks.append(Check(f"{name}: tree", "warn" if changed else "pass", detail, command=command))
        except SourcesError as error:
            changed = None
            checks.append(replace(_failed(f"{name}: tree", error), status="skip"))
    checks += filter(None, [check_lfs(repository)])
    state = RepositoryState(
        repository.path,
        redact(repository.url),
        checkout.record.ref or checkout.now.branch or checkout.head,
        checkout.head,
        _version(source),
        None if changed is None else bool(changed),
        _places(source),
    )
    return FoundCheckout(repository, source, state, tuple(checks))


def _guarded(name: str, look: Callable[[], Iterator[Check]]) -> list[Check]:
    try:
        return list(look())
    except (SourcesError, OSError) as error:
        return [_failed(name, error)]


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


def _submodules(checkout: Checkout) -> Iterator[Check]:
    name, links = f"{checkout.repository.name}: submodules", gitlinks(checkout.path, checkout.head)
    wrong = [path for path, oid in links.items() if head_of(checkout.path / path) != oid]
    if wrong:
        yield Check(name, "fail", f"missing or at another commit: {', '.join(wrong)}", command="invoke update")
    else:
        yield Check(name, "pass" if links else "skip", ", ".join(links) or "there are none")


def _directories(source: Source) -> Iterator[Check]:
    path = source.repository.path
    for role, place in source.layout.find_directories(lambda each: (path / each).is_dir()).items():
        name = f"{source.repository.name}: {role}"
        if place:
            yield Check(name, "pass", place)
        else:
            first = source.layout.directories[role][0]
            restore = shlex.join(["git", "-C", str(path), "checkout", "HEAD", "--", first])
            yield Check(name, "fail", f"{path / first} is missing", command=restore)


def _places(source: Source) -> dict[str, Path]:
    path = source.repository.path
    try:
        found = source.layout.find_directories(lambda each: (path / each).is_dir())
    except SourcesError:
        return {}
    return {role: path / place for role, place in found.items() if place}


def _version(source: Source) -> str | None:
    try:
        return source.version or None
    except SourcesError:
        return None
