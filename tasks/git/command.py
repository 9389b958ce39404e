"""Running git: it never prompts, runs no hook, and contacts no remote unless it is asked to."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .. import processes
from ..errors import SourcesError
from ..processes import Completed
from .messages import explain

MINIMUM = (2, 34)
_OPTIONS = {
    "advice.detachedHead": "false",
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "fetch.recurseSubmodules": "false",
    "fetch.unpackLimit": "1",  # always a pack, which the cache can share
    "gc.auto": "0",
    "maintenance.auto": "false",
    "protocol.version": "2",
    "safe.bareRepository": "all",  # a submodule's repository, before it has files
    "submodule.recurse": "false",
}
_ENVIRONMENT = {
    "GCM_INTERACTIVE": "never",
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    "GIT_ASKPASS": "false",
    "GIT_LFS_SKIP_SMUDGE": "1",  # a checkout gets pointers; the clean filter stays, so that files count as unchanged
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",  # the messages that `messages` knows
    "LANGUAGE": "C",
    "SSH_ASKPASS_REQUIRE": "never",
}
_INHERITED = (  # set where Invoke was started by a git hook; they would name another repository
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX",
    "GIT_NAMESPACE", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_SHALLOW_FILE",
)  # fmt: skip
_keep_open: list[int] = []


def keep_open(descriptor: int | None) -> None:
    """Let local commands inherit this descriptor of a lock: the lock then lasts as long as the last of them."""
    _keep_open[:] = [] if descriptor is None else [descriptor]


def check_version() -> None:
    """Raise SourcesError where git is missing or older than MINIMUM. Variables that name a repository, or no ssh, are
    removed from this process."""
    for name in (*_INHERITED, *([] if os.environ.get("GIT_SSH_COMMAND", "").strip() else ["GIT_SSH_COMMAND"])):
        os.environ.pop(name, None)
    wanted = ".".join(map(str, MINIMUM))
    hint = f"Install git {wanted} or newer."
    try:
        output = processes.run(["git", "version"], timeout=30).output.decode(errors="replace")
    except OSError:
        raise SourcesError("git was not found on the PATH.", hint) from None
    version = re.search(r"\d+(\.\d+)+", output)
    if not version or tuple(map(int, version[0].split(".")))[:2] < MINIMUM:
        raise SourcesError(f"git {version[0] if version else 'of unknown version'} is too old.", hint)


def run(
    cwd: Path,
    *args: str,
    who: str = "",
    stdin: str = "",
    check: bool = True,
    index: Path | None = None,
    on_errors: Callable[[bytes], object] | None = None,
) -> str:
    """Run a local git command in `cwd` and return its standard output without the last newline.

    Missing objects are not fetched on the way. `index` is used in place of the repository's own (git(1),
    GIT_INDEX_FILE). Raises what `explain` makes of git's messages; with `check` off a failure returns ''.
    """
    environment = {"GIT_ALLOW_PROTOCOL": "", **({"GIT_INDEX_FILE": str(index)} if index else {})}
    done = execute(cwd, args, environment, stdin, on_errors=on_errors)
    if done.status and check:
        raise explain(os.fsdecode(done.errors), who or cwd.name, str(cwd), cwd)
    return "" if done.status else os.fsdecode(done.output).removesuffix("\n")


def execute(
    cwd: Path,
    args: Sequence[str],
    environment: Mapping[str, str],
    stdin: str = "",
    silence: float | None = None,
    on_errors: Callable[[bytes], object] | None = None,
) -> Completed:
    """Run git in `cwd`; `silence` and `on_errors` are those of `processes.run`."""
    above = {str(cwd.absolute().parent), str(cwd.resolve().parent)}  # where `cwd` is no repository, none above is meant
    where = {"GIT_CEILING_DIRECTORIES": os.pathsep.join(above)}
    if (cwd / "objects").is_dir() and not (cwd / ".git").exists():
        where |= dict.fromkeys(("GIT_DIR", "GIT_WORK_TREE"), str(cwd))  # `core.worktree` may name a missing directory
    # Where git-lfs is configured but missing, git would fail: an empty `process` switches both filters off.
    lfs = {} if shutil.which("git-lfs") else {"filter.lfs.process": "", "filter.lfs.required": "false"}
    options = [word for key, value in {**_OPTIONS, **lfs}.items() for word in ("-c", f"{key}={value}")]
    return processes.run(
        ["git", "-C", str(cwd.absolute()), *options, *args],
        env={**os.environ, **_ENVIRONMENT, **where, **environment},
        stdin=os.fsencode(stdin),
        silence=silence,
        on_errors=on_errors,
        keep_open=() if silence else _keep_open,
    )
