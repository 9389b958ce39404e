"""What a REF means: a branch, a tag, a commit id or `latest`, against the names that a remote advertises."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from ..errors import NetworkError, UsageError
from ..names import HEADS, LATEST, MATCHING, TAGS, check_ref, redact

if TYPE_CHECKING:
    from packaging.version import Version

_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SHORT = re.compile(r"[0-9a-f]{7,63}")


@dataclass(frozen=True)
class Advertised:
    """What a remote offers: branch name -> commit, tag name -> object, annotated tag's name -> commit."""

    heads: Mapping[str, str]
    tags: Mapping[str, str]
    peeled: Mapping[str, str]

    @classmethod
    def parse(cls, output: str, where: str) -> Advertised:
        """Read the output of git-ls-remote(1) of the remote `where`. Other refs are ignored; raises NetworkError for
        anything else."""
        named: dict[str, str] = {}
        for line in filter(None, output.split("\n")):  # names may hold what splitlines() splits at
            oid, _, name = line.partition("\t")
            if not name or not _OID.fullmatch(oid):
                raise NetworkError(f"{where}: not a list of refs: {redact(line[:80])!a}")
            named[name] = oid
        heads = {name.removeprefix(HEADS): oid for name, oid in named.items() if name.startswith(HEADS)}
        tags = {name.removeprefix(TAGS): oid for name, oid in named.items() if name.startswith(TAGS)}
        peeled = {tag.removesuffix("^{}"): tags.pop(tag) for tag in [*tags] if tag.endswith("^{}")}
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

    @property
    def branch(self) -> str:
        """The branch that the REF names; empty where it names none."""
        return self.name if self.kind == "branch" else ""

    @property
    def resolved(self) -> str:
        """The name that a word such as `latest` leads to; empty for a REF that is a name itself."""
        return self.name if self.ref in (LATEST, MATCHING) else ""


def resolve(ref: str, advertised: Advertised, repository: str, endpoint: str) -> Target:
    """What `ref` is on this remote now.

    `latest` is the newest release, always. A name that is both a branch and a tag is the branch, as in git-clone(1)
    `--branch`; `refs/tags/NAME` is the tag. A full commit id is taken as it is; a short one has to be the beginning of
    exactly one advertised id. Raises UsageError, with the nearest names, for what the remote does not have.
    """
    check_ref(ref)
    place = f"{repository}: {redact(endpoint)}"
    if ref == MATCHING:
        raise UsageError(f"`{MATCHING}` applies only to FlashInfer; {repository} has nothing to match.")
    name = latest(advertised.tags) if ref == LATEST else ref.removeprefix(HEADS).removeprefix(TAGS)
    if name is None:
        hint = _push_tags(advertised, endpoint) or "Name a branch."
        raise UsageError(f"{place} has no release tag, so `{LATEST}` means nothing there.", hint)
    if name in advertised.heads and ref != LATEST and not ref.startswith(TAGS):
        return Target(ref, "branch", name, advertised.heads[name], advertised.heads[name])
    if name in advertised.tags and not ref.startswith(HEADS):
        return Target(ref, "tag", name, advertised.commit(name), advertised.tags[name])
    oid = ref.lower()
    commits = {advertised.tags[tag]: advertised.commit(tag) for tag in advertised.tags}
    commits |= {tip: tip for tip in (*advertised.heads.values(), *advertised.peeled.values())}
    if _OID.fullmatch(oid):
        return Target(ref, "commit", "", commits.get(oid, oid), oid)
    if _SHORT.fullmatch(oid):
        found = {commit for tip, commit in commits.items() if tip.startswith(oid)}
        if len(found) == 1:
            return Target(ref, "commit", "", *found, *found)
        why = "begins more than one id" if found else "begins the id of no branch or tag"
        raise UsageError(f"{place}: {ref!a} {why}.", "Give the full commit id (40 or 64 characters).")
    words = [*([LATEST] if advertised.tags else []), *([MATCHING] if repository == "flashinfer" else [])]
    near = ", ".join(nearest(name, [*words, *advertised.tags, *advertised.heads]))
    hints = [f"The nearest names there: {near}." if near else "", _push_tags(advertised, endpoint)]
    raise UsageError(f"{place} has no branch, tag or commit {ref}.", " ".join(filter(None, hints)))


def _push_tags(advertised: Advertised, endpoint: str) -> str:
    """What to do about a fork that has no tags; empty where there are some."""
    if advertised.tags:
        return ""
    return f"It has no tags; a fork gets them from a clone that has them: `git push {redact(endpoint)} --tags`."


def nearest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` of the `names` that somebody who wrote `name` may have meant, the likeliest first."""
    from difflib import get_close_matches

    known = {other.casefold(): other for other in sorted(names) if other.isprintable()}
    return [known[other] for other in get_close_matches(name.casefold(), known, count)]


@cache
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


def conflicting(names: Iterable[str], name: str) -> list[str]:
    """Those of the names that no ref can have beside one called `name`: one is a directory of the other."""
    return [other for other in names if other.startswith(f"{name}/") or name.startswith(f"{other}/")]


def _releases(tags: Iterable[str]) -> list[tuple[Version, str]]:
    """(version, tag) from the lowest up; of two tags for one version the one with a `v` comes last."""
    found = [(version, tag) for tag in tags if (version := release(tag)) is not None]
    return sorted(found, key=lambda pair: (pair[0], pair[1].startswith("v"), pair[1]))


def latest(tags: Iterable[str]) -> str | None:
    """The tag of the newest release by PEP 440: post-releases count, pre- and development releases do not."""
    finals = [tag for version, tag in _releases(tags) if not version.is_prerelease]
    return finals[-1] if finals else None


def highest(tags: Iterable[str]) -> Version | None:
    """The highest version that any tag names, pre-releases included: what SGLang's build goes by."""
    return max((version for version, _ in _releases(tags)), default=None)
