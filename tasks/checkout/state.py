"""What is at a repository's path, and in which state it is: by local git commands alone."""

from __future__ import annotations

from .. import names
from ..errors import LocalWorkError, SourcesError, examples
from ..git import submodules
from ..git.repository import Checkout, Record
from ..models import RefSource, Repository, RepositoryState
from . import local_work


def kept_ref(repository: Repository, record: Record) -> tuple[str, RefSource]:
    """The REF that counts without an option, and where it comes from: a REF that was given as an option stays with the
    checkout until the configuration changes."""
    if record.ref and record.configured == repository.branch != record.ref:
        return record.ref, "this checkout"
    return repository.branch, "configuration"


def find(repository: Repository) -> Checkout | None:
    """The checkout at the repository's path; None where nothing is. Raises LocalWorkError for anything else, and for a
    checkout of another URL."""
    path, name = repository.path, repository.name
    aside = names.shell("mv", str(path), f"{path}.mine")
    if path.is_symlink():
        raise LocalWorkError(f"{name}: {path} is a symbolic link.", "Move it away:", aside, label="a link")
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    checkout = Checkout(repository, path / ".git")
    if checkout.git_dir.is_file():
        what = f"{name}: {path} is a linked worktree of another repository; a clone of its own belongs there."
        main = checkout.git("rev-parse", "--path-format=absolute", "--git-common-dir", check=False)
        move = names.shell("git", f"--git-dir={main}", "worktree", "move", str(path), f"{path}.mine") if main else ""
        raise LocalWorkError(what, "Move it away with git:", move, label="a linked worktree")
    if not (checkout.git_dir / "HEAD").is_file():
        raise LocalWorkError(f"{name}: {path} is not a checkout.", "Move it away:", aside, label="not a checkout")
    if not checkout.head:
        checkout.git("rev-parse", "--git-dir")  # refuses a repository of another user
    if not checkout.remote:
        raise _other_remote(checkout)
    return checkout


def require(repository: Repository) -> Checkout:
    """The checkout at the repository's path. Raises as `find`, and SourcesError where nothing is."""
    if checkout := find(repository):
        return checkout
    raise SourcesError(f"{repository.name}: not cloned.", command="invoke clone")


def describe(checkout: Checkout, *, refresh: bool = False) -> RepositoryState:
    """What `status` and `verify` say of a checkout; ahead and behind are counted against what was fetched last. With
    `refresh` git may write to its index what it found."""
    repository, record = checkout.repository, checkout.record
    ref, source = kept_ref(repository, record)
    upstream = checkout.tracking(record.branch) if record.branch else record.commit
    counts = checkout.git("rev-list", "--left-right", "--count", f"HEAD...{upstream}", check=False).split()
    ahead, behind = map(int, counts) if upstream and counts else (None, None)
    changed = tuple(local_work.changed_files(checkout, refresh=refresh))
    return RepositoryState(
        path=repository.path,
        url=names.redact(repository.url),
        ref=record.ref or ref,
        commit=checkout.head or None,
        dirty=bool(changed),
        ref_source=source,
        resolved=record.name if record.shown != record.ref else "",
        branch=checkout.branch,
        ahead=ahead,
        behind=behind,
        changed=changed,
        problem="an update was interrupted" if record.moving else "",
    )


def is_users_branch(checkout: Checkout, branch: str) -> bool:
    """Whether the branch that HEAD is on is the user's own: neither the REF's `branch` nor the one that this tool put
    HEAD on."""
    return checkout.branch not in ("", branch, checkout.record.branch)


def problems_of_submodules(checkout: Checkout) -> list[LocalWorkError]:
    """The local work in the submodules of a checkout."""
    problems = []
    for submodule, inner in submodules.linked(checkout, checkout.head):
        problems += local_work.problems(inner, known=[submodule.commit])
    return problems


def is_full(checkout: Checkout) -> bool:
    """Whether a checkout has its full history, and its submodules have theirs and all directories."""
    if checkout.is_shallow:
        return False
    inner = [submodule for _, submodule in submodules.linked(checkout, checkout.head)]
    return all(is_full(submodule) and submodule.directories is None for submodule in inner)


def submodule_faults(checkout: Checkout, *, files: bool = True) -> dict[str, str]:
    """What is wrong with the submodules of a checkout, by their paths: those that are missing or at another commit, and
    with `files` those whose files are gone. Nothing is contacted or changed."""
    faults = {}
    for path, submodule in submodules.declared(checkout, checkout.head).items():
        inner = submodules.checkout_of(checkout, submodule)
        if not inner.is_linked or not inner.head:
            faults[path] = "missing"
        elif inner.head != submodule.commit:
            faults[path] = f"at {inner.head[:10]}, not at {submodule.commit[:10]}"
        elif files and (gone := inner.git("ls-files", "--deleted", "-z").split("\0")[:-1]):
            faults[path] = f"{examples(gone)} {'are' if gone[1:] else 'is'} gone"
        elif (inner.path / ".gitmodules").is_file() and not inner.is_sparse:
            faults |= {f"{path}/{name}": fault for name, fault in submodule_faults(inner, files=files).items()}
    return faults


def _other_remote(checkout: Checkout) -> LocalWorkError:
    wanted, section = names.redact(checkout.url), f"sources.repositories.{checkout.name}.url"
    if not checkout.remotes:
        what = f"{checkout.name}: {checkout.path} has no remote origin; expected {wanted}."
        add = names.shell("git", "-C", checkout.path, "remote", "add", "origin", wanted)
        return LocalWorkError(what, "Add the remote:", add, label="another remote")
    url = names.redact(checkout.remotes.get("origin") or next(iter(checkout.remotes.values())))
    hint = f"If that is meant, set it in invoke.yaml: `{section}: {url}`."
    what = f"{checkout.name}: {checkout.path} comes from {url}, not from {wanted}."
    return LocalWorkError(what, hint, label="another remote")
