"""One run of a task: reads Invoke's configuration, takes the folder's turn, and turns trouble into one exit status."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from invoke.config import AmbiguousMergeError, Config, DataProxy
from invoke.context import Context
from invoke.exceptions import Exit

from .checkout.changes import note_unchanged
from .checkout.lock import turn
from .checkout.session import Session
from .checkout.space import check_space
from .checkout.state import read_checkout
from .cli import as_called
from .config.defaults import DEFAULTS
from .config.settings import load
from .errors import DiskError, Interrupted, SourcesError, UsageError
from .git.command import check_version
from .models import EnvironmentState, Outcome, Result, Verification
from .names import check_ref
from .packages.environment import Environment, probe
from .packages.layouts import COMPANIONS, cost
from .packages.matching import FLASHINFER
from .packages.package import Package, names
from .report.report import Report
from .verify.checks import verify

ROOT = Path(__file__).resolve().parent.parent
INTERRUPTED = 130  # as shells have it for SIGINT


class Failed(Exit):
    """A task did not succeed. `code` is the exit status, `result` what was done and found until then; as text it says
    what failed."""

    def __init__(self, result: Result) -> None:
        super().__init__(code=result.exit_status)
        self.result = result

    def __str__(self) -> str:
        return self.result.failure


@dataclass
class Run:
    """The steps of one run over the same session. `steps` keeps what each did; what failed in one is left out after."""

    task: str
    session: Session
    report: Report
    python: str
    dry: bool
    verification: Verification | None = None
    steps: dict[str, list[Outcome]] = field(default_factory=dict)

    @property
    def failure(self) -> SourcesError | None:
        """The first failure in the order of work."""
        return next((each.error for step in self.steps.values() for each in step if each.error), None)

    def clone(self) -> list[Outcome]:
        from .checkout.clone import clone, plan_clone
        from .checkout.work import each

        return self._step("clone", each(self._left(), plan_clone if self.dry else clone))

    def update(self) -> list[Outcome]:
        from .checkout.update import plan_update, update
        from .checkout.work import each

        session = self._left("would clone")
        return self._step("update", each(session, plan_update if self.dry else update))

    def install(self, deps: bool, reinstall: bool) -> list[Outcome]:
        from .checkout.work import not_cloned
        from .packages.install import install

        environment = probe(Path(self.python) if self.python else None)
        planned = {
            row.repository: row for step in self.steps.values() for row in step if row.action.startswith("would")
        }
        installed = {each.name for each in self.session.settings.repositories if each.install}
        failed = [replace(row, action="would install") for name, row in planned.items() if name in installed]
        packages = []
        for repository in self._left("would clone", "would update").settings.repositories:
            try:
                if repository.install:
                    if not (repository.path / ".git").exists():
                        raise not_cloned(repository)
                    packages.append(Package.of(read_checkout(repository).source))
            except SourcesError as error:
                failed.append(Outcome(repository.name, "failed", error=error))
        settings = self.session.settings
        if "flashinfer" in installed - {each.repository for each in packages}:
            packages = [replace(each, held=(*FLASHINFER, *COMPANIONS)) for each in packages]
        if self.dry:
            ours = names(packages)
            done = [_planned(each, not reinstall and each.is_current(environment, deps, ours)) for each in packages]
        else:
            try:
                self._check_room(environment, packages, deps)
                done = install(
                    packages,
                    environment,
                    installer=settings.installer,
                    deps=deps,
                    reinstall=reinstall,
                    tools=_tools(),
                    reporter=self.report,
                )
            except SourcesError as error:  # the environment takes none of them
                done = [replace(_planned(each, False), action="failed", error=error) for each in packages]
        worked_on = {row.repository for row in done if row.seconds}
        for package in packages:
            if package.repository in worked_on:
                note_unchanged(package.git_dir.parent)
        return self._step("install", [*failed, *done])

    def verify(self, strict: bool) -> Verification:
        environment = probe(Path(self.python) if self.python else None)
        found = verify(self.session.settings, environment, self.report, strict=strict)
        checks = tuple(replace(each, command=as_called(each.command)) for each in found.checks)
        self.verification = replace(found, checks=checks)
        return self.verification

    def _left(self, *without: str) -> Session:
        """The session over the repositories that no step has failed for or done one of the actions `without` to."""
        rows = [row for step in self.steps.values() for row in step]
        failed = {row.repository for row in rows if row.error or row.action in without}
        settings = self.session.settings
        left = tuple(each for each in settings.repositories if each.name not in failed)
        return replace(self.session, settings=replace(settings, repositories=left))

    def _step(self, name: str, outcomes: list[Outcome]) -> list[Outcome]:
        outcomes = [replace(each, warnings=self.report.take_warnings(each.repository)) for each in outcomes]
        self.steps[name] = outcomes
        for error in (each.error for each in outcomes if each.error):
            error.command = as_called(error.command)
        return outcomes

    def _check_room(self, environment: Environment, packages: Sequence[Package], deps: bool) -> None:
        new = [each for each in packages if deps and not environment.distribution(each.name)]
        needed = sum(cost(each.repository).install for each in new)
        if new and not environment.distribution("torch"):
            check_space(environment.prefix, needed, "install", "`uv cache clean` or `pip cache purge` empties a cache")


@contextmanager
def run(
    c: Context,
    task: str,
    refs: Mapping[str, str],
    *,
    full: bool = False,
    python: str = "",
    quiet: bool = False,
    looking: bool = False,
) -> Iterator[Run]:
    """The run of one task, alone in its folder. Whatever a user can cause ends here as one message and a status.

    `looking` runs change nothing; `quiet` ones print nothing but their result. Raises Failed.
    """
    invoke = c.config.get("run", {})
    this: Run | None = None
    error: SourcesError | None = None
    options = {"hide": invoke.get("hide"), "echo": bool(invoke.get("echo"))}
    with Report(**options, json=quiet, rename=as_called) as report:
        try:
            settings = load(_tree(c.config), ROOT, str(ROOT / "invoke.yaml"))
            asked = {name: check_ref(ref) for name, ref in refs.items() if ref}
            check_version()
            dry = bool(invoke.get("dry"))
            with turn(settings.directory, report, looking=looking or dry):
                this = Run(task, Session(settings, report, asked, full), report, python, dry)
                yield this
        except SourcesError as caught:
            caught.command = as_called(caught.command)
            error = caught
        except OSError as caught:
            error = DiskError(f"{caught.filename or settings.directory}: {caught.strerror or caught}")
        except KeyboardInterrupt:
            error = Interrupted("Interrupted.", "Run the same command again: it continues where this one stopped.")
        result = _result(task, report, python, this, error)
        report.finish(result)
        if not result.ok:
            raise Failed(result) from None


def _result(task: str, report: Report, python: str, this: Run | None, error: SourcesError | None) -> Result:
    failure = error or (this.failure if this else None)
    found = this.verification if this else None
    status = failure.status if failure else int(bool(found and not found.ok))
    interpreter = Path(python or sys.executable).absolute()
    environment = EnvironmentState(interpreter, interpreter.parent.parent)
    steps = this.steps if this else {}
    return Result(task, status, environment, steps, report.seconds, report.take_warnings(), error, found)


def _tree(config: Config) -> Any:
    """The tree `sources`; below it the defaults, where Invoke has not put them (with `Context()` of a script)."""
    given = config.get("sources", {})
    if isinstance(given, Mapping | DataProxy) and {*DEFAULTS} <= {*given}:
        return given
    whole = config.clone()
    try:
        whole.load_defaults({**type(config).global_defaults(), "sources": DEFAULTS})
    except AmbiguousMergeError as error:
        raise UsageError(f"The configuration `sources` cannot be read: {error}") from None
    return whole["sources"]


def _planned(package: Package, current: bool) -> Outcome:
    action = "already installed" if current else "would install"
    return Outcome(package.repository, action, commit=package.commit, version=package.version)


def _tools() -> tuple[str, ...]:
    """What this program itself requires, one requirement a line in requirements.txt beside this file."""
    lines = (Path(__file__).parent / "requirements.txt").read_text(encoding="utf-8").splitlines()
    needed = [line.split("#")[0].strip() for line in lines]
    return tuple(line for line in needed if line)
