"""Every kind of error that a user can cause or meet, with its exit status; and words that messages share."""

from __future__ import annotations

from collections.abc import Sequence

EXAMPLES = 3  # in a message


def counted(number: int, noun: str) -> str:
    """Such as `1 file`, `2 files`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def examples(items: Sequence[str]) -> str:
    """The first of the items, and how many more there are."""
    more = f" and {len(items) - EXAMPLES} more" if len(items) > EXAMPLES else ""
    return ", ".join(items[:EXAMPLES]) + more


class SourcesError(Exception):
    """What happened, to which repository and URL (`what`); what to do next, in words (`hint`) and as a shell command
    that can be run as it is (`command`). `hint` and `command` may be empty; none of the three contains a password.

    `code` names the kind of error in `--json`, `status` is the exit status.
    """

    status = 1
    code = "failed"

    def __init__(self, what: str, hint: str = "", command: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.command = command

    def __str__(self) -> str:
        return "\n  ".join(filter(None, (self.what, self.hint, self.command)))


class UsageError(SourcesError):
    """A wrong option, REF, URL or configuration."""

    status = 2
    code = "usage"


class NetworkError(SourcesError):
    """A remote or a package index could not be reached or did not serve what was requested."""

    status = 3
    code = "network"


class DiskError(SourcesError):
    """The disk is full, or a directory cannot be written."""

    status = 4
    code = "disk"


class LocalWorkError(SourcesError):
    """Continuing would lose local work, so the repository was left as it is. `label` is the cause in a few words."""

    status = 5
    code = "local-work"

    def __init__(self, what: str, hint: str = "", command: str = "", label: str = "local changes") -> None:
        super().__init__(what, hint, command)
        self.label = label


class InstallError(SourcesError):
    """The environment cannot take the packages, or the installer failed."""

    status = 6
    code = "install"


class Interrupted(SourcesError):
    """Ctrl-C, or SIGTERM."""

    status = 130
    code = "interrupted"
