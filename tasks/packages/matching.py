"""Which FlashInfer release a package requires, from its metadata: the word `matching`."""

from __future__ import annotations

from collections.abc import Iterable

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from ..errors import UsageError
from ..git.refs import nearest, release
from ..names import redact
from .layouts import FLASHINFER
from .package import Package
from .requirements import applying

FALLBACK_EXTRAS = (("srt",), ("all",))  # in which SGLang before 0.5.3 has its requirements


def matching(package: Package, tags: Iterable[str], url: str) -> str:
    """The FlashInfer tag that the package requires: that of an exact pin; of a range its lower end, which is what the
    package's authors had; without a lower end the newest release that satisfies it; a pre-release only where no other
    release does.

    Messages show FlashInfer's `url`. Raises UsageError if nothing is required or no tag satisfies it.
    """
    name, latest = f"{package.distribution} {package.version}".strip(), "invoke setup --flashinfer-branch=latest"
    requirement = flashinfer_requirement(package)
    if requirement is None:
        raise UsageError(f"{name} requires no FlashInfer, so there is nothing to match.", command=latest)
    versions = {version: tag for tag in tags if (version := release(tag))}
    specifier = requirement.specifier
    fitting = [version for version in versions if specifier.contains(version, prereleases=True)]
    fitting = [version for version in fitting if not version.is_prerelease] or fitting
    if fitting and not requirement.url:
        has_lower_end = any(clause.operator in (">", ">=", "~=") for clause in specifier)
        return versions[min(fitting) if has_lower_end else max(fitting)]
    near = ", ".join(nearest(str(specifier).lstrip("=<>~! "), versions.values()))
    what = f"{name} requires `{redact(str(requirement))}`; {redact(url)} has no tag for such a version."
    raise UsageError(what, f"The nearest tags are {near}." if near else "", latest)


def flashinfer_requirement(package: Package) -> Requirement | None:
    """What the package requires of FlashInfer, or None.

    Its base requirements count, and those of its configured extras, else of `srt`, else of `all`. Markers (PEP 508) are
    evaluated for this interpreter, and several requirements are intersected. Raises SourcesError for a marker without
    meaning.
    """
    for extras in (package.repository.extras, *FALLBACK_EXTRAS):
        needed = applying(lambda name: package.requires if name == package.name else (), {package.name: extras}, {})
        if found := [requirement for requirement in needed if canonicalize_name(requirement.name) in FLASHINFER]:
            found[0].specifier = SpecifierSet(",".join(str(requirement.specifier) for requirement in found))
            return found[0]
    return None
