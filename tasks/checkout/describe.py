"""What `status` and `verify` say of a checkout, by local git commands alone."""

from __future__ import annotations

from .. import names
from ..git.repository import Checkout
from ..models import RepositoryState
from . import local_work, recovery, state


def describe(checkout: Checkout) -> RepositoryState:
    """The state of a checkout: REF, branch, commit, commits ahead and behind what was fetched last, changed files.
    Raises SourcesError where git refuses to read it."""
    repository, record = checkout.repository, checkout.record
    ref, source = state.kept_ref(repository, record)
    upstream = checkout.tracking(record.branch) if record.branch else record.commit
    counts = checkout.git("rev-list", "--left-right", "--count", f"HEAD...{upstream}", check=False).split()
    ahead, behind = map(int, counts) if upstream and counts else (None, None)
    changed = tuple(local_work.changed_files(checkout))
    return RepositoryState(
        path=repository.path,
        url=names.redact(repository.url),
        ref=record.ref or ref,
        commit=checkout.head or None,
        dirty=bool(changed),
        ref_source=source,
        resolved=record.name if record.shown != record.ref else "",
        branch=checkout.branch,
        ahead=ahead,
        behind=behind,
        changed=changed,
        problem="an update was interrupted" if recovery.interrupted(checkout) else "",
    )
