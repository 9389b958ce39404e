"""Cloning what is missing: a checkout is complete or absent."""

from __future__ import annotations

import os
import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ..errors import DiskError, UsageError
from ..git import Cache, initialise
from ..models import Outcome, Repository
from .download import Download
from .session import Session
from .space import cost, in_words
from .state import Checkout, find_checkout, write_record
from .switch import check_out_new, check_out_submodules, set_branch, set_tags
from .update import check_cost


def clone(session: Session, repository: Repository, *, strict: bool = True) -> Outcome:
    """Clone the repository if there is nothing at its path, which then holds a complete checkout or still nothing.

    With `strict` an existing checkout that is not at the REF given as an option is an error. In a dry run only the
    remote is asked. Raises UsageError for a REF that the remote does not have, NetworkError, DiskError, LocalWorkError
    for anything else at the path.
    """
    if checkout := find_checkout(repository):
        return _existing(session, checkout, strict)
    _check_place(repository.path)
    ref, source = session.ref(repository)
    advertised, target = session.advertised(repository), session.target(repository, ref)
    check_cost(session, repository)
    done = Outcome(repository.name, "would clone", ref, target.commit, ref_source=source, resolved=target.resolved)
    if session.dry:
        costs = cost(repository.name)
        disk = in_words(costs.full_disk if session.full else costs.slim_disk)
        session.reporter.event(repository.name, f"would clone {ref} ({target.commit[:10]}), about {disk} on disk")
        return done
    staging = session.settings.directory / f".{repository.name}.partial"
    if staging.exists():  # of an interrupted run: what it has fetched is good
        Cache(session.settings.cache, repository.url).give(staging / ".git", lambda: None)
        _remove(staging)
    local = session.local(repository, staging)
    download = Download(session.settings.cache, session.full)
    try:
        initialise(local)
        commit = download.commit(local, target, advertised, ())
        set_branch(local, {}, target)
        with ThreadPoolExecutor(1) as pool:  # checking out meanwhile saves a fifth of a cold clone
            rest = pool.submit(download.rest, commit, advertised, {})
            check_out_new(commit)
            commit = rest.result()
        set_tags(local, {}, target, advertised)
        check_out_submodules(commit)
        write_record(local.git_dir, replace(commit.record, configured=repository.branch))
        for each in commit.all():  # nobody else has written here, so git need not read again what was written in the
            os.utime(each.repository.git_dir / "index")  # second before the index (gitformat-index(5), racy entries)
        staging.rename(repository.path)
    except BaseException:
        _remove(staging)
        raise
    session.reporter.event(repository.name, f"cloned: {commit.record.shown} ({target.commit[:10]})")
    version = session.version(repository, target.commit, advertised.releases)
    return replace(done, action="cloned", version=version, bytes=commit.bytes)


def _existing(session: Session, checkout: Checkout, strict: bool) -> Outcome:
    repository, record, head = checkout.repository, checkout.record, checkout.head
    given = session.refs.get(repository.name)
    at = f"{record.shown or checkout.now.branch or 'a detached HEAD'} ({head[:10]})"
    unsure = strict and given and (given != record.ref or head != record.commit)
    if unsure and given and session.target(repository, given).commit != head:
        command = f"invoke update --{repository.name}-branch={shlex.quote(given)}"
        raise UsageError(f"{repository.name} is already cloned at {at}, not at {given}.", command=command)
    interrupted = "; an update was interrupted, `invoke update` finishes it" if record.moving else ""
    session.reporter.event(repository.name, f"already cloned at {at}{interrupted}")
    version = session.version(repository, head, checkout.tags)
    return Outcome(
        repository.name, "already cloned", record.ref, head, version, ref_source=checkout.ref[1],
        resolved=record.name if record.shown != record.ref else "",
    )  # fmt: skip


def _check_place(path: Path) -> None:
    if path.is_mount():  # a checkout is renamed into its place at the end, which the system would refuse
        raise DiskError(f"{path} is a mount point.", "Set sources.directory to a directory on that disk.")


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
