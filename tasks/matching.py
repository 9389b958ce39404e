"""Which FlashInfer release a package requires, from its metadata (PEP 508): the word `matching`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from .errors import SourcesError, UsageError
from .metadata import Metadata
from .refs import nearest, newest
from .urls import redact

FLASHINFER = ("flashinfer", "flashinfer-python")
FALLBACK_EXTRAS = ("srt", "all")  # where SGLang before 0.5.3 keeps its requirements


def flashinfer_requirement(
    metadata: Metadata, extras: Sequence[str], environment: Mapping[str, str] | None = None
) -> Requirement | None:
    """What the package requires of FlashInfer, or None: its base requirements and `extras`, else `srt`, else `all`.

    Markers (PEP 508) are evaluated for this interpreter, changed by `environment`. Requirements that hold at once are
    intersected.
    """
    for chosen in (tuple(extras), *((extra,) for extra in FALLBACK_EXTRAS)):
        found = [each for each in _active(metadata, chosen, environment) if canonicalize_name(each.name) in FLASHINFER]
        if found:
            specifier = SpecifierSet()
            for each in found:
                specifier &= each.specifier
            whole = Requirement(str(found[0]))
            whole.marker, whole.specifier = None, specifier
            return whole
    return None


def _active(metadata: Metadata, extras: Sequence[str], environment: Mapping[str, str] | None) -> Iterator[Requirement]:
    """The requirements that hold with those extras; an extra may name others, as in `sglang[srt]`."""
    pending: list[str] = ["", *map(canonicalize_name, extras)]
    for extra in pending:
        listed = metadata.extras.get(canonicalize_name(extra), ()) if extra else metadata.requires
        for each in listed:
            if not _holds(each, {**(environment or {}), "extra": extra}):
                continue
            yield each
            if canonicalize_name(each.name) == canonicalize_name(metadata.distribution):
                pending += sorted(set(map(canonicalize_name, each.extras)) - set(pending))


def _holds(requirement: Requirement, environment: Mapping[str, str]) -> bool:
    try:
        return requirement.marker is None or requirement.marker.evaluate(dict(environment))
    except ValueError as error:  # a comparison that has no meaning
        raise SourcesError(f"The marker of {redact(str(requirement))} cannot be evaluated: {error}") from None


def matching(
    metadata: Metadata,
    extras: Sequence[str],
    tags: Iterable[str],
    endpoint: str,
    environment: Mapping[str, str] | None = None,
) -> str:
    """The FlashInfer tag that the package requires: that of an exact pin, else the newest release that satisfies it.

    Raises UsageError, naming the requirement, where there is none or no tag satisfies it.
    """
    known = list(tags)
    where = f"{metadata.distribution} {metadata.version or ''}".strip()
    fix = "Name the release: --flashinfer-branch=latest, or a tag."
    requirement = flashinfer_requirement(metadata, extras, environment)
    if requirement is None:
        raise UsageError(f"{where} requires no FlashInfer, so nothing matches it.", fix)
    shown = redact(str(requirement))
    if requirement.url:
        raise UsageError(f"{where} requires `{shown}`, an address instead of a version.", fix)
    # A pin such as ==0.1.6+cu124 names a build of a release; its source is the release's tag.
    public = ",".join(str(each).partition("+")[0] for each in requirement.specifier)
    tag = newest(known, SpecifierSet(public))
    if tag is None:
        near = nearest(public.lstrip("=<>~! "), known)
        fix = f"Nearest tags: {', '.join(near)}." if near else fix
        raise UsageError(f"{where} requires `{shown}`; {redact(endpoint)} has no tag of such a version.", fix)
    return tag
