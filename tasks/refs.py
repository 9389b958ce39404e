"""What a REF means: a branch, a tag, a commit id or `latest`, against the names that a remote advertises."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .errors import NetworkError, UsageError
from .urls import redact

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version

LATEST, MATCHING = "latest", "matching"
WORDS = (LATEST, MATCHING)
HEADS, TAGS, PEELED = "refs/heads/", "refs/tags/", "^{}"
LONGEST_REF = 255  # bytes; no file system that git runs on has longer names

_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SHORT = re.compile(r"[0-9a-f]{7,63}")
# git-check-ref-format(1): what no component and no name may hold
_NO_REF = re.compile(r"[ ~^:?*\[\\]|\.\.|@\{|//|^/|/$|\.$|^@$|(?:^|/)\.|\.lock(?:/|$)")


@dataclass(frozen=True)
class Advertised:
    """What a remote offers: branch name -> commit, tag name -> object, annotated tag's name -> commit."""

    heads: Mapping[str, str]
    tags: Mapping[str, str]
    peeled: Mapping[str, str]

    @classmethod
    def parse(cls, ls_remote_output: str) -> Advertised:
        """Read the output of git-ls-remote(1). Other refs are passed over; raises NetworkError for a broken line."""
        heads: dict[str, str] = {}
        tags: dict[str, str] = {}
        peeled: dict[str, str] = {}
        for line in filter(None, ls_remote_output.split("\n")):  # names may hold what splitlines() splits at
            oid, tab, name = line.partition("\t")
            if oid.startswith("ref: "):  # --symref
                continue
            if not (tab and name and _OID.fullmatch(oid)):
                raise NetworkError(f"The remote's list of refs holds what is no ref: {redact(line[:80])!a}")
            if name.startswith(HEADS):
                heads[name.removeprefix(HEADS)] = oid
            elif name.startswith(TAGS) and name.endswith(PEELED):
                peeled[name.removeprefix(TAGS).removesuffix(PEELED)] = oid
            elif name.startswith(TAGS):
                tags[name.removeprefix(TAGS)] = oid
        return cls(heads, tags, peeled)

    def commit(self, tag: str) -> str:
        """The id of the commit that the tag names."""
        return self.peeled.get(tag, self.tags[tag])


@dataclass(frozen=True)
class Target:
    """Where a REF leads. `name` is empty for a commit id; `object` is the tag object's id, else the commit's."""

    ref: str
    kind: Literal["branch", "tag", "commit"]
    name: str
    commit: str
    object: str


def check_ref(ref: str) -> str:
    """The REF, unchanged, if it can name a branch, tag or commit (git-check-ref-format(1)); else UsageError."""
    fix = "A REF is a branch, a tag, a commit id, `latest`, or for FlashInfer `matching`."
    shown = ascii(ref[:80])
    name = ref.removeprefix(HEADS).removeprefix(TAGS)
    if not name or not ref.isprintable() or _NO_REF.search(name) or len(ref.encode()) > LONGEST_REF:
        raise UsageError(f"{shown} cannot be a REF: git allows no such name.", fix)
    if ref.startswith("-") or name.startswith("-"):
        raise UsageError(f"{shown} cannot be a REF: it would be taken for an option.", fix)
    if name.startswith("refs/"):
        raise UsageError(f"{shown} cannot be a REF: only refs/heads/ and refs/tags/ are followed.", fix)
    return ref


def resolve(ref: str, advertised: Advertised, repository: str, endpoint: str) -> Target:
    """What `ref` is on this remote now.

    `latest` is the newest release, always. A name that is both a branch and a tag is the branch, as in git-clone(1)
    `--branch`; `refs/tags/NAME` is the tag. A full commit id is taken as it is; a short one has to be the beginning of
    exactly one advertised id. Raises UsageError, with the nearest names, for what the remote does not have.
    """
    check_ref(ref)
    place = f"{repository} at {redact(endpoint)}"
    if ref == MATCHING:
        raise UsageError(f"`{MATCHING}` is a word for FlashInfer; {repository} has nothing to match.")
    if ref == LATEST:
        newest_tag = latest(advertised.tags)
        if newest_tag is None:
            raise UsageError(f"{place} has no release tag, so `{LATEST}` means nothing there.", "Name a branch.")
        return _tag(ref, newest_tag, advertised)
    bare = "" if ref.startswith((HEADS, TAGS)) else ref
    branch, tag = bare or ref.removeprefix(HEADS), bare or ref.removeprefix(TAGS)
    if branch in advertised.heads:
        return Target(ref, "branch", branch, advertised.heads[branch], advertised.heads[branch])
    if tag in advertised.tags:
        return _tag(ref, tag, advertised)
    return _commit(ref, advertised, place) or _unknown(ref, advertised, place)


def _tag(ref: str, tag: str, advertised: Advertised) -> Target:
    return Target(ref, "tag", tag, advertised.commit(tag), advertised.tags[tag])


def _commit(ref: str, advertised: Advertised, place: str) -> Target | None:
    oid = ref.lower()
    commits = {advertised.tags[tag]: advertised.commit(tag) for tag in advertised.tags}
    commits |= {tip: tip for tip in (*advertised.heads.values(), *advertised.peeled.values())}
    if _OID.fullmatch(oid):
        return Target(ref, "commit", "", commits.get(oid, oid), oid)
    if not _SHORT.fullmatch(oid):
        return None
    found = {commit for tip, commit in commits.items() if tip.startswith(oid)}
    if len(found) == 1:
        commit = found.pop()
        return Target(ref, "commit", "", commit, commit)
    why = "begins more than one id" if found else "begins the id of no branch or tag"
    raise UsageError(f"{ref!a} {why} of {place}.", "Give the full commit id (40 or 64 characters).")


def _unknown(ref: str, advertised: Advertised, place: str) -> Target:
    names = nearest(ref.removeprefix(HEADS).removeprefix(TAGS), [*WORDS, *advertised.tags, *advertised.heads])
    fix = f"The nearest names there: {', '.join(names)}." if names else ""
    raise UsageError(f"{place} has no branch, tag or commit {ref}.", fix)


def nearest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` of the `names` that somebody who wrote `name` may have meant, the likeliest first."""
    from difflib import get_close_matches

    known = sorted({other for other in names if other.isprintable()})
    same = [other for other in known if other.casefold() == name.casefold()]
    close = get_close_matches(name, known, n=count, cutoff=0.6)
    return list(dict.fromkeys([*same, *_neighbours(name, known), *close]))[:count]


def _neighbours(name: str, known: list[str]) -> list[str]:
    """The tag of that version, then those of the releases just below, just above and the next below."""
    asked = release(name)
    if asked is None:
        return []
    versions = _releases(known)
    same = [tag for version, tag in versions if version == asked]
    finals = [(version, tag) for version, tag in versions if not version.is_prerelease or asked.is_prerelease]
    below = [tag for version, tag in finals if version < asked]
    above = [tag for version, tag in finals if version > asked]
    return [*same, *below[-1:], *above[:1], *below[-2:-1]]


def release(tag: str) -> Version | None:
    """The version (PEP 440) that a tag names, or None.

    `v0.6.7.post3` and `0.5.0rc2` are versions; `nightly-v0.6.9-20260504`, `aarch64`, `20240101` and local versions
    such as `v0.2.0+cu124` (a build of a release, not a release) are none.
    """
    from packaging.version import Version

    if not re.match(r"v?[0-9]+\.[0-9]+", tag):
        return None
    try:
        version = Version(tag)
    except ValueError:  # InvalidVersion, or a number too long for int()
        return None
    return None if version.local else version


def _releases(tags: Iterable[str]) -> list[tuple[Version, str]]:
    """(version, tag) from the lowest up; of two tags for one version the one with a `v` comes last."""
    found = [(version, tag) for tag in tags if (version := release(tag)) is not None]
    return sorted(found, key=lambda pair: (pair[0], pair[1].startswith("v"), pair[1]))


def newest(tags: Iterable[str], specifier: SpecifierSet) -> str | None:
    """The tag of the newest release that satisfies `specifier`; a pre-release only where nothing else does."""
    fitting = [pair for pair in _releases(tags) if specifier.contains(pair[0], prereleases=True)]
    finals = [pair for pair in fitting if not pair[0].is_prerelease]
    return (finals or fitting)[-1][1] if fitting else None


def latest(tags: Iterable[str]) -> str | None:
    """The tag of the newest release by PEP 440: post-releases count, pre- and development releases do not."""
    finals = [tag for version, tag in _releases(tags) if not version.is_prerelease]
    return finals[-1] if finals else None


def tag_of(version: Version, tags: Iterable[str]) -> str | None:
    """The tag that names this version; its local part does not count."""
    found = [tag for known, tag in _releases(tags) if known.public == version.public]
    return found[-1] if found else None


def highest(tags: Iterable[str]) -> Version | None:
    """The highest version among tags `vN.N.N`, `vN.N.NrcN` and `vN.N.N.postN`: what SGLang's build goes by."""
    pattern = re.compile(r"v[0-9]+\.[0-9]+\.[0-9]+(?:\.?(?:rc|post)[0-9]+)?")
    return max((version for version, tag in _releases(tags) if pattern.fullmatch(tag)), default=None)
