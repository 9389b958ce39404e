"""One run of a task: reads Invoke's configuration, takes the folder's turn, and turns trouble into one exit status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from invoke.context import Context
from invoke.exceptions import Exit

from .checkout.changes import note_unchanged
from .checkout.lock import turn
from .checkout.session import Session
from .checkout.space import check_space
from .checkout.state import read_checkout
from .cli import as_called
from .config import load
from .errors import DiskError, SourcesError
from .git.command import check_version
from .models import Outcome
from .names import check_ref
from .packages.environment import Environment, probe
from .packages.layouts import COMPANIONS, cost
from .packages.matching import FLASHINFER
from .packages.package import Package, names
from .report.report import Report
from .verify.checks import verify
from .verify.result import Verification

ROOT = Path(__file__).resolve().parent.parent
INTERRUPTED = 130  # as shells have it for SIGINT


class Failed(Exit):
    """A task did not reach its aim: `code` is the exit status, `outcomes` tells what happened to each repository and
    `verification` what was found, where the task verified."""

    def __init__(self, code: int, outcomes: Sequence[Outcome] = (), verification: Verification | None = None) -> None:
        super().__init__(code=code)
        self.outcomes = tuple(outcomes)
        self.verification = verification


@dataclass
class Run:
    """The steps of one run over the same session. `steps` keeps what each did; what failed in one is left out after."""

    session: Session
    report: Report
    python: str
    dry: bool
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
            self.report.preload()
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
        return replace(found, checks=tuple(replace(each, command=as_called(each.command)) for each in found.checks))

    def _left(self, *without: str) -> Session:
        """The session over the repositories that no step has failed for or done one of the actions `without` to."""
        rows = [row for step in self.steps.values() for row in step]
        failed = {row.repository for row in rows if row.error or row.action in without}
        settings = self.session.settings
        left = tuple(each for each in settings.repositories if each.name not in failed)
        return replace(self.session, settings=replace(settings, repositories=left))

    def _step(self, name: str, outcomes: list[Outcome]) -> list[Outcome]:
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
    with Report(hide=invoke.get("hide"), echo=bool(invoke.get("echo")), json=quiet) as report:
        try:
            settings = load(c.config, ROOT)
            asked = {name: check_ref(ref) for name, ref in refs.items() if ref}
            check_version()
            dry = bool(invoke.get("dry"))
            with turn(settings.directory, report, looking=looking or dry):
                yield Run(Session(settings, report, asked, full), report, python, dry)
        except SourcesError as error:
            error.command = as_called(error.command)
            report.fail(error)
            raise Failed(error.status) from None
        except OSError as error:
            trouble = DiskError(f"{error.filename or settings.directory}: {error.strerror or error}")
            report.fail(trouble)
            raise Failed(trouble.status) from None
        except KeyboardInterrupt:
            report.fail(SourcesError("Interrupted.", "Run the same command again: it goes on where this one stopped."))
            raise Failed(INTERRUPTED) from None


def finish(run: Run, name: str) -> list[Outcome]:
    """Print what the step `name` did. Raises Failed where it failed for a repository."""
    outcomes = run.steps[name]
    run.report.outcomes(name, outcomes)
    if run.failure:
        raise Failed(run.failure.status, outcomes)
    return outcomes


def _planned(package: Package, current: bool) -> Outcome:
    action = "already installed" if current else "would install"
    return Outcome(package.repository, action, commit=package.commit, version=package.version)


def _tools() -> tuple[str, ...]:
    """What this program itself requires, one requirement a line in requirements.txt beside this file."""
    lines = (Path(__file__).parent / "requirements.txt").read_text(encoding="utf-8").splitlines()
    needed = [line.split("#")[0].strip() for line in lines]
    return tuple(line for line in needed if line)
