"""Which FlashInfer release a package requires, from its metadata (PEP 508): the word `matching`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from ..errors import UsageError
from ..git.refs import nearest, release
from ..names import redact
from .metadata import Metadata
from .requirements import applying

FLASHINFER = ("flashinfer", "flashinfer-python")
FALLBACK_EXTRAS = (("srt",), ("all",))  # in which SGLang before 0.5.3 has its requirements


def flashinfer_requirement(metadata: Metadata, extras: Sequence[str]) -> Requirement | None:
    """What the package requires of FlashInfer, or None.

    Its base requirements count, and those of `extras`, else of `srt`, else of `all`. Markers (PEP 508) are evaluated
    for this interpreter, and several requirements are intersected. Raises SourcesError for a marker without meaning.
    """
    name = canonicalize_name(metadata.distribution)
    for chosen in (extras, *FALLBACK_EXTRAS):
        needed = applying(lambda other: metadata.requires if other == name else None, {name: chosen}, {})
        if found := [requirement for requirement in needed if canonicalize_name(requirement.name) in FLASHINFER]:
            found[0].specifier = SpecifierSet(",".join(str(requirement.specifier) for requirement in found))
            return found[0]
    return None


def matching(metadata: Metadata, extras: Sequence[str], tags: Iterable[str], url: str, version: str = "") -> str:
    """The FlashInfer tag that the package requires: that of an exact pin; of a range its lower end, which is what the
    package's authors had; without a lower end the newest release that satisfies it.

    Messages show the package's `version` and FlashInfer's `url`. Raises UsageError if nothing is required or no tag
    satisfies it.
    """
    known = list(tags)
    package = f"{metadata.distribution} {version or metadata.version or ''}".strip()
    latest = "invoke setup --flashinfer-branch=latest"
    requirement = flashinfer_requirement(metadata, extras)
    if requirement is None:
        raise UsageError(f"{package} requires no FlashInfer, so there is nothing to match.", command=latest)
    shown = redact(str(requirement))
    if requirement.url:
        raise UsageError(f"{package} requires `{shown}`, a URL instead of a version.", command=latest)
    if tag := _within(requirement, known):
        return tag
    near = ", ".join(nearest(str(_public(requirement.specifier)).lstrip("=<>~! "), known))
    what = f"{package} requires `{shown}`; {redact(url)} has no tag for such a version."
    raise UsageError(what, f"The nearest tags are {near}." if near else "", latest)


def has_release(requirement: Requirement, tags: Iterable[str]) -> bool:
    """Whether `matching` finds a release for this requirement among the tags."""
    return not requirement.url and bool(_within(requirement, tags))


def _within(requirement: Requirement, tags: Iterable[str]) -> str:
    """The tag that `matching` chooses, empty for none; a pre-release only where no other release satisfies it."""
    specifier = _public(requirement.specifier)
    versions = {version: tag for tag in tags if (version := release(tag))}
    fitting = [version for version in versions if specifier.contains(version, prereleases=True)]
    fitting = [version for version in fitting if not version.is_prerelease] or fitting
    has_lower_end = any(clause.operator in (">", ">=", "~=") for clause in specifier)
    choose = min if has_lower_end else max
    return versions[choose(fitting)] if fitting else ""


def _public(specifier: SpecifierSet) -> SpecifierSet:
    """Without local versions: a pin such as ==0.1.6+cu124 names a build of a release, and the release has the tag."""
    return SpecifierSet(",".join(str(clause).partition("+")[0] for clause in specifier))
