"""Which FlashInfer release a package requires, from its metadata (PEP 508): the word `matching`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from ..errors import UsageError
from ..git.revisions import nearest, newest, release
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
        if found := [each for each in needed if canonicalize_name(each.name) in FLASHINFER]:
            found[0].specifier = SpecifierSet(",".join(str(each.specifier) for each in found))
            return found[0]
    return None


def matching(
    metadata: Metadata, extras: Sequence[str], tags: Iterable[str], url: str, *,
    version: str = "", committed: float = 0, dates: Callable[[Sequence[str]], Mapping[str, float]] = lambda tags: {},
) -> str:  # fmt: skip
    """The FlashInfer tag that the package requires: that of an exact pin, else the newest release that satisfies it.

    Without an upper bound it is the newest that is not younger than the package's own commit, since later ones may be
    incompatible. `committed` is the time of the commit, and `dates`, called only then, returns the times of tags
    (seconds since 1970); tags without a time count only if none has one. Messages show the package's `version` and
    FlashInfer's `url`. Raises UsageError if nothing is required or no tag satisfies it.
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
    specifier = _public(requirement.specifier)
    fitting = [tag for tag in known if (found := release(tag)) and specifier.contains(found, prereleases=True)]
    if not fitting:
        near = nearest(str(specifier).lstrip("=<>~! "), known)
        hint = f"The nearest tags are {', '.join(near)}." if near else ""
        command = f"invoke setup --flashinfer-branch={near[0]}" if near else latest
        raise UsageError(f"{package} requires `{shown}`; {redact(url)} has no tag for such a version.", hint, command)
    if all(each.operator in (">", ">=", "!=") for each in specifier) and (times := dates(fitting)):
        dated = sorted((tag for tag in fitting if tag in times), key=lambda tag: times[tag])
        fitting = [tag for tag in dated if times[tag] <= committed] or dated[:1] or fitting
    return newest(fitting, specifier) or fitting[-1]


def has_release(requirement: Requirement, tags: Iterable[str]) -> bool:
    """Whether `matching` finds a release for this requirement among the tags."""
    return not requirement.url and newest(tags, _public(requirement.specifier)) is not None


def _public(specifier: SpecifierSet) -> SpecifierSet:
    """Without local versions: a pin such as ==0.1.6+cu124 names a build of a release, and the release has the tag."""
    return SpecifierSet(",".join(str(each).partition("+")[0] for each in specifier))
