"""Looks at everything that a set-up consists of, offline, and changes nothing. Each check is made on its own."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..checkout.changes import changed_paths
from ..checkout.local_work import check_remote, has_checkout
from ..checkout.state import Checkout, read_checkout
from ..errors import SourcesError
from ..git.fetch import Remote, read_tree
from ..git.submodules import GITLINK, head_of
from ..models import Check, Network, Reporter, Repository, RepositoryState, Settings, Verification
from ..names import redact
from ..packages.environment import Environment, import_check
from ..packages.package import Package
from .packages import INSTALLED, SHOWN, check_package, package_state, skipped
from .trace import read_trace

Look = Callable[[Checkout], Iterator[Check]]
LOOKED_AT = ("remote", "ref", "submodules", "directories", "tree")


@dataclass(frozen=True)
class _Seen:
    """One repository as it was found; `checkout` is None where there is none that can be read."""

    repository: Repository
    checkout: Checkout | None
    state: RepositoryState
    checks: tuple[Check, ...]


def verify(settings: Settings, environment: Environment, reporter: Reporter, *, strict: bool) -> Verification:
    """Check the repositories, what is installed of them in `environment`, and the trace data.

    Nothing that is found raises; a check that could not be made is a skip. With `strict` a warning is not `ok`.
    """
    with ThreadPoolExecutor(2 * len(settings.repositories) + 1) as pool:
        assert settings.trace
        trace = pool.submit(read_trace, settings.trace)
        seen = list(pool.map(partial(_look, settings, reporter), settings.repositories))
        packages = {each.repository.name: package for each in seen if (package := _package(each))}
        imports = {
            name: pool.submit(import_check, environment, package.module, package.folder)
            for name, package in packages.items()
            if environment.distribution(package.name)
        }
        beside = list(packages.values())
        installed = {name: list(check_package(package, beside, environment)) for name, package in packages.items()}
        checks: list[Check] = []
        for each in seen:
            name = each.repository.name
            checks += [*each.checks, *installed.get(name, ())]
            if name not in packages and each.repository.install:
                why = "its checkout cannot be read" if each.checkout else "it is not cloned"
                checks += skipped(name, (*INSTALLED, "imports"), why)
            elif name in imports:
                ok, detail = imports[name].result()
                fix = "" if ok else _fix(installed[name])
                checks.append(Check(f"{name}: imports", "pass" if ok else "fail", detail, command=fix))
            elif each.repository.install:
                checks.append(Check(f"{name}: imports", "skip", "it is not installed"))
        checks += trace.result().checks
    bad = {"fail", "warn"} if strict else {"fail"}
    return Verification(
        ok=not any(check.status in bad for check in checks),
        repositories={each.repository.name: each.state for each in seen},
        packages={name: package_state(package, environment) for name, package in packages.items()},
        trace=trace.result(),
        checks=tuple(checks),
    )


def _fix(others: Sequence[Check]) -> str:
    """What mends an import: most often what mends the first thing that is wrong with the package."""
    bad = (check.command for check in others if check.status in ("fail", "warn") and check.command)
    return next(bad, "invoke install --reinstall")


def _look(settings: Settings, reporter: Reporter, repository: Repository) -> _Seen:
    name = repository.name
    nothing = RepositoryState(repository.path, redact(repository.url), repository.branch, None, None, None, {})
    try:
        if not has_checkout(repository):
            missing = Check(f"{name}: repository", "fail", f"nothing at {repository.path}", command="invoke clone")
            return _Seen(repository, None, nothing, (missing, *skipped(name, LOOKED_AT, "it is not cloned")))
        with ThreadPoolExecutor(1) as pool:
            tree = pool.submit(changed_paths, repository.path)  # what takes longest begins first
            return _look_into(settings, reporter, read_checkout(repository), tree)
    except (SourcesError, OSError) as error:
        failed = _failed(f"{name}: repository", error)
        return _Seen(repository, None, nothing, (failed, *skipped(name, LOOKED_AT, "there is no checkout to look at")))


def _look_into(settings: Settings, reporter: Reporter, checkout: Checkout, tree: Future[list[str]]) -> _Seen:
    repository, name = checkout.repository, checkout.repository.name
    remote = Remote(repository.path, checkout.git_dir, name, repository.url, Network(1, settings.stall, reporter))
    checks = [Check(f"{name}: repository", "pass", str(repository.path))]
    changed: list[str] | None = None
    looks: tuple[Look, ...] = (_remote, _ref, partial(_submodules, remote), _directories)
    for what, look in zip(LOOKED_AT[:-1], looks, strict=True):
        checks += _guarded(f"{name}: {what}", look, checkout)
    try:
        changed = tree.result()
        some = f"{len(changed)} changed: {', '.join(changed[:SHOWN])}"
        detail = some if changed else "no tracked file is changed"
        fix = shlex.join(["git", "-C", str(repository.path), "status"]) if changed else ""
        checks.append(Check(f"{name}: tree", "warn" if changed else "pass", detail, command=fix))
    except SourcesError as error:
        checks.append(Check(f"{name}: tree", "skip", error.what, error.hint, error.command))
    state = RepositoryState(
        repository.path,
        redact(repository.url),
        checkout.record.ref or checkout.branch or checkout.head,
        checkout.head or None,
        _version(checkout),
        None if changed is None else bool(changed),
        _places(checkout),
    )
    return _Seen(repository, checkout, state, tuple(checks))


def _guarded(name: str, look: Look, checkout: Checkout) -> list[Check]:
    try:
        prefix = checkout.repository.name
        return [replace(each, name=f"{prefix}: {each.name}" if each.name else name) for each in look(checkout)]
    except (SourcesError, OSError) as error:
        return [_failed(name, error)]


def _failed(name: str, error: SourcesError | OSError) -> Check:
    if isinstance(error, SourcesError):
        return Check(name, "fail", error.what, error.hint, error.command)
    return Check(name, "fail", str(error))


def _remote(checkout: Checkout) -> Iterator[Check]:
    check_remote(checkout)
    yield Check("", "pass", redact(checkout.repository.url))


def _ref(checkout: Checkout) -> Iterator[Check]:
    record, at = checkout.record, f"{checkout.head[:10]} ({checkout.branch or 'detached'})"
    asked = f"{record.ref} ({record.name})" if record.name not in ("", record.ref) else record.ref
    if record.moving:
        yield Check("", "fail", "an update was cut off", command="invoke update")
    elif not record.ref:
        yield Check("", "warn", f"at {at}; this tool did not check it out", command="invoke update")
    elif record.configured != checkout.repository.branch:
        yield Check("", "warn", f"{asked}; now {checkout.repository.branch} is configured", command="invoke update")
    elif checkout.head != record.commit or checkout.branch != (record.name if record.kind == "branch" else ""):
        yield Check("", "fail", f"at {at}; {asked} was asked for, {record.commit[:10]}", command="invoke update")
    else:
        yield Check("", "pass", f"{asked} at {checkout.head[:10]}")


def _submodules(remote: Remote, checkout: Checkout) -> Iterator[Check]:
    links = {path: entry.oid for path, entry in read_tree(remote, checkout.head).items() if entry.mode == GITLINK}
    wrong = [path for path, oid in links.items() if head_of(checkout.path / path) != oid]
    if wrong:
        yield Check("", "fail", f"missing or at another commit: {', '.join(wrong)}", command="invoke update")
    elif links:
        yield Check("", "pass", ", ".join(links))
    else:
        yield Check("", "skip", "it has none")


def _directories(checkout: Checkout) -> Iterator[Check]:
    found = checkout.source.layout.find_directories(lambda path: (checkout.path / path).is_dir())
    for role, path in found.items():
        if path:
            yield Check(role, "pass", path)
        else:
            place = checkout.source.layout.directories[role][0]
            restore = shlex.join(["git", "-C", str(checkout.path), "checkout", "HEAD", "--", place])
            yield Check(role, "fail", f"{checkout.path / place} is missing", command=restore)


def _places(checkout: Checkout) -> dict[str, Path]:
    try:
        found = checkout.source.layout.find_directories(lambda path: (checkout.path / path).is_dir())
    except SourcesError:
        return {}
    return {role: checkout.path / path for role, path in found.items() if path}


def _version(checkout: Checkout) -> str | None:
    try:
        return checkout.source.version or None
    except SourcesError:
        return None


def _package(seen: _Seen) -> Package | None:
    try:
        return Package.of(seen.checkout.source) if seen.checkout and seen.repository.install else None
    except SourcesError:
        return None
