"""What distributions require of each other (PEP 508), in the environment that they are installed into."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from ..errors import SourcesError, UsageError
from ..names import redact
from .environment import Distribution, Environment


@dataclass(frozen=True)
class Missing:
    """A requirement that is not met. `installed` is the installed version, empty if there is none."""

    requirement: Requirement
    installed: str


def applying(
    requires: Callable[[str], Iterable[object] | None], extras: Mapping[str, Sequence[str]],
    markers: Mapping[str, str],
) -> Iterator[Requirement]:  # fmt: skip
    """The requirements of the distributions in `extras`, with these extras, whose markers apply.

    `requires` returns what a distribution requires, given its normalized name, or None if that is not known; what the
    required distributions require in turn is included. Raises SourcesError for an invalid requirement.
    """
    waiting = [(name, extra) for name, more in extras.items() for extra in ("", *more)]
    for name, extra in waiting:  # grows during the iteration
        for text in requires(name) or ():
            try:
                requirement = Requirement(str(text))
                marker, requirement.marker = requirement.marker, None
                always, now = (not marker or marker.evaluate({**markers, "extra": asked}) for asked in ("", extra))
            except (ValueError, RecursionError) as error:  # no requirement, or a comparison without meaning
                shown, why = redact(str(text)[:200]), str(error)[:200]
                raise SourcesError(f"{name}: {shown!a} cannot be evaluated (PEP 508): {why}") from None
            if not now or (extra and always):  # the latter was yielded without the extra
                continue
            yield requirement
            required = canonicalize_name(requirement.name)
            waiting += [(required, more) for more in ("", *requirement.extras) if (required, more) not in waiting]


def read_overrides(overrides: Sequence[str]) -> dict[str, list[Requirement]]:
    """The requirements in `sources.overrides`, by the normalized names of what they replace. Raises UsageError."""
    replaced: dict[str, list[Requirement]] = {}
    for text in overrides:
        try:
            requirement = Requirement(text)
        except ValueError as error:
            what = f"sources.overrides: {redact(text[:200])!a} is not a requirement (PEP 508): {str(error)[:200]}"
            raise UsageError(what, "Write requirements such as torch==2.9.1+cu128.") from None
        replaced.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return replaced


def missing_requirements(
    environment: Environment, distribution: Distribution, extras: Sequence[str] = (), overrides: Sequence[str] = ()
) -> tuple[Missing, ...]:
    """The requirements of an installed distribution that its environment does not meet, where `overrides` (of
    `sources.overrides`) replace those of the same names. No process is started.

    Raises SourcesError for an invalid requirement, UsageError for an invalid override.
    """
    replaced, missing = read_overrides(overrides), list[Missing]()
    own = {distribution.name: distribution.requires}
    for original in applying(own.get, {distribution.name: extras}, environment.markers):
        for requirement in replaced.get(canonicalize_name(original.name), [original]):
            installed = environment.version(requirement.name)
            needed = not requirement.marker or requirement.marker.evaluate(dict(environment.markers))
            if needed and not admits(requirement, installed):
                missing.append(Missing(requirement, installed))
    return tuple(missing)


def admits(requirement: Requirement, version: str) -> bool:
    """Whether a version (empty for none) satisfies the requirement; a pre-release in the range does, too."""
    try:
        return bool(version) and requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False
