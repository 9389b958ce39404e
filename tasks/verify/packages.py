"""Checks of what is installed in an environment: whether it comes from the checkouts, and can be imported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import Any

from packaging.utils import canonicalize_name

from ..errors import SourcesError, examples
from ..models import Check
from ..names import redact
from ..packages import (
    FLASHINFER,
    Environment,
    Missing,
    Package,
    admits,
    flashinfer_requirement,
    has_release,
    missing_requirements,
    names,
)
from . import imports
from .checkouts import Found

MATCH = "invoke setup --flashinfer-branch=matching"
REINSTALL = "invoke install --reinstall"


def torch_pin(packages: Sequence[Package]) -> str:
    """Which torch SGLang requires, such as `SGLang 0.5.23 requires torch==2.14.1`; empty where it is not there."""
    for package in packages:
        pins = [one for one in package.metadata.requires if canonicalize_name(one.name) == "torch"]
        if package.repository.name == "sglang" and pins:
            return f"SGLang {package.version} requires {pins[0].name}{pins[0].specifier}"
    return ""


def check_package(
    package: Package, packages: Sequence[Package], environment: Environment, overrides: Sequence[str],
    found: Sequence[Found],
) -> Iterator[Check]:  # fmt: skip
    """Check that the package is installed from its checkout, in its version and with its requirements, of which those
    in `overrides` replace others. `packages` are all that come from checkouts, `found` are those checkouts."""
    name, ours = package.repository.name, names(packages)
    installed = environment.distribution(package.name)
    if not installed:
        missing = f"{package.name} is not installed in {environment.prefix}"
        yield Check(f"{name}: installed", "fail", missing, command="invoke install")
        return
    source = f"editable from {installed.location}" if installed.editable else "not editable, a release from an index"
    if package.is_checkout(replace(installed, version=package.version)):
        yield Check(f"{name}: installed", "pass", source)
    else:
        detail = installed.broken or f"{source}; the checkout is {package.folder}"
        yield Check(f"{name}: installed", "fail", detail, command="invoke install")
    if not package.fits(installed.version):
        detail = f"{installed.version} is installed, the checkout is {package.version}"
        yield Check(f"{name}: version", "fail", detail, command=REINSTALL)
    elif installed.version.startswith("0.0.0"):
        hint = "The checkout has no tag of a release: fetch upstream's, then run `invoke install --reinstall`."
        yield Check(f"{name}: version", "warn", installed.version, hint)
    else:
        yield Check(f"{name}: version", "pass", installed.version)
    try:
        unmet = missing_requirements(environment, installed, package.repository.extras, overrides)
        yield _unmet(f"{name}: requirements", [one for one in unmet if _name(one) not in ours], "invoke install")
        yield _pins(package, [one for one in unmet if _name(one) in ours], environment, found)
    except SourcesError as error:
        yield Check(f"{name}: requirements", "fail", error.what, error.hint, REINSTALL)
    for companion, version in environment.versions().items():
        if not companion.startswith(package.layout.companions or ("/",)):
            continue
        if package.fits(version):
            yield Check(f"{name}: {companion}", "pass", version)
        else:
            detail = f"{version}, but {name} is {package.version}"
            yield Check(f"{name}: {companion}", "fail", detail, command="invoke install")


def check_imports(package: Package, environment: Environment, driver: Future[dict[str, Any]]) -> list[Check]:
    """Import the package where it is installed; where a GPU can be used, SGLang's compiled kernels, too."""
    name, installed = package.repository.name, environment.distribution(package.name)
    if not installed:
        return []
    fix = REINSTALL if package.is_checkout(installed) else "invoke install"
    wanted = imports.Import(environment, package.module, package.folder, installed.version)
    check, missing = wanted.check(f"{name}: imports", fix)
    if missing:
        with suppress(SourcesError):
            if missing_requirements(environment, installed, package.repository.extras):
                left_out = "; requirements were not installed (--no-deps)" if package.without_deps(environment) else ""
                check = replace(
                    check, status="warn" if left_out else "fail", detail=f"{check.detail}{left_out}", hint="",
                    command="invoke install",
                )  # fmt: skip
    checks = [check]
    if name == "sglang" and driver.result()["gpus"]:
        compiled = imports.Import(environment, "sgl_kernel")
        if any((path / "sgl_kernel").is_dir() for path in environment.paths):
            checks.append(compiled.check(f"{name}: sgl_kernel", "")[0])
        else:
            checks.append(Check(f"{name}: sgl_kernel", "skip", "not installed"))
    return checks


def _pins(package: Package, unmet: list[Missing], environment: Environment, found: Sequence[Found]) -> Check:
    """Whether the FlashInfer that `matching` would choose is installed, with its companions."""
    required = flashinfer_requirement(package.metadata, package.repository.extras)
    if required and not any(_name(one) in FLASHINFER for one in unmet):
        versions = [other.version for name in FLASHINFER if (other := environment.distribution(name))]
        if not any(admits(required, version) for version in versions):
            unmet = [Missing(required, next(iter(versions), "")), *unmet]
    flashinfer = next((one.checkout for one in found if one.name == "flashinfer" and one.checkout), None)
    command = hint = ""
    if flashinfer:
        released = required is None or has_release(required, flashinfer.tags)
        command = MATCH if released else ""
        hint = "" if released else "No tag of FlashInfer's checkout is a release that meets this."
    return _unmet(f"{package.repository.name}: pins", unmet, command, hint)


def _unmet(name: str, unmet: Sequence[Missing], command: str, hint: str = "") -> Check:
    shown = [f"{redact(str(one.requirement))} (installed: {one.installed or 'none'})" for one in unmet]
    if shown:
        return Check(name, "warn", f"not met: {examples(shown)}", hint, command)
    return Check(name, "pass", "all met")


def _name(missing: Missing) -> str:
    return canonicalize_name(missing.requirement.name)
