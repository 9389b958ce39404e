"""What distributions require of each other (PEP 508), in the environment that they are installed into."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from ..errors import SourcesError
from ..names import redact
from .environment import Distribution, Environment


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
                marker, requirement.marker = requirement.marker, None
                always, now = (not marker or marker.evaluate({**markers, "extra": each}) for each in ("", extra))
            except (ValueError, RecursionError) as error:  # no requirement, or a comparison that has no meaning
                shown, why = redact(str(text)[:200]), str(error)[:200]
                raise SourcesError(f"{name}: {shown!a} cannot be evaluated (PEP 508): {why}") from None
            if not now or (extra and always):  # the latter was yielded without the extra
                continue
            if (other := canonicalize_name(requirement.name)) in requires:
                waiting += [(other, more) for more in sorted(requirement.extras) if (other, more) not in waiting]
            else:
                yield requirement


def missing_requirements(
    environment: Environment, distribution: Distribution, extras: Sequence[str] = ()
) -> tuple[Missing, ...]:
    """Which requirements of an installed distribution its environment does not meet. Nothing is started.

    Raises SourcesError for metadata that cannot be read.
    """
    needed = applying({distribution.name: distribution.requires}, {distribution.name: extras}, environment.markers)
    found = ((requirement, environment.distribution(requirement.name)) for requirement in needed)
    states = [Missing(requirement, installed.version if installed else "") for requirement, installed in found]
    return tuple(state for state in states if not admits(state.requirement, state.installed))


def admits(requirement: Requirement, version: str) -> bool:
    """Whether a version (empty for none) satisfies the requirement; pre-releases do where the number fits."""
    try:
        return bool(version) and requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False
