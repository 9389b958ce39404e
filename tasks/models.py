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
    """The configuration tree `sources`, read and checked. `stall` is in seconds, `trace` None where no trace data is
    expected; `indexes` are additional package indexes, `overrides` requirements that replace what SGLang asks for;
    `warnings` name keys that are not read any more."""

    root: Path
    directory: Path
    trace: Path | None
    attempts: int
    stall: float
    indexes: tuple[str, ...]
    repositories: tuple[Repository, ...]
    overrides: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


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
    """What a step did to one repository. Empty strings are unknown.

    `action` is what happened (cloned, up to date, skipped (local changes), failed), `ref` the REF in use, `ref_source`
    where it comes from, `resolved` the tag that `latest` or `matching` leads to, `commit` and `version` what the
    checkout is at now; what it was at before is in `before_ref`, `before_commit` and `before_version`. `bytes` are
    those that were downloaded, `seconds` is wall time. `error` is what the step failed with.
    """

    repository: str
    action: str
    ref: str = ""
    commit: str = ""
    version: str = ""
    before_commit: str = ""
    before_version: str = ""
    bytes: int = 0
    seconds: float = 0.0
    ref_source: RefSource = ""
    resolved: str = ""
    before_ref: str = ""
    warnings: tuple[str, ...] = ()
    error: SourcesError | None = field(default=None, compare=False)


@dataclass(frozen=True)
class RepositoryState:
    """A checkout as `verify` or `status` found it; None is what is unknown or was not looked for.

    `url` holds no password. `ref` is the REF in use, `ref_source` where it comes from, `resolved` the tag that `latest`
    or `matching` led to. `branch` is the local branch, empty for a detached HEAD; `ahead` and `behind` count commits
    against what was fetched last. `changed` are the paths of changed and untracked files, `dirty` says whether there
    are any. `directories` has the key directories by role. `problem` is why there is nothing that could be read.
    """

    path: Path
    url: str
    ref: str
    commit: str | None = None
    version: str | None = None
    dirty: bool | None = None
    directories: Mapping[str, Path] = field(default_factory=dict)
    ref_source: RefSource = ""
    resolved: str = ""
    branch: str = ""
    ahead: int | None = None
    behind: int | None = None
    changed: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class PackageState:
    """An installed distribution (PEP 610). `location` is the directory it is imported from, None if not installed."""

    version: str | None
    editable: bool
    location: Path | None


@dataclass(frozen=True)
class Trace:
    """The trace data in `path`: valid definitions, also by op type, and reference tests, counted."""

    path: Path
    op_types: Mapping[str, int]
    definitions: int
    reference_tests: int


@dataclass(frozen=True)
class Verification:
    """Everything that `verify` found. `ok`: no check failed (or warned, with `--strict`). `trace` is None where no
    trace data is expected; `checks` are all checks, those of the trace data included. `status` fills `repositories` and
    `packages` alone."""

    ok: bool
    repositories: Mapping[str, RepositoryState]
    packages: Mapping[str, PackageState]
    trace: Trace | None
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class EnvironmentState:
    """The environment that a run installs into or checks."""

    interpreter: Path
    prefix: Path


@dataclass(frozen=True)
class Result:
    """One complete run of a task: `--json` prints it, and `Failed.result` holds it.

    `steps` are the outcomes of clone, update and install, in the order of work; `seconds` is the wall time of each
    step, `verify` included. `error` is what ended the run itself (a wrong option, the lock, Ctrl-C), `verification`
    what `verify` found, `warnings` are those that belong to no repository. A `dry` run changed nothing.
    """

    task: str
    exit_status: int = 0
    environment: EnvironmentState | None = None
    steps: Mapping[str, Sequence[Outcome]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    error: SourcesError | None = field(default=None, compare=False)
    verification: Verification | None = None
    dry: bool = False

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

    @property
    def failure(self) -> str:
        """What failed, one sentence a line: the run itself, steps, or checks; empty where all is well."""
        lines = [error.what for error in (self.error, *(row.error for row in self.outcomes)) if error]
        if self.verification and not self.verification.ok:
            failed = [check for check in self.checks if check.status == "fail"]
            faults = failed or [check for check in self.checks if check.status == "warn"]
            lines += [f"{check.name}: {check.detail}" for check in faults]
        return "\n".join(dict.fromkeys(lines))


class Failed(Exit):
    """A task failed: `code` is the exit status, `result` is what was done and found. The text says what failed."""

    def __init__(self, result: Result) -> None:
        super().__init__(code=result.exit_status)
        self.result = result

    def __str__(self) -> str:
        return self.result.failure


class Reporter(Protocol):
    """What shows the progress of a run. Only `report.Report` implements it, and describes the methods."""

    def event(self, who: str, message: str) -> None: ...
    def warn(self, who: str, message: str) -> None: ...
    def progress(self, who: str, doing: str, done: float | None, moved: int, rate: float) -> None: ...
    def command(self, argv: Sequence[str], cwd: Path | None) -> None: ...
    def output(self, who: str, line: str) -> None: ...
    def checked(self, group: str, checks: Sequence[Check]) -> None: ...
    def terminal(self) -> IO[str] | None: ...


@dataclass(frozen=True)
class Network:
    """How network operations are made: at most `attempts` times, each given up after `stall` seconds without a byte."""

    attempts: int
    stall: float
    reporter: Reporter
