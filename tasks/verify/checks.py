"""All checks of a set-up, offline and without changing anything; no check depends on another."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from ..errors import SourcesError
from ..models import Check, Settings, Verification
from ..packages import Environment, Package
from .checkouts import FoundCheckout, check_checkout
from .cuda import check_cuda
from .packages import INSTALLED, check_package, package_state, skipped
from .trace import read_trace


def verify(settings: Settings, environment: Environment, *, kernels: bool = False) -> Verification:
    """Check the repositories, their packages in `environment`, CUDA and the trace data.

    Nothing that is found raises; a check that could not be made is a skip. What would prevent FlashInfer from compiling
    kernels is a failure with `kernels`, else a warning.
    """
    with ThreadPoolExecutor(2 * len(settings.repositories) + 2) as pool:
        cuda = pool.submit(check_cuda, environment, os.environ, needed=kernels)
        trace = pool.submit(read_trace, settings.trace) if settings.trace else None
        found = list(pool.map(check_checkout, settings.repositories))
        packages = {each.repository.name: package for each in found if (package := _package(each))}
        tags = next((each.source.tags for each in found if each.source and each.repository.name == "flashinfer"), {})
        installed = {
            name: pool.submit(check_package, package, list(packages.values()), environment, tags)
            for name, package in packages.items()
        }
        checks: list[Check] = []
        for each in found:
            name = each.repository.name
            checks += each.checks
            if name in installed:
                checks += installed[name].result()
            elif each.repository.install:
                checks += skipped(name, INSTALLED, "the checkout cannot be read" if each.source else "not cloned")
        checks += [*cuda.result(), *(trace.result().checks if trace else ())]
    return Verification(
        ok=all(check.status != "fail" for check in checks),
        repositories={each.repository.name: each.state for each in found},
        packages={name: package_state(package, environment) for name, package in packages.items()},
        trace=trace.result() if trace else None,
        checks=tuple(checks),
    )


def _package(found: FoundCheckout) -> Package | None:
    source = found.source if found.repository.install else None
    try:
        return Package(source.repository, source.commit, source.tags) if source else None
    except SourcesError:
        return None
