"""One run over the repositories: the settings, the REFs asked for, and what each remote advertises."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import NetworkError, UsageError
from ..git import (
    Advertised,
    LocalRepository,
    Target,
    fetch_commit,
    fetch_objects,
    fetch_tags,
    initialise,
    local_objects,
    read_blob,
    resolve,
    run,
    transfer,
)
from ..models import Network, RefSource, Reporter, Repository, Settings
from ..names import MATCHING, redact
from .state import kept_ref, read_record


def _no_matching(advertised: Advertised) -> str:
    raise UsageError("`matching` needs SGLang, which is not among the repositories of this run.")


@dataclass(frozen=True)
class Session:
    """`refs` are the REFs given as options, by repository name. `matching` names the tag of FlashInfer that SGLang
    requires, among what FlashInfer's remote advertises, and `version` that of a repository's package at a commit, with
    these tags. `commits` are those that the REFs mean, whatever the remote has (a lock file). A remote is asked once in
    a session."""

    settings: Settings
    reporter: Reporter
    refs: Mapping[str, str] = field(default_factory=dict)
    full: bool = False
    dry: bool = False
    matching: Callable[[Advertised], str] = _no_matching
    version: Callable[[Repository, str, Mapping[str, str]], str] = lambda repository, commit, tags: ""
    commits: Mapping[str, str] = field(default_factory=dict)
    _answers: dict[str, Future[Advertised]] = field(default_factory=dict)

    @property
    def network(self) -> Network:
        """How network operations are made."""
        return Network(self.settings.attempts, self.settings.stall, self.reporter)

    def ref(self, repository: Repository) -> tuple[str, RefSource]:
        """The REF in use and where it comes from: the option, else this checkout, else the configuration."""
        if given := self.refs.get(repository.name):
            return given, "lock" if self.commits else "option"
        return kept_ref(repository, read_record(repository.path / ".git"))

    def ask(self, repositories: Sequence[Repository]) -> None:
        """Start asking all of the remotes; `advertised` waits for the answers."""
        pool = ThreadPoolExecutor(max(1, len(repositories)))
        for repository in repositories:
            if repository.url not in self._answers:
                self._answers[repository.url] = pool.submit(self._ask, repository)
        pool.shutdown(wait=False)

    def advertised(self, repository: Repository) -> Advertised:
        """What the remote has (git-ls-remote(1)). Raises NetworkError."""
        self.ask([repository])
        return self._answers[repository.url].result()

    def wait(self) -> None:
        """Wait until no remote is being asked any more."""
        wait(self._answers.values())

    def target(self, repository: Repository, ref: str) -> Target:
        """What the REF means on the remote now. Raises UsageError for one that it does not have."""
        if commit := self.commits.get(repository.name):
            return Target(ref, "commit", "", commit, commit)
        advertised = self.advertised(repository)
        if ref == MATCHING and repository.name == "flashinfer":
            tag = self.matching(advertised)
            return Target(ref, "tag", tag, advertised.commit(tag), advertised.tags[tag])
        return resolve(ref, advertised, repository.name, repository.url)

    def local(self, repository: Repository, path: Path | None = None) -> LocalRepository:
        """The repository's checkout, or one of it at `path`."""
        path = path or repository.path
        return LocalRepository(path, path / ".git", repository.name, repository.url, self.network)

    def _ask(self, repository: Repository) -> Advertised:
        command = ("ls-remote", "--heads", "--tags", "--", repository.url)
        network, where = self.network, f"{repository.name}: {redact(repository.url)}"
        is_cloned = (repository.path / ".git").is_dir()  # then its configuration counts
        place = repository.path if is_cloned else self.settings.root
        output = transfer(place, *command, url=repository.url, who=repository.name, doing="asking", network=network)
        advertised = Advertised.parse(output, where)
        if not advertised.heads and not advertised.tags:
            hint = "Check the URL, and that no proxy or login page answers in place of the host."
            raise NetworkError(f"{where} answered, but has no branches and no tags.", hint)
        return advertised


def commit_time(path: Path, commit: str) -> float:
    """When a commit in the repository at `path` was made, in seconds since 1970."""
    return float(run(path, "log", "-1", "--format=%ct", commit))


def tag_times(
    session: Session, repository: Repository, advertised: Advertised, tags: Sequence[str]
) -> dict[str, float]:
    """When the commits of these tags of the remote were made."""
    with _scratch(session, repository) as local:
        peeled = {tag: advertised.peeled[tag] for tag in tags if tag in advertised.peeled}
        fetch_tags(local, {tag: advertised.tags[tag] for tag in tags}, peeled)
        return {tag: commit_time(local.path, advertised.commit(tag)) for tag in tags}


def remote_files(
    session: Session, repository: Repository, target: Target, paths: Sequence[str]
) -> tuple[dict[str, bytes], float]:
    """The files of a commit that is checked out nowhere, by their paths, and when it was made; files that it lacks are
    left out."""
    with _scratch(session, repository) as local:
        tree = fetch_commit(local, target, (), files=False)
        wanted = {tree[path].oid for path in paths if path in tree}
        fetch_objects(local, target, wanted - local_objects(local))
        files = {path: read_blob(local, tree, path).encode() for path in paths if path in tree}
        return files, commit_time(local.path, target.commit)


@contextmanager
def _scratch(session: Session, repository: Repository) -> Iterator[LocalRepository]:
    with tempfile.TemporaryDirectory() as directory:
        local = session.local(repository, Path(directory))
        initialise(local)
        yield local
