"""One run over the repositories: the settings, the REFs asked for, and what each remote advertises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..errors import NetworkError
from ..git import command, fetch
from ..git.refs import Advertised, Target, latest, resolve
from ..git.repository import Checkout, Record
from ..models import Network, RefSource, Reporter, Repository, Settings
from ..names import MATCHING, redact
from . import state


@dataclass(frozen=True)
class Session:
    """`refs` are the REFs given as options, by repository name. `matching` names the tag of FlashInfer that SGLang
    requires, among what FlashInfer's remote advertises, and `version` the version of a checkout's package. `commits`
    are those that the REFs mean, whatever the remote has (a lock file)."""

    settings: Settings
    reporter: Reporter
    refs: Mapping[str, str] = field(default_factory=dict)
    full: bool = False
    dry: bool = False
    matching: Callable[[Advertised], str] | None = None
    version: Callable[[Checkout], str] = lambda checkout: ""
    commits: Mapping[str, str] = field(default_factory=dict)
    _answers: dict[str, Advertised] = field(default_factory=dict)

    @property
    def network(self) -> Network:
        """How network operations are made."""
        return Network(self.settings.attempts, self.settings.stall, self.reporter)

    def source(self, checkout: Checkout) -> fetch.Source:
        """How the objects of a checkout come: a full one stays full."""
        return fetch.Source(self.network, self.full or bool(checkout.head and not checkout.is_shallow))

    def ref(self, repository: Repository) -> tuple[str, RefSource]:
        """The REF in use and where it comes from: the option, else this checkout, else the configuration."""
        if given := self.refs.get(repository.name):
            return given, "lock file" if self.commits else "option"
        return state.kept_ref(repository, Record.read(repository.path / ".git"))

    def advertised(self, repository: Repository) -> Advertised:
        """What the remote has (git-ls-remote(1)), asked once. Raises NetworkError."""
        if repository.url not in self._answers:
            self._answers[repository.url] = self._ask(repository)
        return self._answers[repository.url]

    def target(self, repository: Repository) -> Target:
        """What the REF in use means on the remote now. Raises UsageError for one that it does not have."""
        ref, _ = self.ref(repository)
        if commit := self.commits.get(repository.name):
            return Target(ref, "commit", "", commit, commit)
        advertised = self.advertised(repository)
        if ref == MATCHING and repository.name == "flashinfer" and self.matching:
            tag = self.matching(advertised)
            return Target(ref, "tag", tag, advertised.commit(tag), advertised.tags[tag])
        return resolve(ref, advertised, repository.name, repository.url)

    def bring_tags(self, checkout: Checkout, target: Target) -> None:
        """Fetch the tag that the REF means, and that of the newest release, by which a build by hand finds its version.
        """
        advertised = self.advertised(checkout.repository)
        for tag in dict.fromkeys([target.name, latest(advertised.tags) or ""]):
            if tag in advertised.tags:
                fetch.bring_tag(checkout, tag, advertised, self.source(checkout))

    def _ask(self, repository: Repository) -> Advertised:
        words = ("ls-remote", "--heads", "--tags", "--", repository.url)
        is_cloned = (repository.path / ".git").is_dir()  # then its configuration counts
        place = repository.path if is_cloned else self.settings.root
        url, who, network = repository.url, repository.name, self.network
        output = command.transfer(place, *words, url=url, who=who, doing="asking", network=network)
        where = f"{repository.name}: {redact(repository.url)}"
        advertised = Advertised.parse(output, where)
        if not advertised.heads and not advertised.tags:
            hint = "Check the URL, and that no proxy or login page answers in place of the host."
            raise NetworkError(f"{where} answered, but has no branches and no tags.", hint)
        return advertised
