"""Checks of what is installed in an environment, against the checkouts that it should come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from packaging.utils import canonicalize_name

from ..models import Check, PackageState
from ..packages.environment import Distribution, Environment
from ..packages.package import Package, names
from ..packages.requirements import Missing, missing_requirements

SHOWN = 3  # examples in a message
MATCH = "invoke setup --flashinfer-branch=matching"
INSTALLED = ("installed", "version", "requirements", "pins")


def skipped(repository: str, names: Iterable[str], why: str) -> list[Check]:
    """Checks that could not be made."""
    return [Check(f"{repository}: {name}", "skip", why) for name in names]


def package_state(package: Package, environment: Environment) -> PackageState:
    """What of the package is installed."""
    found = environment.distribution(package.name)
    return PackageState(found.version, found.editable, found.location) if found else PackageState(None, False, None)


def check_package(package: Package, packages: Sequence[Package], environment: Environment) -> Iterator[Check]:
    """Whether the package is installed from its checkout, in its version, beside the others of `packages`."""
    name, fix = package.repository, "invoke install"
    found = environment.distribution(package.name)
    if not found:
        yield Check(
            f"{name}: installed", "fail", f"{package.name} is not installed in {environment.prefix}", command=fix
        )
        yield from skipped(name, INSTALLED[1:], "it is not installed")
        return
    here = found.editable and found.location and found.location.resolve() == package.folder.resolve()
    source = f"editable from {found.location}" if found.editable else "not editable, a release from an index"
    yield Check(
        f"{name}: installed",
        "pass" if here and not found.broken else "fail",
        found.broken or (source if here else f"{source}; the checkout is {package.folder}"),
        command="" if here and not found.broken else fix,
    )
    same = package.fits(found.version)
    yield Check(
        f"{name}: version",
        "pass" if same else "fail",
        found.version if same else f"{found.version} is installed, the checkout is {package.version}",
        command="" if same else "invoke install --reinstall",
    )
    yield from _requirements(package, found, packages, environment)
    for companion in package.companions:
        other = environment.distribution(companion)
        if other and not package.fits(other.version):
            yield Check(
                f"{name}: {companion}", "fail", f"{other.version} beside {package.name} {package.version}", command=fix
            )
        elif other:
            yield Check(f"{name}: {companion}", "pass", other.version)


def _requirements(
    package: Package, found: Distribution, packages: Sequence[Package], environment: Environment
) -> Iterator[Check]:
    ours = names(packages)
    unmet = missing_requirements(environment, found, package.extras)
    for name, fix, some in (
        ("requirements", "invoke install", [one for one in unmet if _name(one) not in ours]),
        ("pins", MATCH, [one for one in unmet if _name(one) in ours]),
    ):
        told = [f"{one.requirement} (installed: {one.installed or 'none'})" for one in some]
        more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
        if told:
            yield Check(
                f"{package.repository}: {name}", "warn", f"not met: {', '.join(told[:SHOWN])}{more}", command=fix
            )
        else:
            yield Check(f"{package.repository}: {name}", "pass", "all met")


def _name(missing: Missing) -> str:
    return canonicalize_name(missing.requirement.name)
