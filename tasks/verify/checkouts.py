"""Checks of one checkout, offline: its REF, submodules, key directories and changed files."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .. import checkout as checkouts
from ..checkout.state import kept_ref
from ..errors import SourcesError, examples
from ..git import Checkout
from ..models import Check, Repository, RepositoryState
from ..names import redact, shell
from ..packages import Package, version_of


@dataclass(frozen=True)
class Found:
    """One repository as it is: its checkout and package are None where there is none that can be read, and `problem`
    says why."""

    repository: Repository
    checkout: Checkout | None = None
    package: Package | None = None
    problem: Check | None = None

    @property
    def name(self) -> str:
        """The repository's name."""
        return self.repository.name


def find(repository: Repository) -> Found:
    """Find the checkout of the repository and the package in it. Nothing that is found raises."""
    name, checkout = repository.name, None
    try:
        checkout = checkouts.find(repository)
        if not checkout:
            missing = Check(f"{name}: repository", "fail", "not cloned", command="invoke clone")
            return Found(repository, problem=missing)
        package = Package(checkout) if repository.install else None
        return Found(repository, checkout, package)
    except (SourcesError, OSError) as error:
        return Found(repository, checkout, problem=_failed(f"{name}: {'metadata' if checkout else 'checkout'}", error))


def describe(found: Found) -> RepositoryState:
    """The state of the checkout, and the version in it; where it cannot be read, why. Nothing that is found raises."""
    repository, problem = found.repository, found.problem
    state = RepositoryState(repository.path, redact(repository.url), repository.branch)
    try:
        if found.checkout:
            state = checkouts.describe(found.checkout)
            version = found.package.version if found.package else version_of(found.checkout)
            state = replace(state, version=version or None)
    except (SourcesError, OSError) as error:
        problem = _failed("", error)
    return replace(state, problem=problem.detail) if problem else state


def check_checkout(found: Found) -> tuple[RepositoryState, list[Check]]:
    """Check the checkout; where nothing is cloned, that is the only check."""
    repository, name, checkout = found.repository, found.name, found.checkout
    checks = [found.problem] if found.problem else []
    state = RepositoryState(repository.path, redact(repository.url), repository.branch)
    if not checkout:
        return state, checks
    try:
        state = checkouts.describe(checkout)
        checks.append(Check(f"{name}: repository", "pass", f"{repository.path}, from {state.url}"))
        checks.append(_ref(checkout, state))
        checks.append(_submodules(checkout))
        hint = f"`{shell('git', '-C', state.path, 'status')}` shows them."
        tree = Check(f"{name}: tree", "warn", f"{len(state.changed)} changed: {examples(state.changed)}", hint)
        checks.append(tree if state.changed else Check(tree.name, "pass", "no file is changed"))
        if package := found.package:
            layout, path = package.layout, repository.path
            directories = layout.find_directories(lambda directory: (path / directory).is_dir())
            checks += [_directory(f"{name}: {role}", found, directories[role], layout.directories[role][0])
                       for role in directories]  # fmt: skip
            known = {role: path / directory for role, directory in directories.items() if directory}
            state = replace(state, version=package.version or None, directories=known)
    except (SourcesError, OSError) as error:
        checks.append(_failed(f"{name}: checkout", error))
    return state, checks


def _failed(name: str, error: SourcesError | OSError) -> Check:
    if isinstance(error, SourcesError):
        return Check(name, "fail", error.what, error.hint, error.command)
    return Check(name, "fail", str(error))


def _ref(checkout: Checkout, state: RepositoryState) -> Check:
    name, record = f"{checkout.name}: ref", checkout.record
    at = f"{checkout.head[:10]} ({state.branch or 'detached HEAD'})"
    configured, source = kept_ref(checkout.repository, record)
    if state.problem:
        return Check(name, "fail", state.problem, command="invoke update")
    if not record.ref:
        return Check(name, "warn", f"{at}, which this tool did not check out", command="invoke update")
    if record.ref != configured:
        return Check(name, "warn", f"{record.shown}, but {configured} is configured", command="invoke update")
    if checkouts.is_users_branch(checkout, record.branch):
        return Check(name, "pass", f"your branch {state.branch} ({checkout.head[:10]}), not {record.shown}")
    if (checkout.head, state.branch) != (record.commit, record.branch):
        return Check(name, "fail", f"{at}, not {record.shown} ({record.commit[:10]})", command="invoke update")
    origin = source if source == "this checkout" else f"the {source}"
    return Check(name, "pass", f"{record.shown} ({checkout.head[:10]}), from {origin}")


def _submodules(checkout: Checkout) -> Check:
    name, faults = f"{checkout.name}: submodules", checkouts.submodule_faults(checkout)
    if not faults:
        return Check(name, "pass", "complete")
    path, fault = next(iter(faults.items()))
    restore = shell("git", "-C", checkout.path / path, "checkout-index", "--all", "--quiet")  # overwrites nothing
    command = restore if fault.endswith("gone") else "invoke update"
    return Check(name, "fail", examples([f"{path}: {fault}" for path, fault in faults.items()]), command=command)


def _directory(name: str, found: Found, directory: str | None, usual: str) -> Check:
    if directory:
        return Check(name, "pass", directory)
    path = found.repository.path
    restore = shell("git", "-C", path, "checkout", "HEAD", "--", usual)
    return Check(name, "fail", f"{path / usual} is missing", command=restore)
