"""All checks of a set-up, offline and without changing anything; no check depends on another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace

from ..models import Check, Reporter, Settings, Verification
from ..packages import Environment
from . import checkouts, machine, packages, trace


def verify(settings: Settings, environment: Environment, reporter: Reporter, *, kernels: bool) -> Verification:
    """Check the repositories, their packages in `environment`, CUDA and the trace data. Each group of checks is given
    to the reporter as soon as it is complete.

    Nothing that is found raises; a check that could not be made is a skip. What would prevent FlashInfer from compiling
    kernels is a failure with `kernels`, else a warning.
    """
    with ThreadPoolExecutor(len(settings.repositories) + 2) as pool:
        asked = pool.submit(machine.ask_driver, environment)
        found = list(pool.map(checkouts.find, settings.repositories))
        ours = [one.package for one in found if one.package]
        data = trace.Data(settings.trace) if settings.trace else None
        driver = asked.result()
        gpu = bool(driver["gpus"])

        def check_repository(one: checkouts.Found) -> Iterator[Check]:
            yield from checkouts.check_checkout(one)
            if package := one.package:
                yield from packages.check_package(package, ours, environment, settings.overrides, gpu=gpu)

        # Each group is made in a thread of its own: generators.
        groups: dict[str, Iterable[Check]] = {one.repository.name: check_repository(one) for one in found}
        groups["cuda"] = machine.check_cuda(environment, driver, needed=kernels)
        groups["trace"] = data.check(environment) if data else ()
        for group in groups:
            reporter.progress(group, "checking", None, 0, 0.0)
        running = {pool.submit(_named, group, checks): group for group, checks in groups.items()}
        for future in as_completed(running):
            reporter.checked(running[future], future.result())
    checks = [check for future in running for check in future.result()]
    return Verification(
        ok=all(check.status != "fail" for check in checks),
        repositories={one.repository.name: one.state for one in found},
        packages={package.repository.name: environment.state(package.name) for package in ours},
        trace=data.counted() if data else None,
        checks=tuple(checks),
    )


def _named(group: str, checks: Iterable[Check]) -> list[Check]:
    """Make the checks, and name each after its group."""
    return [replace(check, name=f"{group}: {check.name}") for check in checks]
