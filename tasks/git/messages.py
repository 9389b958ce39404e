"""What git's messages mean: which error it is, and whether another attempt can help."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import DiskError, LocalWorkError, NetworkError, SourcesError, counted, examples
from ..names import redact

_TRANSIENT = re.compile(
    r"connection (refused|reset|closed|timed out)|recv failure|send failure|(failed|couldn't|could not) (to )?connect|"
    r"timed? ?out|timeout was reached|no data for|early eof|unexpected disconnect|hung up unexpectedly|"
    r"transfer closed|empty reply|curl (16|18|28|35|52|55|56|61|92) |ssl_error_syscall|gnutls|"
    r"invalid index-pack output|expected flush|unexpected eof|bad pack header|bytes of body are still expected|"
    r"network is unreachable|no route to host",
    re.I,
)
_REFUSED = re.compile(r"unadvertised object|dumb http transport does not support|does not support shallow", re.I)
_UNKNOWN_HOST = re.compile(r"could not resolve host", re.I)
_NO_SPACE = re.compile(r"no space left on device|out of diskspace|disk quota exceeded", re.I)
_NO_RIGHTS = re.compile(
    r"read-only file system|(unable to|cannot|could not|failed to) .*: permission denied|insufficient permission", re.I
)
_NOT_OURS = re.compile(r"dubious ownership")
_LOCKED = re.compile(r"Unable to create '(.*\.lock)': File exists")
_OVERWRITE = re.compile(
    r"^error: (Your local changes|The following untracked|Updating the following|Entry '(.*)' not uptodate|"
    r"(?:Untracked working tree file|Updating) '(.*)' would)",
    re.M,
)
_UNDER_WAY = re.compile(r"cannot (switch branch|\w+) while|you need to resolve your current index", re.I)
_ON_THIS_MACHINE = (_NO_SPACE, _NO_RIGHTS, _NOT_OURS, _LOCKED, _UNDER_WAY)  # a remote may have the same troubles
_BUSY = re.compile(r"(returned error:|HTTP( code =)?) (429|5\d\d)")
_NO_OBJECT = re.compile(r"not our ref|couldn't find remote ref")
_NOT_GIT = re.compile(r"is this a git repository|protocol error|redirects followed|content (un)?encoding", re.I)
_NO_ACCESS = re.compile(
    r"(returned error:|HTTP( code =)?) \d{3}|authentication failed|could not read (user|pass)|not found|access rights",
    re.I,
)
_TELLING = re.compile(r"(fatal|error|remote):(?! *(Enumerating|Counting|Compressing|Total)\b)|.*: No space")
_RETRY_AFTER = re.compile(r"retry[- ]after:? (\d+)", re.I)
LONGEST_WAIT = 300.0  # seconds that a remote may ask for
NEXT_TO_NOTHING = 1_000_000  # bytes


class GitError(SourcesError):
    """git failed for a reason that nothing else explains."""

    code = "git"


class OverwriteError(LocalWorkError):
    """git refused, since files of the user's would be overwritten; it has changed nothing. `paths` are relative."""

    def __init__(self, what: str, paths: tuple[str, ...], untracked: bool) -> None:
        super().__init__(what)
        self.paths = paths
        self.untracked = untracked


class RefusedError(NetworkError):
    """The remote does not serve what was requested in this form (an object by its id, a shallow history)."""


class NoObjectError(NetworkError):
    """The remote has no object of the requested id."""


class TransientError(NetworkError):
    """An error that another attempt may not meet: at most `attempts` make sense, `wait` seconds were asked for."""

    def __init__(self, what: str, attempts: int | None = None, wait: float = 0.0) -> None:
        super().__init__(what, "Check the connection and run the same command again; what has arrived is kept.")
        self.attempts = attempts
        self.wait = wait


class DiskFullError(DiskError):
    """No space is left."""

    def __init__(self, what: str, hint: str = "Free some space and run the same command again.") -> None:
        super().__init__(what, hint)


def explain(text: str, who: str, endpoint: str, cwd: Path, *, network: bool = False) -> SourcesError:
    """The error that git's messages `text` mean, for the repository `who` at `endpoint` (a URL or a directory).

    A failure of a command that used the `network` is at least a NetworkError. Where the disk of `cwd` is full, that
    is the reason for what nothing else explains.
    """
    if refused := None if network else _refusal(text, who, endpoint):
        return refused
    text = redact(text).replace("\r", "\n")
    own = re.sub(r"(?m)^(remote:|fatal: remote error:).*", "", text)
    printed = [line.strip() for line in text.splitlines() if line.strip() and not re.search(r"\d% \(", line)]
    lines = [line for line in printed if _TELLING.match(line)] or printed
    message = "; ".join(dict.fromkeys(re.sub(r"^((fatal|error|remote): *)+", "", each).strip() for each in lines[-4:]))
    where = f"{who}: {endpoint}: {message[-1000:].strip().rstrip('.') or 'git failed without a message'}."
    asked = _RETRY_AFTER.search(text)
    trust = f"git config --global --add safe.directory {shlex.quote(endpoint)}"
    access = "Check the URL, and that this machine may read it: credentials are never asked for."
    portal = "Check the URL, and that no proxy or login page answers in place of the host."
    meanings: tuple[tuple[re.Pattern[str], Callable[[], SourcesError]], ...] = (  # the first that fits
        (_NO_SPACE, lambda: DiskFullError(where)),
        (_NO_RIGHTS, lambda: DiskError(where, "Check who may write there.")),
        (_NOT_OURS, lambda: LocalWorkError(f"{who}: {endpoint} belongs to another user.", command=trust)),
        (_LOCKED, lambda: _locked(text, who)),
        (_UNDER_WAY, lambda: LocalWorkError(where, "Finish it or abort it, then run the same command again.")),
        (_UNKNOWN_HOST, lambda: TransientError(where, attempts=2)),
        (_BUSY, lambda: TransientError(where, wait=min(float(asked[1]), LONGEST_WAIT) if asked else 0)),
        (_REFUSED, lambda: RefusedError(where)),
        (_NO_OBJECT, lambda: NoObjectError(where, "It may have moved on: run the same command again.")),
        (_NO_ACCESS, lambda: NetworkError(where, access)),
        (_TRANSIENT, lambda: TransientError(where)),
        (_NOT_GIT, lambda: NetworkError(where, portal)),
    )
    for pattern, error in meanings:
        if pattern.search(own if pattern in _ON_THIS_MACHINE else text):
            return error()
    if shutil.disk_usage(next(each for each in (cwd, *cwd.parents) if each.exists())).free < NEXT_TO_NOTHING:
        return DiskFullError(where)
    return NetworkError(where, access) if network else GitError(where)


def _refusal(text: str, who: str, endpoint: str) -> OverwriteError | None:
    """git lists the paths that it would overwrite, each on a line of its own after a tab, or names the first."""
    found = _OVERWRITE.search(text)
    if not found:
        return None
    paths = re.findall(r"^\t(.*)$", text, re.M) or [found[2] or found[3]]
    untracked = not found[1].startswith(("Your local changes", "Entry"))
    return overwrite_error(who, endpoint, paths, untracked=untracked)


def overwrite_error(who: str, place: str, paths: Sequence[str], *, untracked: bool) -> OverwriteError:
    """The error for these files in the checkout at `place`."""
    files = counted(len(paths), "untracked file" if untracked else "changed file")
    what = f"{who}: {files} would be overwritten in {place}: {examples(paths)}."
    return OverwriteError(what, tuple(paths), untracked)


def _locked(text: str, who: str) -> SourcesError:
    found = _LOCKED.search(text)
    file = found[1] if found else ""
    hint = "Another git process may be running there: wait for it. If none is, remove the file and run this again."
    return LocalWorkError(f"{who}: git is locked by {file}.", hint, f"rm -i {shlex.quote(file)}")
