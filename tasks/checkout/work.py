"""What cloning and updating have in common: all repositories at once, and what is told of each."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ..errors import DiskError, LocalWorkError, SourcesError
from ..git.command import begin, cancel, run
from ..git.fetch import Remote
from ..git.revisions import Advertised, Target, release, same_place
from ..models import Outcome, Repository
from ..names import TAGS
from ..packages.layouts import cost
from .session import Session
from .space import DiskFullError, check_space, in_words, removable
from .state import Checkout

Task = Callable[[Session, Repository], Outcome]


def each(session: Session, task: Task) -> list[Outcome]:
    """Do the task to all repositories at once. What fails for one becomes its outcome and does not stop the others."""

    def guarded(repository: Repository) -> Outcome:
        started = time.monotonic()
        try:
            outcome = task(session, repository)
        except (SourcesError, OSError) as caught:
            error = caught if isinstance(caught, SourcesError) else _disk_error(repository, caught)
            if isinstance(error, DiskFullError):
                error = error.counted(
                    session.settings.directory, _needed(session, repository), removable(session.settings)
                )
            action = "left alone" if isinstance(error, LocalWorkError) else "failed"
            outcome = Outcome(repository.name, action, session.ref(repository), error=error)
        finally:
            session.give_up(repository.name, SourcesError(f"{repository.name} could not be read."))
        return replace(outcome, seconds=time.monotonic() - started)

    begin()
    session.begin()
    with ThreadPoolExecutor(max(1, len(session.settings.repositories))) as pool:
        futures = [pool.submit(guarded, repository) for repository in session.settings.repositories]
        try:
            return [future.result() for future in futures]
        except BaseException:
            cancel()
            raise


def not_cloned(repository: Repository) -> SourcesError:
    """What to raise where a checkout is needed and there is none."""
    return SourcesError(f"{repository.name}: not cloned.", command="invoke clone")


def planned(session: Session, repository: Repository, action: str) -> Outcome:
    """The outcome of a dry run: the `action`, and where the REF leads, as far as that is known. Raises what
    `Session.target` raises."""
    try:
        target = session.target(repository)
    except LocalWorkError:  # what `matching` is cannot be known before SGLang is cloned
        return Outcome(repository.name, action, session.ref(repository))
    return Outcome(repository.name, action, target.ref, target.commit)


def show(session: Session, here: Checkout) -> None:
    """Hand on what the checkout says of itself to whoever waits for it, or why it says nothing."""
    try:
        session.show(here.repository.name, [*here.source.layout.markers, *here.source.files], here.source.files)
    except SourcesError as error:
        session.give_up(here.repository.name, error)


def set_refs(remote: Remote, here: Mapping[str, tuple[str, str]], target: Target, advertised: Advertised) -> None:
    """Have the remote's version tags and its branch, and keep the commit of a tag that was moved under refs/previous/.

    `here` are the refs there are.
    """
    tags = {f"{TAGS}{tag}": oid for tag, oid in advertised.tags.items() if release(tag)}
    if target.kind == "tag":
        tags[f"{TAGS}{target.name}"] = target.object
    old = {ref: here[ref][0] for ref, oid in tags.items() if ref in here and here[ref][0] != oid}
    lines = [f"update refs/previous/{ref.removeprefix('refs/')}/{oid[:12]} {oid}" for ref, oid in old.items()]
    lines += [f"update {ref} {oid}" for ref, oid in tags.items() if ref not in here or ref in old]
    if target.kind == "branch":
        origin = "refs/remotes/origin/"
        for gone in same_place([ref for ref in here if ref.startswith(origin)], f"{origin}{target.name}"):
            run(remote.path, "update-ref", "-d", gone)
        lines.append(f"update {origin}{target.name} {target.commit}")
    run(remote.path, "update-ref", "--stdin", stdin="".join(f"{line}\n" for line in lines))


def check_cost(session: Session, repository: Repository, *, full: bool) -> None:
    """Say what a whole history costs, if one is wanted and the checkout is not `full` already. Raises DiskError where
    too little space is free."""
    costs = cost(repository.name)
    if session.full and not full:
        moved, disk = in_words(costs.full_moved), in_words(costs.full_disk)
        session.reporter.event(repository.name, f"the whole history moves about {moved} and takes {disk}")
    check_space(session.settings.directory, _needed(session, repository), repository.name, removable(session.settings))


def _needed(session: Session, repository: Repository) -> int:
    costs = cost(repository.name)
    return costs.full_disk if session.full else costs.slim_disk


def outcome_of(here: Checkout, action: str, ref: str) -> Outcome:
    """The outcome of an `action` that left the checkout as it is now; no version where its files tell none."""
    try:
        version = here.source.version
    except SourcesError:
        version = ""
    return Outcome(here.repository.name, action, ref, here.head, version)


def _disk_error(repository: Repository, error: OSError) -> SourcesError:
    what = f"{repository.name}: {error.strerror or error} ({error.filename or repository.path})."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(what)
    return DiskError(what, "See who may write there.")
