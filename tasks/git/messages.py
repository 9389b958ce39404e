"""What git's messages mean: which trouble it is, and whether another try can help."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

from ..checkout.space import DiskFullError
from ..errors import DiskError, LocalWorkError, NetworkError, SourcesError
from ..names import redact

_PASSING = re.compile(
    r"connection (refused|reset|closed|timed out)|recv failure|send failure|(failed|couldn't|could not) (to )?connect|"
    r"timed? ?out|timeout was reached|operation too slow|early eof|unexpected disconnect|hung up unexpectedly|"
    r"transfer closed|empty reply|curl (16|18|28|35|52|55|56|92) |ssl_error_syscall|gnutls|invalid index-pack output|"
    r"expected flush|unexpected eof|bad pack header|bytes of body are still expected|network is unreachable",
    re.I,
)
_REFUSED = re.compile(r"unadvertised object|dumb http transport does not support|does not support shallow", re.I)
_UNKNOWN_HOST = re.compile(r"could not resolve host", re.I)
_NO_SPACE = re.compile(r"no space left on device|out of diskspace|disk quota exceeded", re.I)
_NO_RIGHTS = re.compile(
    r"read-only file system|(unable to|cannot|could not|failed to) .*: permission denied|"
    r"insufficient permission",
    re.I,
)
_NOT_OURS = re.compile(r"dubious ownership")
_BUSY = re.compile(r"(returned error:|HTTP( code =)?) (429|5\d\d)")
_NOT_THERE = re.compile(r"not our ref")
_NO_ACCESS = re.compile(
    r"(returned error:|HTTP( code =)?) \d{3}|authentication failed|could not read (user|pass)|"
    r"not found|access rights",
    re.I,
)
LONGEST_WAIT = 300.0  # seconds that a remote may ask for
_RETRY_AFTER = re.compile(r"retry[- ]after:? (\d+)", re.I)


class GitError(SourcesError):
    """git ended with a status that nothing else explains."""


class RefusedError(NetworkError):
    """The remote does not serve what was asked in this form (an object by its id, a shallow history)."""


class UnknownObjectError(NetworkError):
    """The remote has no object of the id asked for."""


class PassingError(NetworkError):
    """Trouble that may be gone at the next try. `tries` is the most that make sense, `wait` the seconds asked for."""

    def __init__(self, what: str, tries: int | None = None, wait: float = 0.0) -> None:
        super().__init__(what, "Check the connection and run the same command again; what has arrived is kept.")
        self.tries = tries
        self.wait = wait


def explain(told: str, who: str, endpoint: str) -> SourcesError:
    """The error that git's messages `told` mean, for the repository `who` at `endpoint` (a URL or a folder)."""
    told = redact(told)
    telling = [line for line in told.splitlines() if re.match(r"(fatal|error|remote):|.*: No space", line)] or [told]
    said = "; ".join(dict.fromkeys(re.sub(r"^((fatal|error|remote): *)+", "", line).strip() for line in telling[-4:]))
    where = f"{who}: {endpoint}: {said.rstrip('.')}."
    asked = _RETRY_AFTER.search(told)
    trust = f"git config --global --add safe.directory {shlex.quote(endpoint)}"
    access = "Check the URL, and that this machine may read it: credentials are never asked for."
    meanings: tuple[tuple[re.Pattern[str], Callable[[], SourcesError]], ...] = (  # the first that fits counts
        (_NO_SPACE, lambda: DiskFullError(where)),
        (_NO_RIGHTS, lambda: DiskError(where, "See who may write there.")),
        (_NOT_OURS, lambda: LocalWorkError(f"{who}: {endpoint} belongs to another user.", trust)),
        (_UNKNOWN_HOST, lambda: PassingError(where, tries=2)),
        (_BUSY, lambda: PassingError(where, wait=min(float(asked[1]), LONGEST_WAIT) if asked else 0)),
        (_REFUSED, lambda: RefusedError(where)),
        (_NOT_THERE, lambda: UnknownObjectError(where)),
        (_NO_ACCESS, lambda: NetworkError(where, access)),
        (_PASSING, lambda: PassingError(where)),
    )
    return next((error() for pattern, error in meanings if pattern.search(told)), GitError(where))
