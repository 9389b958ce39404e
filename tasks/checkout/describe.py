"""What `status` and `verify` say of a checkout, by local git commands alone."""

from __future__ import annotations

from ..git import run
from ..models import RepositoryState
from ..names import TRACKING, redact
from .local_work import read_changes
from .state import Checkout


def describe(checkout: Checkout) -> RepositoryState:
    """The state of a checkout: REF, branch, commit, commits ahead and behind what was fetched last, changed files.
    Raises SourcesError where git refuses to read it."""
    repository, record = checkout.repository, checkout.record
    ref, source = checkout.ref
    upstream = f"{TRACKING}{record.name}" if record.kind == "branch" else record.commit
    counts = run(checkout.path, "rev-list", "--left-right", "--count", f"HEAD...{upstream}", check=False).split()
    ahead, behind = map(int, counts) if upstream and counts else (None, None)
    changed = tuple(change.path for change in read_changes(checkout.path, "untracked"))
    return RepositoryState(
        path=repository.path,
        url=redact(repository.url),
        ref=record.ref or ref,
        commit=checkout.head,
        dirty=bool(changed),
        ref_source=source,
        resolved=record.name if record.shown != record.ref else "",
        branch=checkout.now.branch,
        ahead=ahead,
        behind=behind,
        changed=changed,
        problem="an update was interrupted" if record.moving else "",
    )
