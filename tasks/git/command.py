"""Runs git: never prompting, executing nothing of a repository, asking no remote unless it is told to."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from ..checkout.space import DiskFullError, is_full
from ..errors import SourcesError
from .messages import GitError, explain
from .processes import end

MINIMUM = (2, 34)
_OPTIONS = {
    "advice.detachedHead": "false",
    "checkout.workers": f"{max(1, (os.cpu_count() or 1) // 4)}",  # several checkouts run side by side
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "fetch.recurseSubmodules": "false",
    "fetch.unpackLimit": "1",  # always a pack, which the cache can share
    "gc.auto": "0",
    "http.lowSpeedLimit": "1",
    "maintenance.auto": "false",
    "safe.bareRepository": "all",  # a submodule's, before it has files
    "submodule.recurse": "false",
}
_ENVIRONMENT = {
    "GCM_INTERACTIVE": "never",
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    "GIT_ASKPASS": "false",
    "GIT_LFS_SKIP_SMUDGE": "1",  # a checkout gets pointers; the clean filter stays, so that files are unchanged, too
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",  # messages that `trouble` knows
    "LANGUAGE": "C",
    "SSH_ASKPASS_REQUIRE": "never",
}
_INHERITED = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
    "GIT_NAMESPACE",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_SHALLOW_FILE",
)

cancelled = threading.Event()
_running: set[int] = set()


def check_version() -> None:
    """Raise SourcesError where git is missing or older than MINIMUM."""
    for name in _INHERITED:  # set where Invoke was started by a git hook; they would point git at another repository
        os.environ.pop(name, None)
    wanted = ".".join(map(str, MINIMUM))
    try:
        told = subprocess.run(["git", "version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        raise SourcesError("git was not found on the PATH.", f"Install git {wanted} or newer.") from None
    version = re.search(r"\d+(\.\d+)+", told)
    if not version or tuple(map(int, version[0].split(".")))[:2] < MINIMUM:
        raise SourcesError(f"git {version[0] if version else '?'} is too old.", f"Install git {wanted} or newer.")


def begin() -> None:
    """Let git run again after a `cancel`."""
    cancelled.clear()


def cancel() -> None:
    """End all running git processes and all waits for a next try, and let no more begin (Ctrl-C)."""
    cancelled.set()
    for pid in list(_running):
        end(pid)


def check_cancelled() -> None:
    """Raise KeyboardInterrupt after a `cancel`."""
    if cancelled.is_set():
        raise KeyboardInterrupt


def run(cwd: Path, *args: str, stdin: str = "", check: bool = True, locks: bool = False) -> str:
    """Run a local git command in `cwd` and return its standard output without the last newline.

    With `locks` on, git may write down what it finds on the way (git(1), GIT_OPTIONAL_LOCKS). Raises GitError with
    git's own words, DiskError or LocalWorkError; with `check` off a failure returns ''.
    """
    local = {"GIT_ALLOW_PROTOCOL": "", "GIT_OPTIONAL_LOCKS": f"{locks:d}"}  # no missing object is asked for on the way
    errors = list[str]()
    status, out = execute(cwd, args, local, stdin, errors.append)
    if status and check:
        raise failure("".join(errors), cwd.name, str(cwd), cwd)
    return "" if status else out.removesuffix("\n")


def execute(
    cwd: Path,
    args: tuple[str, ...],
    environment: dict[str, str],
    stdin: str,
    on_message: Callable[[str], object],
    watching: Callable[[int], AbstractContextManager[object]] = nullcontext,
) -> tuple[int, str]:
    """Run git in `cwd` and return its exit status and standard output. `on_message` gets each line (or state of one
    that is drawn over) of its messages as it comes; meanwhile it runs within `watching`, which gets its process id."""
    check_cancelled()
    argv = ["git", "-C", str(cwd.absolute()), *_options(), *args]
    above = {str(cwd.absolute().parent), str(cwd.resolve().parent)}  # where `cwd` is no repository, none above is meant
    environ = {**os.environ, **_ENVIRONMENT, "GIT_CEILING_DIRECTORIES": os.pathsep.join(above), **environment}
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(stdin.encode("utf-8", "surrogateescape"))
        given.seek(0)
        with subprocess.Popen(
            argv, env=environ, stdin=given, stdout=said,
            stderr=subprocess.PIPE, encoding=sys.getfilesystemencoding(), errors="surrogateescape",
        ) as process:  # fmt: skip
            _running.add(process.pid)
            try:
                if cancelled.is_set():
                    end(process.pid)
                with watching(process.pid):
                    for line in process.stderr or ():
                        on_message(line)
            finally:
                _running.discard(process.pid)
        said.seek(0)
        return process.returncode, os.fsdecode(said.read())  # as Python has the names of files


def failure(told: str, who: str, endpoint: str, cwd: Path) -> SourcesError:
    """What git's messages mean; a disk that is full in `cwd`, where they say nothing else."""
    error = explain(told, who, endpoint)
    if type(error) is GitError and is_full(cwd):  # not all of git's messages say so
        return DiskFullError(error.what)
    return error


def _options() -> tuple[str, ...]:
    # Where git-lfs is configured and missing, git would fail; an empty `process` switches smudge and clean off, too.
    lfs = {} if shutil.which("git-lfs") else {"filter.lfs.process": "", "filter.lfs.required": "false"}
    return tuple(word for key, value in {**_OPTIONS, **lfs}.items() for word in ("-c", f"{key}={value}"))
