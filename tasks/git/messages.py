"""What git's messages mean: which error it is, and whether another attempt can help."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from .. import names
from ..errors import DiskError, LocalWorkError, NetworkError, SourcesError, counted, examples

LONGEST_WAIT = 300.0  # seconds that a remote may ask for
NEXT_TO_NOTHING = 1_000_000  # bytes
KEEP_IT = "Commit or stash your changes, or move the files away, then run the same command again."
FINISH = "Finish it or abort it, then run the same command again."
RENAME = "Nothing is lost: rename, switch or commit there, then run the same command again."
ACCESS = "Check the URL, and that this machine may read it: credentials are never asked for."
KEYS = "Try `ssh` to that host by hand: keys and passwords are never asked for here."
PORTAL = "Check the URL, and that no proxy or login page answers in place of the host."
WRITERS = "Check who may write there."


class GitError(SourcesError):
    """git failed for a reason that nothing else explains."""

    code = "git"


class RefusedError(NetworkError):
    """The remote does not serve an object by its id."""


class TransientError(NetworkError):
    """An error that another attempt may not meet: at most `attempts` make sense, `wait` seconds were asked for."""

    def __init__(self, what: str, hint: str = "", attempts: int | None = None, wait: float = 0.0) -> None:
        proxies = [name for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY") if os.environ.get(name)]
        proxy = f" and the proxy in {proxies[0]}" if proxies else ""
        super().__init__(what, f"Check the connection{proxy}, then run the same command again; it resumes.")
        self.attempts = attempts
        self.wait = wait


class DiskFullError(DiskError):
    """No space is left."""

    def __init__(self, what: str, hint: str = "Free some space and run the same command again.") -> None:
        super().__init__(what, hint)


_HTTP = r"(?:returned error:|HTTP(?: code =)?) "
_OVERWRITE = re.compile(
    r"^error: (Your local changes|The following untracked|Updating the following|Entry '(.*)' (?:not up|would)|"
    r"(?:Untracked working tree file|Updating) '(.*)' would)",
    re.M,
)
_LOCKED = re.compile(r"Unable to create '(.*\.lock)': File exists")
_KILLED = re.compile(r"git was killed by (SIG\w+)")
_NO_OBJECT = re.compile(r"not our ref ([0-9a-f]+)|couldn't find remote ref")
_SSH = r"Host key verification failed\.|Permission denied \(.*\)\."
_ESSENTIAL = re.compile(rf"^(fatal|error|remote):(?! *(Enumerating|Counting|Compressing|Total)\b)|: No space|{_SSH}")
# The first that matches counts. On this machine; a remote's messages may tell of the same troubles there.
_LOCAL: tuple[tuple[str, type[SourcesError], str], ...] = (
    (r"no space left on device|out of diskspace|disk quota exceeded", DiskFullError, ""),
    (r"read-only file system|(unable to|cannot|could not|failed to) .*: permission denied|insufficient permission",
     DiskError, WRITERS),
    (r"cannot (switch branch|\w+) while|you need to resolve your current index", LocalWorkError, FINISH),
    (r"already (checked out|used by worktree) at|cannot lock ref .* (exists; cannot create|but expected)|"
     r"(cannot|not possible to) fast-forward", LocalWorkError, RENAME),
)  # fmt: skip
_REMOTE: tuple[tuple[str, type[SourcesError], str], ...] = (
    (r"unadvertised object|dumb http transport does not support|does not support shallow", RefusedError, ""),
    (_SSH, NetworkError, KEYS),
    (_HTTP + r"4\d\d|authentication failed|could not read (user|pass)", NetworkError, ACCESS),
    (r"connection (refused|reset|closed|timed out)|recv failure|send failure|(failed|couldn't|could not) (to )?connect|"
     r"timed? ?out|timeout was reached|no data for|early eof|unexpected disconnect|hung up unexpectedly|"
     r"transfer closed|empty reply|curl (16|18|28|35|52|55|56|61|92) |ssl_error_syscall|gnutls|"
     r"invalid index-pack output|expected flush|unexpected eof|bad pack header|bytes of body are still expected|"
     r"network is unreachable|no route to host", TransientError, ""),
    (_HTTP + r"\d{3}|not found|access rights", NetworkError, ACCESS),
    (r"is this a git repository|protocol error|redirects followed|content (un)?encoding", NetworkError, PORTAL),
)  # fmt: skip


def overwrite_error(who: str, path: Path, files: Sequence[str], *, untracked: bool = False) -> LocalWorkError:
    """The error for files of the checkout at `path` that would be overwritten."""
    kind = counted(len(files), "untracked file" if untracked else "changed file")
    return LocalWorkError(f"{who}: {kind} would be overwritten in {path}: {examples(files)}.", KEEP_IT)


def explain(text: str, who: str, place: str, path: Path, *, network: bool = False) -> SourcesError:
    """The error that git's messages `text` mean, for the repository `who` at `place` (a URL or a directory).

    A failure of a command that used the `network` is at least a NetworkError. Where the disk of `path` is full, that
    is the reason for what nothing else explains.
    """
    text = names.redact(text).replace("\r", "\n")
    own = re.sub(r"(?m)^(remote:|fatal: remote error:).*", "", text)
    what = f"{who}: {place}: {_essence(text)}."
    if error := _about_this_machine(own, who, path):
        return error
    if network and (error := _about_the_remote(text, who, place, what)):
        return error
    tables = ((_LOCAL, own), (_REMOTE if network else (), text))
    for table, said in tables:
        for pattern, kind, hint in table:
            if re.search(pattern, said, re.I):
                return kind(what, hint) if hint else kind(what)
    exists = next(parent for parent in (path, *path.parents) if parent.exists())
    if shutil.disk_usage(exists).free < NEXT_TO_NOTHING:
        return DiskFullError(what)
    return NetworkError(what, ACCESS) if network else GitError(what)


def _about_this_machine(text: str, who: str, path: Path) -> SourcesError | None:
    if overwrite := _OVERWRITE.search(text):
        files = re.findall(r"^\t(.*)$", text, re.M) or [overwrite[2] or overwrite[3]]
        untracked = not overwrite[1].startswith(("Your local changes", "Entry"))
        return overwrite_error(who, path, files, untracked=untracked)
    if killed := _KILLED.search(text):
        memory = "; the machine may be out of memory" if killed[1] == "SIGKILL" else ""
        return GitError(f"{who}: git was killed in {path} by {killed[1]}{memory}.", "Run the same command again.")
    if "dubious ownership" in text:
        trust = names.shell("git", "config", "--global", "--add", "safe.directory", str(path))
        what = f"{who}: {path} belongs to another user."
        return LocalWorkError(what, "If you trust its files:", trust, label="another owner")
    if locked := _LOCKED.search(text):
        hint = "Another git process may be running there: wait for it. If none is, remove the file and run this again."
        return LocalWorkError(f"{who}: git is locked by {locked[1]}.", hint, names.shell("rm", "-i", locked[1]))
    return None


def _about_the_remote(text: str, who: str, place: str, what: str) -> NetworkError | None:
    if re.search("could not resolve host", text, re.I):
        return TransientError(what, attempts=2)
    if re.search(_HTTP + r"(429|5\d\d)", text):
        asked = re.search(r"retry[- ]after:? (\d+)", text, re.I)
        return TransientError(what, wait=min(float(asked[1]), LONGEST_WAIT) if asked else 0.0)
    if missing := _NO_OBJECT.search(text):
        commit = f"commit {missing[1]}" if missing[1] else "such branch or tag any more"
        return RefusedError(f"{who}: {place} has no {commit}.", "It may have moved on: run the same command again.")
    return None


def _essence(text: str) -> str:
    """The last lines that say what went wrong, as one; ssh's own reason comes before git's."""
    printed = [line.strip() for line in text.split("\n") if line.strip() and not re.search(r"\d% \(", line)]
    chosen = [line for line in printed if _ESSENTIAL.search(line)] or printed
    lines = [re.sub(r"^((fatal|error|remote): *)+", "", line).strip() for line in chosen[-4:]]
    return "; ".join(dict.fromkeys(lines))[-1000:].strip().rstrip(".") or "git failed without a message"
