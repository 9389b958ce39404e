"""The values that directories pass to each other, and that the tasks return. All are valid once they exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, Protocol

from invoke.exceptions import Exit

from .errors import SourcesError

VERSION = "0.1.0"  # of this tool; pyproject.toml reads it here

Status = Literal["pass", "warn", "fail", "skip"]
RefSource = Literal["option", "lock file", "this checkout", "configuration", ""]


@dataclass(frozen=True)
class Repository:
    """One configured repository: where it comes from and where its checkout lies."""

    name: str
    url: str
    branch: str
    path: Path
    install: bool = True
    extras: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """The configuration tree `sources`, read and checked."""

    root: Path
    directory: Path
    trace: Path | None  # None where no trace data is expected
    attempts: int
    stall: float  # seconds
    indexes: tuple[str, ...]  # package indexes in addition
    repositories: tuple[Repository, ...]
    overrides: tuple[str, ...] = ()  # requirements that replace what SGLang asks for
    warnings: tuple[str, ...] = ()  # about keys that are not read any more


@dataclass(frozen=True)
class Check:
    """One thing that `verify` checked. `command` fixes it and can be run as it is; `hint` is advice in words."""

    name: str
    status: Status
    detail: str
    hint: str = ""
    command: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a step did to one repository. Empty strings are unknown."""

    repository: str
    action: str  # cloned, up to date, skipped (local changes), failed
    ref: str = ""  # the REF in use
    commit: str = ""
    version: str = ""
    before_commit: str = ""
    before_version: str = ""
    bytes: int = 0  # downloaded
    seconds: float = 0.0  # wall time
    ref_source: RefSource = ""
    resolved: str = ""  # the tag that `latest` or `matching` leads to
    before_ref: str = ""
    error: SourcesError | None = field(default=None, compare=False)


@dataclass(frozen=True)
class RepositoryState:
    """A checkout as `verify` or `status` found it; None is what is unknown or was not looked for."""

    path: Path
    url: str  # without a password
    ref: str
    commit: str | None = None
    version: str | None = None
    dirty: bool | None = None  # whether there are changed or untracked files
    directories: Mapping[str, Path] = field(default_factory=dict)  # the key directories by role
    ref_source: RefSource = ""
    resolved: str = ""
    branch: str = ""  # empty for a detached HEAD
    ahead: int | None = None  # commits, of what was fetched last
    behind: int | None = None
    changed: tuple[str, ...] = ()  # the paths of changed and untracked files
    problem: str = ""  # why there is nothing that could be read


@dataclass(frozen=True)
class PackageState:
    """An installed distribution (PEP 610)."""

    version: str | None
    editable: bool
    location: Path | None  # the directory it is imported from; None if not installed


@dataclass(frozen=True)
class Trace:
    """The trace data in `path`: valid definitions, also by op type, and reference tests, counted."""

    path: Path
    op_types: Mapping[str, int]
    definitions: int
    reference_tests: int


@dataclass(frozen=True)
class Verification:
    """Everything that `verify` found; `status` fills `repositories` and `packages` alone."""

    ok: bool  # no check failed (or warned, with `--strict`)
    repositories: Mapping[str, RepositoryState]
    packages: Mapping[str, PackageState]
    trace: Trace | None  # None where no trace data is expected
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class EnvironmentState:
    """The environment that a run installs into or checks."""

    interpreter: Path
    prefix: Path


@dataclass(frozen=True)
class Result:
    """One complete run of a task: `--json` prints it, and `Failed.result` holds it."""

    task: str
    exit_status: int = 0
    environment: EnvironmentState | None = None
    steps: Mapping[str, Sequence[Outcome]] = field(default_factory=dict)  # of clone, update and install
    seconds: float = 0.0  # wall time
    warnings: tuple[str, ...] = ()  # each beginning with what it is about
    error: SourcesError | None = field(default=None, compare=False)  # what ended the run itself
    verification: Verification | None = None
    dry: bool = False  # nothing was changed

    @property
    def ok(self) -> bool:
        """Whether the exit status is 0."""
        return self.exit_status == 0

    @property
    def outcomes(self) -> Sequence[Outcome]:
        """The outcomes of all steps."""
        return [row for rows in self.steps.values() for row in rows]

    @property
    def checks(self) -> Sequence[Check]:
        """What `verify` checked; empty where it did not run."""
        return self.verification.checks if self.verification else ()


class Failed(Exit):
    """A task failed: `code` is the exit status, `result` is what was done and found. The text says what failed."""

    def __init__(self, result: Result) -> None:
        super().__init__(code=result.exit_status)
        self.result = result

    def __str__(self) -> str:
        errors = [self.result.error, *(row.error for row in self.result.outcomes)]
        lines = [error.what for error in errors if error]
        if self.result.verification and not self.result.verification.ok:
            failed = [check for check in self.result.checks if check.status == "fail"]
            faults = failed or [check for check in self.result.checks if check.status == "warn"]  # with --strict
            lines += [f"{check.name}: {check.detail}" for check in faults]
        return "\n".join(lines)


class Reporter(Protocol):
    """What shows the progress of a run. Only `report.Report` implements it, and describes the methods."""

    def event(self, who: str, message: str) -> None: ...
    def warn(self, who: str, message: str) -> None: ...
    def progress(self, who: str, doing: str, done: float | None, moved: int, rate: float) -> None: ...
    def command(self, argv: Sequence[str], cwd: Path | None) -> None: ...
    def checked(self, group: str, checks: Sequence[Check]) -> None: ...
    def terminal(self) -> IO[str] | None: ...


@dataclass(frozen=True)
class Network:
    """How network operations are made: at most `attempts` times, each given up after `stall` seconds without a byte."""

    attempts: int
    stall: float
    reporter: Reporter
