"""Which FlashInfer release a package requires, from its metadata (PEP 508): the word `matching`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from ..errors import UsageError
from ..git.revisions import nearest, newest
from ..names import redact
from .metadata import Metadata
from .requirements import applying

FLASHINFER = ("flashinfer", "flashinfer-python")
FALLBACK_EXTRAS = (("srt",), ("all",))  # where SGLang before 0.5.3 keeps its requirements


def flashinfer_requirement(metadata: Metadata, extras: Sequence[str]) -> Requirement | None:
    """What the package requires of FlashInfer, or None: its base requirements and `extras`, else `srt`, else `all`.

    Markers (PEP 508) are evaluated for this interpreter. Requirements that hold at once are intersected.
    Raises SourcesError for a marker without meaning.
    """
    name = canonicalize_name(metadata.distribution)
    for chosen in (extras, *FALLBACK_EXTRAS):
        needed = applying({name: metadata.declared}, {name: chosen}, {})
        if found := [each for each in needed if canonicalize_name(each.name) in FLASHINFER]:
            found[0].specifier = SpecifierSet(",".join(str(each.specifier) for each in found))
            return found[0]
    return None


def matching(metadata: Metadata, extras: Sequence[str], tags: Iterable[str], endpoint: str) -> str:
    """The FlashInfer tag that the package requires: that of an exact pin, else the newest release that satisfies it.

    Raises UsageError, naming the requirement, where there is none or no tag satisfies it.
    """
    known = list(tags)
    where = f"{metadata.distribution} {metadata.version or ''}".strip()
    fix = "Name the release: --flashinfer-branch=latest, or a tag."
    requirement = flashinfer_requirement(metadata, extras)
    if requirement is None:
        raise UsageError(f"{where} requires no FlashInfer, so nothing matches it.", fix)
    shown = redact(str(requirement))
    if requirement.url:
        raise UsageError(f"{where} requires `{shown}`, an address instead of a version.", fix)
    # A pin such as ==0.1.6+cu124 names a build of a release; its source is the release's tag.
    public = ",".join(str(each).partition("+")[0] for each in requirement.specifier)
    tag = newest(known, SpecifierSet(public))
    if tag is None:
        near = ", ".join(nearest(public.lstrip("=<>~! "), known))
        fix = f"Nearest tags: {near}." if near else fix
        raise UsageError(f"{where} requires `{shown}`; {redact(endpoint)} has no tag of such a version.", fix)
    return tag
