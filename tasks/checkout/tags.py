"""The two tags that a checkout keeps: the newest release's, by which a build by hand finds its version, and the REF."""

from __future__ import annotations

from ..git import fetch, refs
from ..git.repository import Checkout
from ..names import TAGS
from .recovery import RESCUE
from .session import Session


def bring_release_tag(session: Session, checkout: Checkout) -> None:
    """Fetch the tag of the newest release where it is not here, without the files of its commit."""
    advertised = session.advertised(checkout.repository)
    tag = refs.latest(advertised.tags)
    if tag is None or checkout.refs.get(f"{TAGS}{tag}") or refs.conflicting(checkout.tags, tag):
        return
    fetch.bring_tag(checkout, advertised.tags[tag], session.source(checkout))
    _set(session, checkout, tag, advertised.tags[tag])


def set_tag(session: Session, checkout: Checkout, target: refs.Target) -> None:
    """Set the tag that the REF means, as the remote has it."""
    if target.kind == "tag":
        if target.object != target.commit and not checkout.git("cat-file", "-t", target.object, check=False):
            fetch.bring_tag(checkout, target.object, session.source(checkout))
        _set(session, checkout, target.name, target.object)


def _set(session: Session, checkout: Checkout, tag: str, oid: str) -> None:
    """Set a tag; what it named before keeps a ref below refs/rescue/."""
    known = checkout.refs.get(f"{TAGS}{tag}")
    if known and known.object == oid:
        return
    if others := refs.conflicting(checkout.tags, tag):
        text = f"the tag {tag} of the remote was not set, since it conflicts with your tag {others[0]}"
        session.reporter.warn(checkout.name, text)
        return
    lines = [f"update {TAGS}{tag} {oid}"]
    if known:
        lines.append(f"update {RESCUE}tags/{tag}-{known.object[:12]} {known.object}")
    checkout.git("update-ref", "--stdin", stdin="".join(f"{line}\n" for line in lines))
