"""All checks of a set-up, offline and without changing anything; no check depends on another."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, as_completed

from ..models import Check, Reporter, Settings, Verification
from ..packages import Environment
from . import bench, checkouts, cuda, machine, packages, trace


def verify(settings: Settings, environment: Environment, reporter: Reporter, *, kernels: bool = False) -> Verification:
    """Check the repositories, their packages in `environment`, CUDA and the trace data. Each group of checks is given
    to the reporter as soon as it is complete.

    Nothing that is found raises; a check that could not be made is a skip. What would prevent FlashInfer from compiling
    kernels is a failure with `kernels`, else a warning.
    """
    with ThreadPoolExecutor(3 * len(settings.repositories) + 4) as pool:
        driver = pool.submit(machine.ask_driver, environment, os.environ)
        found = list(pool.map(checkouts.find, settings.repositories))
        ours = [one.package for one in found if one.package]
        states = {one.name: pool.submit(checkouts.check_checkout, one) for one in found}
        data = pool.submit(trace.read_trace, settings.trace) if settings.trace else None

        def check_repository(one: checkouts.Found) -> list[Check]:
            imported = pool.submit(packages.check_imports, one.package, environment, driver) if one.package else None
            checks = states[one.name].result()[1]
            if one.package and imported:
                installed = packages.check_package(one.package, ours, environment, settings.overrides, found)
                checks = [*checks, *installed, *imported.result()]
            return checks

        def check_cuda() -> list[Check]:
            pin = packages.torch_pin(ours)
            return cuda.check_cuda(environment, os.environ, driver.result(), needed=kernels, pin=pin)

        def check_trace() -> list[Check]:
            return [*data.result().checks, *bench.verdict(data.result().path, environment)] if data else []

        groups = {one.name: pool.submit(check_repository, one) for one in found}
        groups["cuda"] = pool.submit(check_cuda)
        groups["trace"] = pool.submit(check_trace)
        for name in groups:
            reporter.progress(name, "checking", None, 0, 0.0)
        names = {future: name for name, future in groups.items()}
        for future in as_completed(names):
            reporter.checked(names[future], future.result())
    checks = [check for future in groups.values() for check in future.result()]
    return Verification(
        ok=all(check.status != "fail" for check in checks),
        repositories={name: future.result()[0] for name, future in states.items()},
        packages={package.repository.name: environment.state(package.name) for package in ours},
        trace=data.result() if data else None,
        checks=tuple(checks),
    )
