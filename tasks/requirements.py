"""What distributions require of each other (PEP 508), in the environment that they are installed into."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from .environment import Distribution, Environment
from .errors import SourcesError


@dataclass(frozen=True)
class Missing:
    """A requirement that is not met. `installed` is the version that is there, empty where none is."""

    requirement: Requirement
    installed: str


def applying(
    requires: Mapping[str, Iterable[str | Requirement]], extras: Mapping[str, Sequence[str]], markers: Mapping[str, str]
) -> Iterator[Requirement]:
    """The requirements of some distributions together, with the `extras` asked of each, where their markers hold.

    Those that name one of the distributions are not yielded, but their extras count (`sglang[test]` in `sglang[all]`,
    `flashinfer-python[cu13]` in SGLang). Names are normalized. Raises SourcesError for what is no requirement.
    """
    waiting = [(name, extra) for name in requires for extra in ("", *extras.get(name, ()))]
    for name, extra in waiting:  # grows while it is walked
        for text in requires[name]:
            try:
                requirement = Requirement(str(text))
            except InvalidRequirement:
                raise SourcesError(f"{name}: {text!r} is not a requirement that can be read (PEP 508).") from None
            marker = requirement.marker
            if marker and not marker.evaluate({**markers, "extra": extra}):
                continue
            if extra and (not marker or marker.evaluate({**markers, "extra": ""})):
                continue  # was yielded without the extra
            if (other := canonicalize_name(requirement.name)) in requires:
                waiting += [(other, more) for more in sorted(requirement.extras) if (other, more) not in waiting]
            else:
                requirement.marker = None
                yield requirement


def missing_requirements(
    environment: Environment, distribution: Distribution, extras: Sequence[str] = ()
) -> tuple[Missing, ...]:
    """Which requirements of an installed distribution its environment does not meet. Nothing is started.

    Raises SourcesError for metadata that cannot be read.
    """
    needed = applying({distribution.name: distribution.requires}, {distribution.name: extras}, environment.markers)
    states = [Missing(requirement, _version(environment, requirement.name)) for requirement in needed]
    return tuple(state for state in states if not admits(state.requirement, state.installed))


def admits(requirement: Requirement, version: str) -> bool:
    """Whether a version (empty for none) satisfies the requirement; pre-releases do where the number fits."""
    try:
        return bool(version) and requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False


def _version(environment: Environment, name: str) -> str:
    found = environment.distribution(name)
    return found.version if found else ""
