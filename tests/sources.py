"""For tests of `clone` and `update`: the tasks called as functions, and a fingerprint of every file."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from invoke.config import Config
from invoke.context import Context
from invoke.exceptions import Exit

import tasks
from tasks.settings import DEFAULTS
from tests.upstream.store import PATHS

COMING = r"\.git/(modules/3rdparty/cccl|refs/)"  # repositories of submodules that nothing refers to yet
IDENTITY = {f"GIT_{role}_{what}": "user@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@dataclass(frozen=True)
class Result:
    """How a command ended and what it printed."""

    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """All that it printed, in one line; a traceback is a failure."""
        assert "Traceback" not in self.out + self.err
        return " ".join((self.out + self.err).split())


@dataclass
class Sources:
    """A directory of checkouts that this process works on with the tasks themselves. `repositories` and `settings` are
    the configuration; tests may change them."""

    path: Path
    capture: pytest.CaptureFixture[str]
    repositories: dict[str, dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)

    def __call__(self, task: str, *, check: int | None = 0, full: bool = False, **refs: Any) -> Result:
        """Run a task; `sglang="main"` and the like name REFs; `check` is the exit status that it must have."""
        given = {"directory": str(self.path), "attempts": "2", "repositories": self.repositories}
        tree = {**DEFAULTS, **given, **self.settings}  # whole, so nothing is added
        context = Context(Config(overrides={"sources": tree, "run": {"echo": True}}, lazy=True))
        options = {**{f"{name}_branch": ref for name, ref in refs.items()}, **({"full": True} if full else {})}
        self.capture.readouterr()
        try:
            getattr(tasks, task)(context, only=[*self.repositories], **options)
            status = 0
        except Exit as exit:
            status = exit.code or 0
        result = Result(status, *self.capture.readouterr())
        assert check in (None, status), f"exit status {status}\n{result.out}\n{result.err}"
        return result

    def git(self, repository: str, *arguments: str, check: bool = True) -> str:
        """What git prints in a checkout, such as `sglang` or `flashinfer/3rdparty/cutlass`, for an ordinary user."""
        run = subprocess.run(
            ["git", *arguments], cwd=self.path / repository, env={**os.environ, **IDENTITY},
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or run.returncode == 0, run.stderr + run.stdout
        return run.stdout.removesuffix("\n")

    def head(self, repository: str) -> str:
        """The commit that is checked out."""
        return self.git(repository, "rev-parse", "HEAD")

    def commit(self, repository: str, name: str = "mine.txt", text: str = "mine\n") -> str:
        """Commit a file as the user would. Returns the commit id."""
        (self.path / repository / name).write_text(text)
        self.git(repository, "add", "--", name)
        self.git(repository, "commit", "-q", "-m", f"My {name}")
        return self.head(repository)


def url(name: str) -> str:
    """The address of one of the small upstreams."""
    return f"https://github.com/{PATHS.get(name, name)}.git"


def exhaustive(cases: Iterable[tuple[Any, ...]]) -> list[Any]:
    """The cases of a parametrized test for full runs (`-m exhaustive`) only."""
    return [pytest.param(*case, marks=pytest.mark.exhaustive) for case in cases]


def configure(**settings: str) -> None:
    """Write into the user's git configuration: `configure(core_sshCommand="ssh -4")`."""
    for key, value in settings.items():
        subprocess.run(["git", "config", "--global", key.replace("_", "."), value], check=True)


def nothing_but_the_lock(folder: Path) -> bool:
    """Whether a directory for checkouts has none, nor what continues as one in the next run."""
    return {path.name for path in folder.iterdir() if "partial" not in path.name} <= {".lock"}


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)
        yield from (Path(parent, name) for name in folders)


def fingerprint(folder: Path, leave_out: str = r"^\.lock", times: bool = True) -> dict[str, str]:
    """Every file below `folder` by its path: what it is, its rights, its content and, with `times`, when written.

    Left out are paths that match `leave_out` (a regular expression). Folders count as being there.
    """
    found = {}
    for file in _files(folder):
        path, status = str(file.relative_to(folder)), file.lstat()
        if re.search(leave_out, path):
            continue
        content = ""
        if file.is_symlink():
            content = str(file.readlink())
        elif file.is_file():
            content = hashlib.sha256(file.read_bytes()).hexdigest()
        written = str(status.st_mtime_ns) if times and not file.is_dir() else ""
        found[path] = f"{status.st_mode:o} {content} {written}"
    return found


def work(folder: Path, but: str = "^$") -> dict[str, str]:
    """A fingerprint of all that is a user's: every file but objects that have come, where the remote's branches are,
    and what says which of them are here. Of an index it is what is staged, not when files were looked at. Left out are
    also paths that match `but`."""
    state = fingerprint(
        folder,
        r"(^|/)\.lock|\.git/(modules/.*)?(objects(/|$)|shallow$|logs/refs$|(logs/)?refs/remotes(/|$)|index$)"
        rf"|\.git/(modules/.*/)?sources\.json$|\.git/modules/.*/config$|{but}",
    )
    indexes = [*folder.glob("**/.git/index"), *folder.glob("**/.git/modules/**/index")]
    for index in (index for index in indexes if not re.search(but, str(index))):
        listing = ("git", f"--git-dir={index.parent}", f"--work-tree={index.parent}", "ls-files", "--stage")
        state[str(index)] = subprocess.run(listing, cwd=index.parent, capture_output=True, text=True, check=True).stdout
    return state


def commits(folder: Path, *revisions: str) -> set[str]:
    """Every commit that a ref, HEAD or a stash of the repository leads to, or one of `revisions` alone."""

    def ask(*arguments: str) -> list[str]:
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
        ).stdout.split()

    return set(ask("rev-list", *(revisions or ("--all", "HEAD", *ask("stash", "list", "--format=%H")))))
