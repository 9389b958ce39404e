"""One error type for each kind of trouble; each knows the exit status that belongs to it."""

from __future__ import annotations


class SourcesError(Exception):
    """Trouble that a user can cause or meet.

    `what` says what happened, to which repository and endpoint; `fix` is what to do about it, a command where there
    is one. Neither holds a password.
    """

    status = 1

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}\n  {self.fix}" if self.fix else self.what


class UsageError(SourcesError):
    """A wrong option, REF, URL or configuration."""

    status = 2


class NetworkError(SourcesError):
    """A remote could not be reached or did not serve what was asked of it."""

    status = 3


class DiskError(SourcesError):
    """Too little space, or a folder that cannot be written."""

    status = 4


class LocalWorkError(SourcesError):
    """Going on would lose something of the user's, so the repository was left as it is."""

    status = 5


class InstallError(SourcesError):
    """An environment that cannot take the packages, or an installer that failed."""

    status = 6
