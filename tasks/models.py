"""The values that the rooms hand to each other. All are valid once they exist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from .errors import SourcesError

Status = Literal["pass", "warn", "fail", "skip"]


@dataclass(frozen=True)
class Repository:
    """One configured repository: where it comes from and where its checkout lies."""

    name: str
    url: str
    branch: str
    path: Path
    install: bool = True
    extras: tuple[str, ...] = ()
    lfs: bool = False


@dataclass(frozen=True)
class Settings:
    """The configuration tree `sources`, read and checked. `stall` is in seconds, `cache` is None where there is none,
    `trace` where no trace data is expected; `indexes` are additional package indexes."""

    root: Path
    directory: Path
    trace: Path | None
    attempts: int
    stall: float
    installer: Literal["auto", "uv", "pip"]
    indexes: tuple[str, ...]
    cache: Path | None
    repositories: tuple[Repository, ...]


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
    """What a task did to one repository. `ref_source` says where the REF comes from (option, this checkout,
    configuration); `moved` is in bytes, `seconds` is wall time; empty strings are unknown."""

    repository: str
    action: str
    ref: str = ""
    commit: str = ""
    version: str = ""
    before: str = ""
    before_version: str = ""
    moved: int = 0
    seconds: float = 0.0
    ref_source: str = ""
    error: SourcesError | None = field(default=None, compare=False)


class Reporter(Protocol):
    """Who is told what goes on. Only the report implements it; rooms below the tasks never print."""

    def event(self, who: str, message: str) -> None:
        """Something happened to `who` (a repository, a submodule such as `flashinfer/3rdparty/cutlass`)."""

    def warn(self, who: str, message: str) -> None:
        """Something a user should know, though the work goes on."""

    def progress(self, who: str, doing: str, done: float | None, moved: int, rate: float) -> None:
        """`who` is `doing` something: `done` in 0..1 or None, `moved` in bytes, `rate` in bytes per second."""

    def command(self, argv: Sequence[str], cwd: Path | None) -> None:
        """A command is about to be run (shown with Invoke's --echo)."""

    def output(self, who: str, line: str) -> None:
        """One line that an installer printed."""


@dataclass(frozen=True)
class Network:
    """How network operations are made: at most `attempts` tries, given up after `stall` seconds without a byte."""

    attempts: int
    stall: float
    reporter: Reporter
