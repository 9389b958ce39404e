"""For tests of `clone` and `update`: the tasks called as functions, and a fingerprint of every file."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
from invoke.config import Config
from invoke.context import Context
from invoke.exceptions import Exit

import tasks
from tasks.settings import DEFAULTS
from tests.upstream.store import PATHS

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


class HasGit(Protocol):
    """What runs git in one of its checkouts."""

    def git(self, repository: str, *arguments: str) -> str: ...


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


def sound(checkouts: HasGit, repository: str, but: Sequence[str] = ()) -> None:
    """Nothing is changed or missing, in the checkout and its submodules, as plain git sees it. `but` is what the user
    has there."""
    changed = checkouts.git(repository, "status", "--porcelain", "--untracked-files=all", "--ignore-submodules=none")
    assert {*changed.split("\n")} <= {"", *but}
    submodules = checkouts.git(repository, "submodule", "status", "--recursive")
    assert not re.search(r"^[-+U]", submodules, re.M), submodules
    checkouts.git(repository, "fsck", "--connectivity-only")


def fingerprint(folder: Path, leave_out: str = r"^\.lock") -> dict[str, str]:
    """Every file below `folder` by its path: what it is, its rights, its content and when it was written.

    Left out are paths that match `leave_out` (a regular expression). Directories count as being there.
    """
    found = {}
    for file in folder.rglob("*"):
        path, status = str(file.relative_to(folder)), file.lstat()
        if re.search(leave_out, path):
            continue
        content = ""
        if file.is_symlink():
            content = str(file.readlink())
        elif file.is_file():
            content = hashlib.sha256(file.read_bytes()).hexdigest()
        written = "" if file.is_dir() else str(status.st_mtime_ns)
        found[path] = f"{status.st_mode:o} {content} {written}"
    return found


def work(folder: Path) -> dict[str, str]:
    """All that is a user's below `folder`: the files of every working tree, and what each repository has staged,
    checked out, on branches and in stashes."""
    state = fingerprint(folder, r"^\.lock|(^|/)\.git/|^\.[^/]*\.partial")
    for repository in folder.rglob(".git"):
        for question in ("ls-files --stage", "worktree list --porcelain", "for-each-ref refs/heads refs/stash"):
            command = ["git", *question.split()]
            run = subprocess.run(command, cwd=repository.parent, capture_output=True, text=True, check=False)
            state[f"{repository} {question}"] = run.stdout
    return state


def commits(folder: Path, *revisions: str) -> set[str]:
    """Every commit that a ref, HEAD or a stash of the repository leads to, or one of `revisions` alone."""

    def ask(*arguments: str) -> list[str]:
        run = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
        return run.stdout.split()

    return set(ask("rev-list", *(revisions or ("--all", "HEAD", *ask("stash", "list", "--format=%H")))))
