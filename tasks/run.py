"""One run of a task: the settings, the lock, the steps in their order, and one exit status."""

from __future__ import annotations

import atexit
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from invoke.context import Context
from invoke.exceptions import Exit

from . import processes
from .checkout import (
    Session,
    clone,
    exclusive,
    gitlinks,
    require_checkout,
    unreproducible,
    update,
)  # fmt: skip
from .cli import as_called
from .config import load
from .errors import Interrupted, SourcesError, UsageError
from .files import write_atomic
from .git import check_version
from .models import EnvironmentState, Outcome, Repository, Result, Settings, Verification
from .names import check_ref
from .packages import (
    LOCK,
    Environment,
    Lock,
    LockedRepository,
    Package,
    differences,
    install,
    install_locked,
    make_lock,
    probe,
    read_lock,
)  # fmt: skip
from .report import Report
from .repositories import Task, disk_error, for_each, package_of, version_of
from .verify import run_kernels, verify

ROOT = Path(__file__).resolve().parent.parent
LOG = "install.log"


class Failed(Exit):
    """A task failed: `code` is the exit status, `result` is what was done and found. The text says what failed."""

    def __init__(self, result: Result) -> None:
        super().__init__(code=result.exit_status)
        self.result = result

    def __str__(self) -> str:
        return self.result.failure


@dataclass(frozen=True)
class Options:
    """The options of all tasks."""

    refs: Mapping[str, str] = field(default_factory=dict)
    full: bool = False
    only: Sequence[str] | None = None
    deps: bool = True
    reinstall: bool = False
    python: str = ""
    json: bool = False
    strict: bool = False
    locked: bool = False
    kernels: Sequence[str] = ()
    junit: str = ""


@dataclass
class Run:
    """What the steps work on (`lock` with --locked), and the outcomes of those that are done. A repository that one
    step has failed for is left out of the steps that follow."""

    c: Context
    task: str
    options: Options
    settings: Settings
    report: Report
    session: Session
    lock: Lock | None
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    verification: Verification | None = None

    @property
    def dry(self) -> bool:
        """Whether Invoke's --dry is given."""
        return self.session.dry

    @cached_property
    def environment(self) -> Environment:
        """The environment that is installed into or checked. Raises UsageError where --python is no Python."""
        return probe(Path(self.options.python) if self.options.python else None)

    def repositories(self, *without: str) -> list[Repository]:
        """The repositories that no step has failed for, or done one of the actions `without` to."""
        rows = [row for step in self.outcomes.values() for row in step]
        left_out = {row.repository for row in rows if row.error or row.action in without}
        return [each for each in self.settings.repositories if each.name not in left_out]

    def for_each(self, step: str, repositories: Sequence[Repository], task: Task) -> None:
        """Do the task to the repositories, and keep the outcomes."""
        configured = load(self.c.config, ROOT).repositories  # SGLang counts for `matching` without --only, too
        sglang = next((each for each in configured if each.name == "sglang"), None)
        self.outcomes[step] = for_each(self.session, repositories, task, sglang)


Step = Callable[[Run], None]


def clone_step(run: Run) -> None:
    """Clone the repositories that are missing."""
    strict = run.task == "clone"
    repositories = run.repositories()
    run.session.ask([each for each in repositories if not each.path.exists()])
    run.for_each("clone", repositories, lambda session, each: clone(session, each, strict=strict))


def update_step(run: Run) -> None:
    """Update the checkouts."""
    repositories = run.repositories("would clone")
    run.session.ask(repositories)
    run.for_each("update", repositories, update)


def install_step(run: Run) -> None:
    """Install the packages of the checkouts into the environment."""
    packages, failed = list[Package](), list[Outcome]()
    for repository in run.repositories("would clone", "would update"):
        if repository.install:
            try:
                packages.append(package_of(require_checkout(repository)))
            except SourcesError as error:
                failed.append(Outcome(repository.name, "failed", error=error))
    for step in run.outcomes.values():
        failed += [
            Outcome(row.repository, "would install", row.ref, row.commit)
            for row in step
            if row.action in ("would clone", "would update") and _installs(run, row.repository)
        ]
    log, report = run.settings.directory / LOG, run.report
    try:
        if run.lock:
            done = install_locked(
                run.c, run.lock, packages, run.environment, settings=run.settings, log=log, reporter=report
            )
        else:
            done = install(
                run.c, packages, run.environment, settings=run.settings, deps=run.options.deps,
                reinstall=run.options.reinstall, log=log, reporter=report,
            )  # fmt: skip
    except SourcesError as error:  # the environment takes none of them
        done = [Outcome(each.repository.name, "failed", commit=each.commit, error=error) for each in packages]
    run.outcomes["install"] = [*failed, *done]


def verify_step(run: Run) -> None:
    """Check everything; with --kernels run the reference tests, with --locked compare with the lock file."""
    if run.dry and run.task != "verify":
        return
    options = run.options
    found = verify(run.settings, run.environment, kernels=bool(options.kernels))
    checks = list(found.checks)
    if options.kernels and run.settings.trace:
        junit = Path(options.junit) if options.junit else None
        only = [] if "all" in options.kernels else options.kernels
        checks += run_kernels(run.settings.trace, run.environment, run.report, only=only, junit=junit)
    if run.lock:
        packages, repositories, _ = _lockable(run)
        checks += differences(run.lock, packages, repositories, run.environment)
    bad = {"fail", "warn"} if options.strict else {"fail"}
    ok = not any(check.status in bad for check in checks)
    run.verification = replace(found, ok=ok, checks=tuple(checks))


def lock_step(run: Run) -> None:
    """Write the lock file."""
    packages, repositories, obstacles = _lockable(run)
    lock = make_lock(
        run.c, packages, repositories, run.environment, settings=run.settings, log=run.settings.directory / LOG,
        reporter=run.report, obstacles=obstacles,
    )  # fmt: skip
    if run.dry:
        return run.report.event("lock", f"would write {ROOT / LOCK}")
    write_atomic(ROOT / LOCK, lock.text())
    run.report.event("lock", f"wrote {ROOT / LOCK}: {lock.size}")


def run(c: Context, task: str, steps: Sequence[Step], options: Options) -> Result:
    """Run the steps of a task, alone in its directory, and report. Whatever a user can cause ends as one message and an
    exit status. Raises Failed."""
    invoke = c.config.get("run", {})
    result, state = Result(task), None
    echo, hide = bool(invoke.get("echo")), invoke.get("hide")
    with _interruptible(), Report(hide=hide, echo=echo, json=options.json, rename=as_called) as report:
        try:
            state = _prepare(c, task, options, report)
            reading = steps == [verify_step] or state.dry
            with exclusive(state.settings, report, reading=reading):
                for step in steps:
                    with report.step(step.__name__.removesuffix("_step")):
                        step(state)
        except SourcesError as error:
            result = replace(result, error=error)
        except OSError as error:
            result = replace(result, error=disk_error("", error, state.settings if state else None))
        except KeyboardInterrupt:
            result = replace(result, error=Interrupted("Interrupted.", "What is complete is kept."))
            if state:
                state.session.wait()  # while a second Ctrl-C is ignored
        result = _complete(result, state, report)
        report.finish(result)
    if not result.ok:
        raise Failed(result)
    return result


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM end all processes and the run; a second one changes nothing about that."""

    def interrupt(*_: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
            atexit.register(signal.signal, each, signal.SIG_IGN)  # also while Python ends
        processes.stop_all()
        raise KeyboardInterrupt

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {each: signal.signal(each, interrupt) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _prepare(c: Context, task: str, options: Options, report: Report) -> Run:
    settings = load(c.config, ROOT)
    refs = {name: check_ref(ref) for name, ref in options.refs.items() if ref}
    known = {each.name for each in settings.repositories}
    if unknown := [name for name in options.only or () if name not in known]:
        raise UsageError(f"unknown repository {unknown[0]} in --only", f"Configured are {', '.join(sorted(known))}.")
    if options.only:
        chosen = tuple(each for each in settings.repositories if each.name in options.only)
        settings = replace(settings, repositories=chosen)
    commits: Mapping[str, str] = {}
    lock = None
    if options.locked:
        if options.only or refs:
            raise UsageError("--locked takes every repository as the lock file has it.", "Leave out --only and REFs.")
        lock = read_lock(ROOT / LOCK)
        settings = _locked(settings, lock)
        refs = {each.name: each.ref for each in lock.repositories}
        commits = {each.name: each.commit for each in lock.repositories}
    check_version()
    processes.start()
    dry = bool(c.config.run.dry)
    session = Session(settings, report, refs, options.full, dry, version=version_of, commits=commits)
    return Run(c, task, options, settings, report, session, lock)


def _locked(settings: Settings, lock: Lock) -> Settings:
    """The settings for exactly the repositories of the lock file."""
    known = {each.name: each for each in settings.repositories}
    if missing := [each.name for each in lock.repositories if each.name not in known]:
        raise UsageError(f"{LOCK} holds {missing[0]}, which is not configured.", "Add it to sources.repositories.")
    repositories = tuple(
        replace(known[each.name], url=each.url, extras=each.extras, install=bool(each.distribution))
        for each in lock.repositories
    )
    return replace(settings, repositories=repositories)


def _lockable(run: Run) -> tuple[list[Package], list[LockedRepository], list[str]]:
    """The packages and checkouts as a lock file has them, and what keeps checkouts from being reproduced."""
    packages, repositories, obstacles = list[Package](), list[LockedRepository](), list[str]()
    for repository in run.settings.repositories:
        checkout = require_checkout(repository)
        packages += [package_of(checkout)] if repository.install else []
        obstacles += [f"{repository.name}: {each}" for each in unreproducible(checkout)]
        submodules = gitlinks(checkout.path, checkout.head)
        ref = checkout.record.ref or checkout.now.branch or checkout.head
        repositories.append(LockedRepository(repository.name, repository.url, ref, checkout.head, submodules))
    return packages, repositories, obstacles


def _complete(result: Result, run: Run | None, report: Report) -> Result:
    if not run:
        return replace(result, exit_status=result.error.status if result.error else 0)
    outcomes = {step: [_with_warnings(row, report) for row in rows] for step, rows in run.outcomes.items()}
    errors = [row.error for rows in outcomes.values() for row in rows if row.error]
    first = next(iter([*errors, *([result.error] if result.error else [])]), None)
    unverified = bool(run.verification and not run.verification.ok)
    environment = run.__dict__.get("environment")
    return replace(
        result,
        exit_status=first.status if first else int(unverified),
        environment=environment and EnvironmentState(environment.python, environment.prefix, environment.installer),
        steps=outcomes,
        seconds=report.seconds,
        warnings=report.take_warnings(),
        verification=run.verification,
        dry=run.dry,
    )


def _with_warnings(outcome: Outcome, report: Report) -> Outcome:
    return replace(outcome, warnings=(*outcome.warnings, *report.take_warnings(outcome.repository)))


def _installs(run: Run, name: str) -> bool:
    return any(each.name == name and each.install for each in run.settings.repositories)
