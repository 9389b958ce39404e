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
FREE = "Free some space and run the same command again."
KEEP_IT = "Commit or stash your changes, or move the files away, then run the same command again."
FINISH = "Finish it or abort it, then run the same command again."
RENAME = "Nothing is lost: rename, switch or commit there, then run the same command again."
WAIT = "Another git process may be running there: wait for it. If none is, remove the file and run this again."
WRITERS = "Check who may write there."
ACCESS = "Check the URL, and that this machine may read it: credentials are never asked for."
KEYS = "Try `ssh` to that host by hand: keys and passwords are never asked for here."
PORTAL = "Check the URL, and that no proxy or login page answers in place of the host."
MOVED_ON = "It may have moved on: run the same command again."


class GitError(SourcesError):
    """git failed for a reason that nothing else explains."""

    code = "git"


class RefusedError(NetworkError):
    """The remote does not serve an object by its id."""


class TransientError(NetworkError):
    """An error that another attempt may not meet: at most `attempts` make sense, `wait` seconds were asked for."""

    def __init__(self, what: str, attempts: int | None = None, wait: float = 0.0) -> None:
        proxies = [name for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY") if os.environ.get(name)]
        proxy = f" and the proxy in {proxies[0]}" if proxies else ""
        super().__init__(what, f"Check the connection{proxy}, then run the same command again; it resumes.")
        self.attempts = attempts
        self.wait = wait


_SSH = r"Host key verification failed\.|Permission denied \(.*\)\."
_ESSENTIAL = re.compile(rf"^(fatal|error|remote):(?! *(Enumerating|Counting|Compressing|Total)\b)|: No space|{_SSH}")
_OVERWRITE = re.compile(
    r"^error: (?:(Your local changes|Entry '(?P<changed>.*)' not up)|The following untracked|Updating the following|"
    r"Entry '(?P<staged>.*)' would|(?:Untracked working tree file|Updating) '(?P<untracked>.*)' would)",
    re.M,
)
_RETRY_AFTER = re.compile(r"retry[- ]after:? (\d+)", re.I)
# In what git itself printed on this machine; the first that matches counts
_LOCAL: tuple[tuple[str, type[SourcesError], str], ...] = (
    (r"no space left on device|out of diskspace|disk quota exceeded", DiskError, FREE),
    (r"read-only file system|(unable to|cannot|could not|failed to) .*: permission denied|insufficient permission",
     DiskError, WRITERS),
    (r"cannot (switch branch|\w+) while|you need to resolve your current index", LocalWorkError, FINISH),
    (r"already (checked out|used by worktree) at|cannot lock ref .* (exists; cannot create|but expected)",
     LocalWorkError, RENAME),
)  # fmt: skip
# Of a remote: what another attempt would meet again
_REMOTE: tuple[tuple[str, type[NetworkError], str], ...] = (
    (r"unadvertised object|dumb http transport does not support|does not support shallow", RefusedError, MOVED_ON),
    (r"not our ref|couldn't find remote ref", RefusedError, MOVED_ON),
    (_SSH, NetworkError, KEYS),
    (r"(returned error:|HTTP( code =)?) (?!429|5\d\d)\d{3}|authentication failed|could not read (user|pass)|"
     r"certificate", NetworkError, ACCESS),
    (r"is this a git repository|protocol error(?!: bad pack)|redirects followed|content (un)?encoding", NetworkError,
     PORTAL),
    (r"remote error:|repository .*not found|does not (exist|appear to be)", NetworkError, ACCESS),
)  # fmt: skip


def overwrite_error(who: str, path: Path, files: Sequence[str], *, untracked: bool = False) -> LocalWorkError:
    """The error for files of the checkout at `path` that would be overwritten."""
    kind = counted(len(files), "untracked file" if untracked else "changed file")
    return LocalWorkError(f"{who}: {kind} would be overwritten in {path}: {examples(files)}.", KEEP_IT)


def explain(text: str, who: str, place: str, path: Path, *, network: bool = False) -> SourcesError:
    """The error that git's messages `text` mean, for the repository `who` at `place` (a URL or a directory).

    A failure of a command that used the network is at least a NetworkError, and a TransientError unless another attempt
    would meet it again. Where the disk of `path` is full, that is the reason for what nothing else explains.
    """
    text = names.redact(text).replace("\r", "\n")
    own = re.sub(r"(?m)^(remote:|fatal: remote error:).*", "", text)  # a remote may complain of its own disk
    what = f"{who}: {place}: {_essence(text)}."
    if error := _about_this_machine(own, who, path):
        return error
    for table, said in ((_LOCAL, own), (_REMOTE if network else (), text)):
        for pattern, kind, hint in table:
            if re.search(pattern, said, re.I):
                return kind(what, hint)
    exists = next(parent for parent in (path, *path.parents) if parent.exists())
    if shutil.disk_usage(exists).free < NEXT_TO_NOTHING:
        return DiskError(what, FREE)
    if not network:
        return GitError(what)
    asked = _RETRY_AFTER.search(text)
    attempts = 2 if "could not resolve host" in text.lower() else None
    return TransientError(what, attempts, min(float(asked[1]), LONGEST_WAIT) if asked else 0.0)


def _about_this_machine(text: str, who: str, path: Path) -> SourcesError | None:
    if overwrite := _OVERWRITE.search(text):
        named = overwrite["changed"] or overwrite["staged"] or overwrite["untracked"]
        files = [named] if named else re.findall(r"^\t(.*)$", text, re.M)
        is_changed = overwrite[1] or overwrite["staged"]
        return overwrite_error(who, path, files, untracked=not is_changed)
    if killed := re.search(r"git was killed by (SIG\w+)", text):
        memory = "; the machine may be out of memory" if killed[1] == "SIGKILL" else ""
        return GitError(f"{who}: git was killed in {path} by {killed[1]}{memory}.", "Run the same command again.")
    if "dubious ownership" in text:
        trust = names.shell("git", "config", "--global", "--add", "safe.directory", str(path))
        what = f"{who}: {path} belongs to another user."
        return LocalWorkError(what, "If you trust its files:", trust, label="another owner")
    if locked := re.search(r"Unable to create '(.*\.lock)': File exists", text):
        return LocalWorkError(f"{who}: git is locked by {locked[1]}.", WAIT, names.shell("rm", "-i", locked[1]))
    return None


def _essence(text: str) -> str:
    """The last lines that say what went wrong, as one; ssh's own reason comes before git's."""
    printed = [line.strip() for line in text.split("\n") if line.strip() and not re.search(r"\d% \(", line)]
    chosen = [line for line in printed if _ESSENTIAL.search(line)] or printed
    lines = [re.sub(r"^((fatal|error|remote): *)+", "", line).strip() for line in chosen[-4:]]
    lines = [re.sub(r".*not our ref (\w+)", r"has no commit \1", line) for line in lines]
    return "; ".join(dict.fromkeys(lines))[-1000:].strip().rstrip(".") or "git failed without a message"
