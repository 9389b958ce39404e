"""Checks of what is installed in an environment: whether it comes from the checkouts."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from packaging.utils import canonicalize_name

from ..errors import SourcesError, examples
from ..models import Check, PackageState
from ..names import redact
from ..packages import (
    FLASHINFER,
    Environment,
    Missing,
    Package,
    admits,
    flashinfer_requirement,
    has_release,
    import_check,
    missing_requirements,
    names,
)

MATCH = "invoke setup --flashinfer-branch=matching"
INSTALLED = ("installed", "version", "requirements", "pins", "imports")


def skipped(repository: str, names: Iterable[str], why: str) -> list[Check]:
    """Checks that could not be made."""
    return [Check(f"{repository}: {name}", "skip", why) for name in names]


def package_state(package: Package, environment: Environment) -> PackageState:
    """The package as it is installed."""
    found = environment.distribution(package.name)
    return PackageState(found.version, found.editable, found.location) if found else PackageState(None, False, None)


def check_package(
    package: Package, packages: Sequence[Package], environment: Environment, tags: Collection[str]
) -> list[Check]:
    """Check that the package is installed from its checkout, in its version and with its requirements, and import it.

    `packages` are all that come from checkouts. `tags` are those of FlashInfer's checkout: its releases, which a pin on
    FlashInfer may name.
    """
    checks = [*_check_metadata(package, packages, environment, tags)]
    if environment.distribution(package.name):
        # What fixes an import is most often what fixes the first other fault
        fixes = [check.command for check in checks if check.status in ("fail", "warn") and check.command]
        ok, detail = import_check(environment, package.module, package.folder)
        checks.append(check_import(package, environment, ok, detail, [*fixes, "invoke install --reinstall"][0]))
    return checks


def _check_metadata(
    package: Package, packages: Sequence[Package], environment: Environment, tags: Collection[str]
) -> Iterator[Check]:
    name, ours = package.repository.name, names(packages)
    found = environment.distribution(package.name)
    if not found:
        missing = f"{package.name} is not installed in {environment.prefix}"
        yield Check(f"{name}: installed", "fail", missing, command="invoke install")
        yield from skipped(name, INSTALLED[1:], "not installed")
        return
    source = f"editable from {found.location}" if found.editable else "not editable, a release from an index"
    if package.is_checkout(replace(found, version=package.version)):
        yield Check(f"{name}: installed", "pass", source)
    else:
        detail = found.broken or f"{source}; the checkout is {package.folder}"
        yield Check(f"{name}: installed", "fail", detail, command="invoke install")
    if package.fits(found.version):
        yield Check(f"{name}: version", "pass", found.version)
    else:
        detail = f"{found.version} is installed, the checkout is {package.version}"
        yield Check(f"{name}: version", "fail", detail, command="invoke install --reinstall")
    try:
        unmet = missing_requirements(environment, found, package.repository.extras)
        yield _unmet(f"{name}: requirements", [one for one in unmet if _name(one) not in ours], "invoke install")
        yield _pins(package, [one for one in unmet if _name(one) in ours], environment, tags)
    except SourcesError as error:
        yield Check(f"{name}: requirements", "fail", error.what, error.hint, "invoke install --reinstall")
    for companion in package.layout.companions:
        other = environment.distribution(companion)
        if other and not package.fits(other.version):
            detail = f"{other.version}, but {name} is {package.version}"
            yield Check(f"{name}: {companion}", "fail", detail, command="invoke install")
        elif other:
            yield Check(f"{name}: {companion}", "pass", other.version)


def check_import(package: Package, environment: Environment, ok: bool, detail: str, command: str) -> Check:
    """The check of an import from the result of `import_check`; `command` fixes a failure.

    If a module is missing because the requirements were not installed on purpose (`--no-deps`), that is a warning.
    """
    name = f"{package.repository.name}: imports"
    if ok:
        return Check(name, "pass", detail)
    module = re.match(r"ModuleNotFoundError: No module named '([^'.]+)", detail)
    found = environment.distribution(package.name)
    if module and found and module[1] != package.module and package.without_deps(environment):
        with suppress(SourcesError):
            if missing_requirements(environment, found, package.repository.extras):
                detail = f"needs {module[1]}; requirements were not installed (--no-deps)"
                return Check(name, "warn", detail, command="invoke install")
    return Check(name, "fail", detail, command=command)


def _pins(package: Package, unmet: list[Missing], environment: Environment, tags: Collection[str]) -> Check:
    """Whether the FlashInfer that `matching` would choose is installed, with its companions."""
    required = flashinfer_requirement(package.metadata, package.repository.extras)
    if required and not any(_name(one) in FLASHINFER for one in unmet):
        versions = [found.version for name in FLASHINFER if (found := environment.distribution(name))]
        if not any(admits(required, version) for version in versions):
            unmet = [Missing(required, next(iter(versions), "")), *unmet]
    available = required is None or has_release(required, tags)
    hint = "" if available else "No tag of FlashInfer's checkout is a release that meets this."
    return _unmet(f"{package.repository.name}: pins", unmet, MATCH if available else "", hint)


def _unmet(name: str, unmet: Sequence[Missing], command: str, hint: str = "") -> Check:
    shown = [f"{redact(str(one.requirement))} (installed: {one.installed or 'none'})" for one in unmet]
    if shown:
        return Check(name, "warn", f"not met: {examples(shown)}", hint, command)
    return Check(name, "pass", "all met")


def _name(missing: Missing) -> str:
    return canonicalize_name(missing.requirement.name)
