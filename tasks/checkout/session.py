"""One run over the repositories: the settings, what was asked for, and what has been learned on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Lock

from ..errors import LocalWorkError, SourcesError, UsageError
from ..git.revisions import Advertised, Target, resolve
from ..git.transfer import transfer
from ..models import Network, Reporter, Repository, Settings
from ..names import MATCHING, redact
from ..packages.layouts import find_layout
from ..packages.matching import matching
from ..packages.metadata import Metadata, read_metadata
from .paths import folders_of


@dataclass(frozen=True)
class Session:
    """`refs` are the REFs asked for by option, by repository name. A remote is asked once, whoever wants to know."""

    settings: Settings
    reporter: Reporter
    refs: Mapping[str, str] = field(default_factory=dict)
    full: bool = False
    _asked: dict[str, Future[Advertised]] = field(default_factory=dict)
    _metadata: dict[str, Future[Metadata]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @property
    def network(self) -> Network:
        return Network(self.settings.attempts, self.settings.stall, self.reporter)

    def ref(self, repository: Repository) -> str:
        """The REF that counts: the option, else the configured branch."""
        return self.refs.get(repository.name) or repository.branch

    def advertised(self, repository: Repository) -> Advertised:
        """What the remote has (git-ls-remote(1)), asked once in a session. Raises NetworkError."""
        with self._lock:
            first = repository.url not in self._asked
            future = self._asked.setdefault(repository.url, Future())
        if first:
            try:
                question = ("ls-remote", "--heads", "--tags", "--", repository.url)
                root = self.settings.root
                told = transfer(root, *question, who=repository.name, doing="asking", network=self.network)
                future.set_result(Advertised.parse(told))
            except BaseException as error:
                future.set_exception(error)
        return future.result()

    def target(self, repository: Repository) -> Target:
        """What the REF means on the remote now. `matching` waits until SGLang's metadata is known."""
        ref, advertised = self.ref(repository), self.advertised(repository)
        if ref == MATCHING and repository.name == "flashinfer":
            tag = self._matching(advertised, repository)
            self.reporter.event(repository.name, f"matching is {tag}")
            return Target(ref, "tag", tag, advertised.commit(tag), advertised.tags[tag])
        return resolve(ref, advertised, repository.name, repository.url)

    def begin(self) -> None:
        """Begin with a task: metadata shown in an earlier one may not be what this one will check out."""
        self._metadata.clear()

    def show(self, name: str, paths: Iterable[str], files: Mapping[str, bytes]) -> None:
        """Hand the metadata files (path to content) of a repository with these paths to whoever waits for them."""
        try:
            metadata = metadata_of(name, paths, files)
        except SourcesError as error:
            self.give_up(name, error)
        else:
            self._settle(name, lambda future: future.set_result(metadata))

    def give_up(self, name: str, error: SourcesError) -> None:
        """Tell whoever waits for the metadata of this repository why there is none; nothing if it was shown."""
        self._settle(name, lambda future: future.set_exception(error))

    def _settle(self, name: str, settle: Callable[[Future[Metadata]], None]) -> None:
        with self._lock:
            future = self._metadata.setdefault(name, Future())
            if not future.done():
                settle(future)

    def _matching(self, advertised: Advertised, repository: Repository) -> str:
        sglang = next((each for each in self.settings.repositories if each.name == "sglang"), None)
        if sglang is None:
            raise UsageError("`matching` needs SGLang, which is not configured.", "--flashinfer-branch=latest")
        with self._lock:
            future = self._metadata.setdefault("sglang", Future())
        try:
            metadata = future.result()
        except SourcesError as error:
            raise LocalWorkError(
                f"flashinfer: what SGLang requires is not known: {error.what}", error.hint, error.command
            ) from None
        return matching(metadata, sglang.extras, advertised.tags, redact(repository.url))


def metadata_of(name: str, paths: Iterable[str], files: Mapping[str, bytes]) -> Metadata:
    """The metadata in a repository's files. Raises SourcesError where its layout is not known or a file is broken."""
    places = [*paths]
    known = {*places, *folders_of(places)}
    return read_metadata(files, find_layout(name, known.__contains__).folder)
