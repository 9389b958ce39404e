"""One run of a task: the settings, the lock, the steps in their order, and one exit status."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from invoke.context import Context
from invoke.exceptions import Exit

from . import processes
from .checkout import (
    Session,
    check_writable,
    clone,
    find_checkout,
    plan_clone,
    plan_update,
    remote_files,
    remove_stale_files,
    space_hint,
    update,
)
from .cli import as_called
from .config import load
from .errors import DiskError, Interrupted, LocalWorkError, SourcesError, UsageError
from .git import Advertised, DiskFullError, check_version, keep_open
from .models import EnvironmentState, Outcome, Repository, Result, Settings, Verification
from .names import MATCHING, check_ref
from .packages import Environment, Package, Source, install, matching, probe, read_metadata
from .report import Report
from .verify import verify

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


@dataclass
class Run:
    """What the steps work on, and the outcomes of those that are done. A repository that one step has failed for is
    left out of the steps that follow."""

    c: Context
    task: str
    options: Options
    settings: Settings
    report: Report
    session: Session
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    verification: Verification | None = None

    @property
    def dry(self) -> bool:
        """Whether Invoke's --dry is given."""
        return bool(self.c.config.run.dry)

    @cached_property
    def environment(self) -> Environment:
        """The environment that is installed into or checked. Raises UsageError where --python is no Python."""
        return probe(Path(self.options.python) if self.options.python else None)

    def repositories(self, *without: str) -> list[Repository]:
        """The repositories that no step has failed for, or done one of the actions `without` to."""
        rows = [row for step in self.outcomes.values() for row in step]
        left_out = {row.repository for row in rows if row.error or row.action in without}
        return [each for each in self.settings.repositories if each.name not in left_out]


Step = Callable[[Run], None]


def clone_step(run: Run) -> None:
    """Clone the repositories that are missing."""
    task = plan_clone if run.dry else clone
    strict = run.task == "clone"
    _each(run, "clone", run.repositories(), lambda session, each: task(session, each, strict=strict))


def update_step(run: Run) -> None:
    """Update the checkouts."""
    _each(run, "update", run.repositories("would clone"), plan_update if run.dry else update)


def install_step(run: Run) -> None:
    """Install the packages of the checkouts into the environment."""
    packages, failed = list[Package](), list[Outcome]()
    for repository in run.repositories("would clone", "would update"):
        if repository.install:
            try:
                packages.append(_package(repository))
            except SourcesError as error:
                failed.append(Outcome(repository.name, "failed", error=error))
    for step in run.outcomes.values():
        failed += [
            Outcome(row.repository, "would install", row.ref, row.commit)
            for row in step
            if row.action in ("would clone", "would update") and _installs(run, row.repository)
        ]
    try:
        done = install(
            run.c, packages, run.environment, settings=run.settings, deps=run.options.deps,
            reinstall=run.options.reinstall, log=run.settings.directory / LOG, reporter=run.report,
        )  # fmt: skip
    except SourcesError as error:  # the environment takes none of them
        done = [Outcome(each.repository, "failed", commit=each.commit, error=error) for each in packages]
    run.outcomes["install"] = [*failed, *done]


def verify_step(run: Run) -> None:
    """Check everything."""
    if not run.dry:
        run.verification = verify(run.settings, run.environment, strict=run.options.strict)


def run(c: Context, task: str, steps: Sequence[Step], options: Options) -> Result:
    """Run the steps of a task, alone in its directory, and report. Whatever a user can cause ends as one message and an
    exit status. Raises Failed."""
    invoke = c.config.get("run", {})
    result, state = Result(task), None
    echo, hide = bool(invoke.get("echo")), invoke.get("hide")
    with _interruptible(), Report(hide=hide, echo=echo, json=options.json, rename=as_called) as report:
        try:
            state = _prepare(c, task, options, report)
            with _lock(state, reading=steps == [verify_step] or state.dry):
                for step in steps:
                    with report.step(step.__name__.removesuffix("_step")):
                        step(state)
        except SourcesError as error:
            result = replace(result, error=error)
        except OSError as error:
            result = replace(result, error=_disk_error("", error, state.settings if state else None))
        except KeyboardInterrupt:
            hint = "Run the same command again: it continues where this one stopped."
            result = replace(result, error=Interrupted("Interrupted.", hint))
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
    check_version()
    processes.start()
    return Run(c, task, options, settings, report, Session(settings, report, refs, options.full))


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
    )


def _with_warnings(outcome: Outcome, report: Report) -> Outcome:
    return replace(outcome, warnings=(*outcome.warnings, *report.take_warnings(outcome.repository)))


def _each(run: Run, step: str, repositories: Sequence[Repository], task: Callable[..., Outcome]) -> None:
    """Do the task to all repositories at once; what fails for one does not stop the others. FlashInfer comes last where
    its REF is `matching`, as that is what the checked-out SGLang requires."""
    session, done = run.session, dict[str, Outcome]()
    session.ask([each for each in repositories if not (step == "clone" and each.path.exists())])
    last = [each for each in repositories if each.name == "flashinfer" and _ref(run, each) == MATCHING]
    for wave in ([each for each in repositories if each not in last], last):
        session = replace(session, matching=lambda advertised: _matching(run, advertised, last[0]))
        with ThreadPoolExecutor(max(1, len(wave))) as pool:
            futures = {each.name: pool.submit(_guarded, run, session, each, task) for each in wave}
            try:
                done |= {name: future.result() for name, future in futures.items()}
            except BaseException:
                processes.stop_all()
                raise
    run.outcomes[step] = [done[each.name] for each in repositories]


def _guarded(run: Run, session: Session, repository: Repository, task: Callable[..., Outcome]) -> Outcome:
    started, before = time.monotonic(), _version(repository)
    try:
        outcome = task(session, repository)
        version = _version(repository)
        outcome = replace(outcome, version=version, before_version=before if before != version else "")
    except (SourcesError, OSError) as caught:
        error = caught if isinstance(caught, SourcesError) else _disk_error(repository.name, caught, run.settings)
        if isinstance(error, DiskFullError):
            error.hint = space_hint(run.settings)
        action = "skipped (local changes)" if isinstance(error, LocalWorkError) else "failed"
        outcome = Outcome(repository.name, action, _ref(run, repository), error=error)
    return replace(outcome, seconds=time.monotonic() - started)


def _ref(run: Run, repository: Repository) -> str:
    with suppress(SourcesError):
        return run.session.ref(repository, find_checkout(repository))[0]
    return run.session.refs.get(repository.name, repository.branch)


def _matching(run: Run, advertised: Advertised, flashinfer: Repository) -> str:
    """The tag of FlashInfer that the checked-out SGLang requires, or in a dry run the one that was asked for."""
    sglang = next((each for each in load(run.c.config, ROOT).repositories if each.name == "sglang"), None)
    if sglang is None:
        raise UsageError("`matching` needs SGLang, which is not configured.", "Name a release of FlashInfer.")
    checkout = find_checkout(sglang)
    if run.dry:
        target = run.session.target(sglang, run.session.ref(sglang, checkout)[0])
        if not checkout or checkout.head != target.commit:
            paths = ("python/pyproject.toml", "python/setup.py", "python/setup.cfg", "python/version.txt")
            files = remote_files(run.session, sglang, target, paths)
            return matching(read_metadata(files, "python"), sglang.extras, advertised.tags, flashinfer.url)
    if not checkout:
        what = "flashinfer: SGLang is not cloned, so the release that it requires is not known."
        raise LocalWorkError(what, command="invoke clone")
    source = Source(sglang, checkout.head, checkout.tags)
    return matching(source.metadata, sglang.extras, advertised.tags, flashinfer.url)


def _package(repository: Repository) -> Package:
    checkout = find_checkout(repository)
    if not checkout:
        raise SourcesError(f"{repository.name} is not cloned.", command="invoke clone")
    return Package.of(Source(repository, checkout.head, checkout.tags))


def _version(repository: Repository) -> str:
    with suppress(SourcesError, OSError):
        if checkout := find_checkout(repository):
            return Source(repository, checkout.head, checkout.tags).version
    return ""


def _installs(run: Run, name: str) -> bool:
    return any(each.name == name and each.install for each in run.settings.repositories)


def _disk_error(who: str, error: OSError, settings: Settings | None) -> DiskError:
    place = error.filename or (settings.directory if settings else "")
    return DiskError(f"{f'{who}: ' if who else ''}{place}: {error.strerror or error}.", "Check who may write there.")


@contextmanager
def _lock(run: Run, *, reading: bool) -> Iterator[None]:
    """Hold the lock of the sources directory (flock(2): the system releases it when the process ends, and the local git
    commands that inherit it). A run that only reads waits for one that works, and leaves no trace."""
    directory, holder = run.settings.directory, run.settings.directory / ".lock-holder"
    if not reading:
        check_writable(directory)
    elif not os.access(directory / ".lock", os.R_OK):
        yield
        return
    descriptor = os.open(directory / ".lock", os.O_RDONLY if reading else os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            known = _holder(holder)
            who = f"process {known['pid']} ({known['command']})" if known else "another run"
            run.report.event(directory.name, f"waiting for {who}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not reading:
            if died := _holder(holder):
                for each in run.settings.repositories:
                    if (each.path / ".git").is_dir():
                        remove_stale_files(each.path / ".git", each.name, died["began"] - 1, run.report)
            _write_holder(holder)
            keep_open(descriptor)
        yield
        if not reading:
            holder.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _holder(file: Path) -> dict[str, Any]:
    """Who holds the lock, or held it when it died."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(file.read_text())
        return {"pid": int(known["pid"]), "command": str(known["command"]), "began": float(known["began"])}
    return {}


def _write_holder(file: Path) -> None:
    command = " ".join(["invoke", *sys.argv[1:]])[:80]
    with suppress(OSError):  # a full disk is reported by the work itself
        draft = file.with_name(f"{file.name}.{os.getpid()}")
        draft.write_text(json.dumps({"pid": os.getpid(), "command": command, "began": time.time()}))
        draft.replace(file)
