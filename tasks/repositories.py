"""Cloning or updating all repositories at once, with an outcome for each; `matching` waits for SGLang."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from . import processes
from .checkout import Checkout, Session, bring_lfs, find_checkout, remote_files, space_hint
from .errors import DiskError, LocalWorkError, SourcesError, UsageError
from .git import Advertised, DiskFullError
from .models import Outcome, Repository, Settings
from .names import MATCHING
from .packages import Package, Source, matching, read_metadata

METADATA_FILES = ("python/pyproject.toml", "python/setup.py", "python/setup.cfg", "python/version.txt")
Task = Callable[[Session, Repository], Outcome]


def for_each(
    session: Session, repositories: Sequence[Repository], task: Task, sglang: Repository | None
) -> list[Outcome]:
    """Do the task to all repositories at once; what fails for one does not stop the others. FlashInfer comes last where
    its REF is `matching`, as that is what the checked-out `sglang` requires."""
    done = dict[str, Outcome]()
    last = [each for each in repositories if each.name == "flashinfer" and session.ref(each)[0] == MATCHING]
    last = [] if session.commits else last
    ready = replace(session, matching=lambda advertised: _matching(session, sglang, advertised, last[0]))
    for group in ([each for each in repositories if each not in last], last):
        with ThreadPoolExecutor(max(1, len(group))) as pool:
            futures = {each.name: pool.submit(_outcome, ready, each, task) for each in group}
            try:
                done |= {name: future.result() for name, future in futures.items()}
            except BaseException:
                processes.stop_all()
                raise
    return [done[each.name] for each in repositories]


def package_of(checkout: Checkout) -> Package:
    """The package of a checkout. Raises SourcesError where its metadata cannot be read."""
    return Package(checkout.repository, checkout.head, checkout.tags)


def version_of(repository: Repository, commit: str, tags: Mapping[str, str]) -> str:
    """The version of the repository's package at a commit, with these tags; empty where it is unknown."""
    with suppress(SourcesError, OSError):
        return Source(repository, commit, tags).version
    return ""


def disk_error(who: str, error: OSError, settings: Settings | None) -> DiskError:
    """What an error of the file system means for the repository `who`."""
    place = error.filename or (settings.directory if settings else "")
    return DiskError(f"{f'{who}: ' if who else ''}{place}: {error.strerror or error}.", "Check who may write there.")


def _outcome(session: Session, repository: Repository, task: Task) -> Outcome:
    started = time.monotonic()
    try:
        outcome = task(session, repository)
        if repository.lfs and not session.dry:
            outcome = replace(outcome, bytes=outcome.bytes + bring_lfs(repository, session.network))
    except (SourcesError, OSError) as caught:
        error = caught if isinstance(caught, SourcesError) else disk_error(repository.name, caught, session.settings)
        if isinstance(error, DiskFullError):
            error.hint = space_hint(session.settings)
        action = "skipped (local changes)" if isinstance(error, LocalWorkError) else "failed"
        ref, source = session.ref(repository)
        outcome = Outcome(repository.name, action, ref, ref_source=source, error=error)
    return replace(outcome, seconds=time.monotonic() - started)


def _matching(session: Session, sglang: Repository | None, advertised: Advertised, flashinfer: Repository) -> str:
    """The tag of FlashInfer that the checked-out SGLang requires, or in a dry run the one that was asked for."""
    if sglang is None:
        raise UsageError("`matching` needs SGLang, which is not configured.", "Name a release of FlashInfer.")
    checkout = find_checkout(sglang)
    target = session.target(sglang, session.ref(sglang)[0]) if session.dry else None
    if target and (not checkout or checkout.head != target.commit):
        files, _ = remote_files(session, sglang, target, METADATA_FILES)
        metadata, version = read_metadata(files, "python"), ""
    elif checkout:
        source = Source(sglang, checkout.head, checkout.tags)
        metadata, version = source.metadata, source.version
    else:
        what = "flashinfer: SGLang is not cloned, so the release that it requires is not known."
        raise LocalWorkError(what, command="invoke clone")
    return matching(metadata, sglang.extras, advertised.tags, flashinfer.url, version)
