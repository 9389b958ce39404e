"""One run of a task: its steps in their order, and one place that turns what happened into a result and a status."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from pathlib import Path

from invoke.context import Context

from . import checkout, names, packages, settings
from .errors import DiskError, Interrupted, LocalWorkError, NetworkError, SourcesError, UsageError
from .files import write_atomic
from .git import command, refs
from .models import EnvironmentState, Failed, Outcome, Repository, Result, Settings, Verification
from .report import Report

ROOT = Path(__file__).resolve().parent.parent
LOG = "install.log"
PAUSE = 1.0  # seconds after an interruption in which further ones are the same key press


class NoSGLang(SourcesError):
    """`matching` means nothing yet."""


@dataclass(frozen=True)
class Options:
    """The options of all tasks, named as the tasks have them."""

    sglang_branch: str | None = None
    flashinfer_branch: str | None = None
    full: bool = False
    only: Sequence[str] = ()
    deps: bool = True
    reinstall: bool = False
    python: str | None = None
    strict: bool = False
    kernels: bool = False
    kernel: Sequence[str] = ()
    junit: str | None = None
    locked: bool = False
    verbose: bool = False
    json: bool = False

    @property
    def refs(self) -> dict[str, str]:
        """The REFs by repository."""
        given = {"sglang": self.sglang_branch, "flashinfer": self.flashinfer_branch}
        return {name: ref for name, ref in given.items() if ref is not None}

    def check(self, known: Sequence[str]) -> None:
        """Raise UsageError for options that cannot be meant; `known` are the names of the repositories."""
        for name, value in vars(self).items():
            if value in ("", [""]):
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option} has an empty value.", f"For the default, leave out {option}.")
        for name in self.only:
            if name not in known:
                raise UsageError(f"unknown repository {name} in --only.", settings.did_you_mean(name, known))
        for name, ref in self.refs.items():
            names.check_ref(ref)
            if self.only and name not in self.only:
                hint = f"Add --only={name}, or leave out --{name}-branch."
                raise UsageError(f"--{name}-branch is given, but --only leaves out {name}.", hint)
        if self.junit and not self.kernels and not self.kernel:
            raise UsageError("--junit needs --kernels or --kernel: it takes their results.")
        if self.locked and (self.only or self.refs):
            raise UsageError("--locked takes every repository as the lock file has it.", "Leave out --only and REFs.")

    def command(self, task: str, **changes: str) -> str:
        """The command that gives these options, with `changes` to some of them."""
        words = ["invoke", task]
        for option in fields(self):
            value, name = changes.get(option.name, getattr(self, option.name)), option.name.replace("_", "-")
            if isinstance(value, bool):
                words += [f"--{'' if value else 'no-'}{name}"] if value != option.default else []
            elif value:
                words += [f"--{name}={text}" for text in ([value] if isinstance(value, str) else value)]
        return names.shell(*words)


@dataclass
class Run:
    """What the steps work on (`lock` with --locked), and the outcomes of those that are done. A repository that one
    step has failed for is left out of the steps that follow."""

    c: Context
    task: str
    options: Options
    settings: Settings
    report: Report
    session: checkout.Session
    lock: packages.Lock | None
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    verification: Verification | None = None

    @cached_property
    def environment(self) -> packages.Environment:
        """The environment that is installed into or checked. Raises UsageError where --python is no Python."""
        return packages.probe(self.options.python or "")

    @property
    def uv(self) -> packages.Uv:
        """uv, which works on the environment."""
        log, again = self.settings.directory / LOG, self.options.command(self.task)
        return packages.Uv(self.c, self.environment, self.settings, log, self.report, again)

    @property
    def rows(self) -> list[Outcome]:
        """The outcomes so far, in the order of work."""
        return [row for rows in self.outcomes.values() for row in rows]

    def repositories(self, *without: str) -> list[Repository]:
        """The repositories that no step has failed for, or done one of the actions `without` to."""
        left_out = {row.repository for row in self.rows if row.error or row.action in without}
        return [repository for repository in self.settings.repositories if repository.name not in left_out]

    def for_each(
        self, step: str, repositories: Sequence[Repository], work: Callable[[checkout.Session, Repository], Outcome]
    ) -> None:
        """Do the work for all repositories at once, and keep an outcome for each; what fails for one does not stop the
        others. FlashInfer comes last where its REF is `matching`: what the checked-out SGLang requires."""
        last = [r for r in repositories if not self.lock and self.session.ref(r)[0] == names.MATCHING]
        first = [repository for repository in repositories if repository not in last]
        session, done = replace(self.session, matching=self._matching), dict[str, Outcome]()
        for group in (first, last):
            with ThreadPoolExecutor(max(1, len(group))) as pool:
                futures = {repository.name: pool.submit(_attempt, session, repository, work) for repository in group}
                command.wait_for(futures.values())
                done |= {name: future.result() for name, future in futures.items()}
        self.outcomes[step] = [done[repository.name] for repository in repositories]

    def _matching(self, advertised: refs.Advertised) -> str:
        """The tag of FlashInfer that the checked-out SGLang requires."""
        configured = {r.name: r for r in settings.load(self.c.config, ROOT).repositories}  # --only leaves out SGLang
        sglang = configured["sglang"]
        if not (found := checkout.find(sglang)):
            raise NoSGLang("flashinfer: `matching` is known once SGLang is cloned.", command="invoke clone")
        package, url = packages.Package(found), configured["flashinfer"].url
        return packages.matching(package, advertised.tags, url)


def _check_refs(run: Run) -> None:
    """Ask the remotes for the REFs that are given as options, before anything is downloaded. Raises UsageError."""
    given = run.options.refs
    for repository in run.settings.repositories:
        name, ref = repository.name, given.get(repository.name)
        if not ref or (name, ref) == ("flashinfer", names.MATCHING):
            continue
        with suppress(NetworkError):  # the steps report it
            advertised = run.session.advertised(repository)
            try:
                run.session.target(repository)
            except UsageError as error:
                near = refs.nearest(ref, [names.LATEST, *advertised.tags, *advertised.heads])
                corrected = run.options.command(run.task, **{f"{name}_branch": near[0]}) if near else ""
                raise UsageError(error.what, error.hint, corrected) from None


def clone_step(run: Run) -> None:
    """Clone the repositories that are missing."""
    _check_refs(run)
    strict, repositories = run.task == "clone", run.repositories()
    run.for_each("clone", repositories, lambda session, repository: checkout.clone(session, repository, strict=strict))


def update_step(run: Run) -> None:
    """Update the checkouts."""
    _check_refs(run)
    repositories = run.repositories("would clone")
    run.for_each("update", repositories, checkout.update)


def install_step(run: Run) -> None:
    """Install the packages of the checkouts into the environment: all, or none and the run ends."""
    repositories, options = run.repositories("would clone", "would update"), run.options
    found = [packages.Package(checkout.require(repository)) for repository in repositories if repository.install]
    rows = packages.install(run.uv, found, deps=options.deps, reinstall=options.reinstall, lock=run.lock)
    run.outcomes["install"] = list(rows)


def verify_step(run: Run) -> None:
    """Check everything; with --kernels run the reference tests, with --locked compare with the lock file."""
    from .verify.checks import verify
    from .verify.kernels import run_kernels

    options = run.options
    if run.session.dry and run.task != "verify":
        return
    kernels = options.kernels or bool(options.kernel)
    found = verify(run.settings, run.environment, run.report, kernels=kernels)
    checks = list(found.checks)
    if kernels and (trace := run.settings.trace):
        junit = Path(options.junit) if options.junit else None
        ran = run_kernels(run.c, trace, run.environment, run.report, only=options.kernel, junit=junit)
        run.report.checked("kernels", ran)
        checks += ran
    if run.lock:
        commits = {name: state.commit for name, state in found.repositories.items()}
        differences = packages.differences(run.lock, commits, run.environment)
        run.report.checked("lock", differences)
        checks += differences
    bad = ("fail", "warn") if options.strict else ("fail",)
    ok = not any(check.status in bad for check in checks)
    run.verification = replace(found, ok=ok, checks=tuple(checks))


def status_step(run: Run) -> None:
    """Look at the checkouts and at what is installed of them."""
    from .verify import checkouts

    with ThreadPoolExecutor() as pool:
        environment = pool.submit(lambda: run.environment)
        look = partial(checkouts.find, refresh=True)  # so that git need not read the files again next time
        found = list(pool.map(look, run.settings.repositories))
    installed = {one.repository.name: environment.result().state(one.package.name) for one in found if one.package}
    repositories = {one.repository.name: one.state for one in found}
    run.verification = Verification(True, repositories, installed, None, ())


def lock_step(run: Run) -> None:
    """Write the lock file."""
    found, repositories, obstacles = list[packages.Package](), list[packages.LockedRepository](), list[str]()
    for repository in run.settings.repositories:
        here = checkout.require(repository)
        found += [packages.Package(here)] if repository.install else []
        obstacles += [f"{repository.name}: {text}" for text in checkout.unreproducible(here)]
        ref = here.record.ref or here.branch or here.head
        repositories.append(packages.LockedRepository(repository.name, repository.url, ref, here.head))
    text = packages.make_lock(run.uv, found, repositories, obstacles)
    if not run.session.dry:
        write_atomic(ROOT / packages.LOCK, text)
    run.report.event("lock", f"{'would write' if run.session.dry else 'wrote'} {ROOT / packages.LOCK}")


STEPS = {
    "clone": clone_step,
    "update": update_step,
    "install": install_step,
    "verify": verify_step,
    "status": status_step,
    "lock": lock_step,
}
SETUP = ("clone", "update", "install", "verify")


def run(c: Context, task: str, options: Options) -> Result:
    """Run the steps of a task, alone in its directory, and report. Whatever a user can cause ends as one message and an
    exit status. Raises Failed."""
    invoke = c.config.get("run", {})
    report = Report(hide=invoke.get("hide"), echo=bool(invoke.get("echo")), json=options.json, verbose=options.verbose)
    began, state, error = time.monotonic(), None, None
    with _interruptible() as interruptions:
        try:
            state = _prepare(c, task, options, report)
            alone = checkout.alone(state.settings, report, reading=task == "verify")
            with nullcontext() if state.session.dry or task == "status" else alone:
                for step in SETUP if task == "setup" else (task,):
                    if task == "setup":
                        report.heading(step)
                    STEPS[step](state)
                    if interruptions:  # while uv ran, which Invoke waits for
                        raise KeyboardInterrupt
                    if any(isinstance(row.error, UsageError) for row in state.rows):
                        break
        except SourcesError as caught:
            error = caught
        except OSError as caught:
            error = _disk_error("", caught, state.settings.directory if state else ROOT)
        except KeyboardInterrupt:
            error = Interrupted("Interrupted.", "What is complete is kept; run the same command again.")
        result = replace(_result(task, state, error), seconds=time.monotonic() - began, warnings=tuple(report.warnings))
        report.finish(result)
    if not result.ok:
        raise Failed(result)
    return result


def _prepare(c: Context, task: str, options: Options, report: Report) -> Run:
    """The run of a task. Raises UsageError for options and configuration that cannot be meant."""
    configured = settings.load(c.config, ROOT)
    for text in configured.warnings:
        report.warn("configuration", text)
    known = {repository.name: repository for repository in configured.repositories}
    options.check([*known])
    refs, commits, lock = options.refs, dict[str, str](), None
    if options.locked:
        lock = packages.read_lock(ROOT / packages.LOCK)
        for locked in lock.repositories:
            if locked.name not in known:
                what = f"{packages.LOCK} holds {locked.name}, which is not configured."
                raise UsageError(what, "Add it to sources.repositories.")
            known[locked.name] = replace(known[locked.name], url=locked.url)
            refs[locked.name], commits[locked.name] = locked.ref, locked.commit
    chosen = options.only or [*commits] or [*known]
    configured = replace(configured, repositories=tuple(known[name] for name in known if name in chosen))
    command.check_version()
    command.start()
    dry, version = bool(c.config.get("run", {}).get("dry")), packages.version_of
    session = checkout.Session(configured, report, refs, options.full, dry, version=version, commits=commits)
    return Run(c, task, options, configured, report, session, lock)


@contextmanager
def _interruptible() -> Iterator[Sequence[float]]:
    """Let the first Ctrl-C or SIGTERM end all processes and the run; until a second after its end, further ones are
    taken for the same key press. What is yielded is empty until the first."""
    ignored_until: list[float] = []

    def interrupt(*_: object) -> None:
        if not ignored_until:
            ignored_until.append(float("inf"))
            command.stop()
            raise KeyboardInterrupt
        if time.monotonic() > ignored_until[-1]:
            raise KeyboardInterrupt

    handlers = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ignored_until
    finally:
        if ignored_until:
            ignored_until.append(time.monotonic() + PAUSE)
        else:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _attempt(
    session: checkout.Session, repository: Repository, work: Callable[[checkout.Session, Repository], Outcome]
) -> Outcome:
    """The outcome of the work for one repository, also where it fails."""
    started = time.monotonic()
    try:
        outcome = work(session, repository)
    except (SourcesError, OSError) as caught:
        error = caught if isinstance(caught, SourcesError) else _disk_error(repository.name, caught, repository.path)
        ref, source = session.ref(repository)
        outcome = Outcome(repository.name, "failed", ref, ref_source=source, error=error)
        if isinstance(error, LocalWorkError):
            outcome = replace(outcome, action=f"skipped ({error.label})")
        if isinstance(error, NoSGLang) and session.dry:
            outcome = replace(outcome, action="would clone", error=None)
    return replace(outcome, seconds=time.monotonic() - started)


def _disk_error(who: str, error: OSError, path: Path) -> DiskError:
    """What an error of the file system means; `who` is the repository, if it was one."""
    place = error.filename or path
    return DiskError(f"{f'{who}: ' if who else ''}{place}: {error.strerror or error}.", "Check who may write there.")


def _result(task: str, run: Run | None, error: SourcesError | None) -> Result:
    """What was done and found; `error` is what ended the run early."""
    if not run:
        return Result(task, error.status if error else 0, error=error)
    status = next((first.status for first in (*(row.error for row in run.rows), error) if first), 0)
    if run.verification and not run.verification.ok:
        status = status or 1
    environment = vars(run).get("environment")  # if it was looked at
    return Result(
        task,
        exit_status=status,
        environment=environment and EnvironmentState(environment.python, environment.prefix),
        steps=run.outcomes,
        error=error,
        verification=run.verification,
        dry=run.session.dry,
    )
