"""Finds what of the user's a move of a checkout could lose. Whatever is found is left byte for byte as it is."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import LocalWorkError
from ..git.command import run
from ..git.fetch import Entry, Remote, present
from ..git.packs import read_shallow
from ..git.revisions import same_place
from ..git.submodules import GITLINK, head_of, linked_git_dir
from ..models import Repository
from ..names import redact
from .changes import changes_of, hidden_changes
from .paths import folders_of, parents
from .record import read_record
from .state import Checkout, read_checkout

_UNDER_WAY = {  # the first that is there
    "rebase-merge": ("rebase", "--abort"),
    "rebase-apply/applying": ("am", "--abort"),
    "rebase-apply": ("rebase", "--abort"),
    "MERGE_HEAD": ("merge", "--abort"),
    "CHERRY_PICK_HEAD": ("cherry-pick", "--abort"),
    "REVERT_HEAD": ("revert", "--abort"),
    "sequencer": ("cherry-pick", "--abort"),
    "BISECT_LOG": ("bisect", "reset"),
}
_LEFT = ("index.lock", "HEAD.lock", "shallow.lock", "config.lock", "packed-refs.lock", "refs/**/*.lock", "*.new",
         "objects/pack/tmp_*", "objects/pack/*.pack", "objects/pack/*.new", "info/*.new", "fetch-*")  # fmt: skip


def check_place(repository: Repository) -> Checkout | None:
    """The checkout of the repository at its path, if one is there. Raises as `has_checkout` and `check_remote`."""
    if not has_checkout(repository):
        return None
    here = read_checkout(repository)
    check_remote(here)
    return here


def has_checkout(repository: Repository) -> bool:
    """Whether a checkout lies at the repository's path; False where nothing does.

    Raises LocalWorkError for anything else: a file, a link, a folder that is no checkout.
    """
    path = repository.path
    if not path.is_symlink() and (not path.exists() or (path.is_dir() and not any(path.iterdir()))):
        return False
    aside = _command("mv", str(path), f"{path}.mine")
    if path.is_symlink() or not path.is_dir():
        kind = "a symbolic link" if path.is_symlink() else "no folder"
        raise LocalWorkError(f"{repository.name}: {path} is {kind}; a checkout belongs there.", aside)
    if not (path / ".git" / "HEAD").is_file():
        raise LocalWorkError(f"{repository.name}: {path} is a folder, but no checkout of its own.", aside)
    return True


def check_remote(checkout: Checkout) -> None:
    """Raise LocalWorkError where the checkout comes from another URL than the configured one."""
    repository, path, url = checkout.repository, checkout.path, checkout.url
    if url != repository.url:
        run(path, "rev-parse", "--git-dir")  # tells what is broken, or that it belongs to another user
        set_url = _command("git", "-C", str(path), "remote", "set-url" if url else "add", "origin", repository.url)
        aside = _command("mv", str(path), f"{path}.mine")
        fix = set_url if redact(set_url) == set_url else aside  # a password is not shown, and not asked to be typed
        wanted = redact(repository.url)
        raise LocalWorkError(
            f"{repository.name}: {path} comes from {redact(url) or 'no remote'}, configured is {wanted}.",
            fix,
        )


def check_changes(remote: Remote) -> None:
    """Raise LocalWorkError where the checkout has changed, staged or deleted files, a changed submodule, or an
    operation of the user's under way."""
    git = ("git", "-C", str(remote.path))
    for file, operation in _UNDER_WAY.items():
        if (remote.git_dir / file).exists():
            what = f"{remote.who}: git {operation[0]} is under way in {remote.path}; finish it, or give it up:"
            raise LocalWorkError(what, _command(*git, *operation))
    if hidden := hidden_changes(remote.path):
        first, option = hidden[0]
        listed = _listed([name for name, _ in hidden], "changed")
        what = f"{remote.who}: {listed} hidden from git status in {remote.path}."
        raise LocalWorkError(what, _command(*git, "update-index", option, "--", first))
    changes = changes_of(remote.path)
    for change in changes:
        if change.submodule and (linked := linked_git_dir(remote.path / change.path)):
            inner = replace(remote, path=remote.path / change.path, git_dir=linked, who=f"{remote.who}/{change.path}")
            check_changes(inner)
            check_commits(inner, "", [change.oid, read_record(linked).commit])
    if changes:
        change = changes[0]
        fix: tuple[str, ...] = ("stash",)
        if any(each.state == "u" for each in changes):
            fix = ("reset", "--quiet")  # keeps the files as they are
        elif not head_of(remote.path):
            fix = ("rm", "-r", "--quiet", "--cached", ".")
        elif added := [each.path for each in changes if each.state == ".A"]:
            fix = ("reset", "--quiet", "--", *added)
        elif change.submodule:  # which git-stash(1) passes over
            fix = ("reset", "--quiet", "--", change.path)
            if change.state[0] == ".":
                fix = ("submodule", "update", "--init", "--", change.path)
        what = f"{remote.who}: {_listed([each.path for each in changes], 'changed')} in {remote.path}."
        raise LocalWorkError(what, _command(*git, *fix))


def _listed(paths: list[str], what: str) -> str:
    shown = ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")  # noqa: PLR2004
    return f"{len(paths)} {what}: {shown},"


def check_room(remote: Remote, before: Mapping[str, Entry], after: Mapping[str, Entry]) -> None:
    """Raise LocalWorkError where a file that no commit has lies where the new commit puts one."""
    folders = folders_of(before)
    in_the_way = set()
    for path in after.keys() - before.keys():
        places = [*parents(path), path]
        if any(parent in before for parent in places):
            continue  # git replaces what is tracked, `vacated` tells of submodules
        taken = next((p for p in places if p not in folders and _taken(remote, p, whole=p == path)), "")
        if path in folders:
            taken = next(iter(_untracked(remote, path, before)), "")
        in_the_way |= {taken} - {""}
    if in_the_way:
        first = remote.path / min(in_the_way)
        raise LocalWorkError(
            f"{remote.who}: {len(in_the_way)} untracked where the new commit has files: {first}.",
            _command("mv", str(first), f"{first}.mine"),
        )


def vacated(remote: Remote, before: Mapping[str, Entry], after: Mapping[str, Entry]) -> list[str]:
    """The submodules whose folders the new commit needs for files. Raises LocalWorkError where one holds files of the
    user's, ignored ones counted."""
    files = [path for path, entry in after.items() if entry.mode != GITLINK]
    needed = {*files, *folders_of(files)}
    found = [path for path, entry in before.items() if entry.mode == GITLINK and path in needed]
    for path in found:
        place = remote.path / path
        options = ("--porcelain", "-z", "--ignored", "--untracked-files=all", "--ignore-submodules=none")
        if linked_git_dir(place) and (mine := run(place, "status", *options)):
            first = mine.split("\0")[0][3:]
            raise LocalWorkError(
                f"{remote.who}: {place} makes room for files, and holds {first} of yours.",
                _command("mv", str(place / first), f"{place}.mine"),
            )
    return found


def _taken(remote: Remote, path: str, *, whole: bool) -> bool:
    """Whether a file or link lies at `path`; with `whole` also a folder, if not an empty one or a submodule's."""
    place = remote.path / path
    if place.is_symlink() or not place.is_dir():
        return os.path.lexists(place)
    linked = linked_git_dir(place)
    ours = linked is not None and linked.is_relative_to((remote.git_dir / "modules").resolve())
    return whole and not ours and any(place.iterdir())


def _untracked(remote: Remote, folder: str, before: Mapping[str, Entry]) -> list[str]:
    """The files in a tracked folder that no commit has."""
    files = [
        file.relative_to(remote.path).as_posix()
        for file in (remote.path / folder).rglob("*")
        if file.is_symlink() or not file.is_dir()
    ]
    return sorted(file for file in files if file not in before)


def check_commits(remote: Remote, branch: str, known: Iterable[str]) -> None:
    """Raise LocalWorkError where moving HEAD, and `branch` if not empty, would leave a commit without a ref.

    Commits that the remote has had are no loss: its branches, what was ever fetched from it, and `known`.
    """
    on = (remote.git_dir / "HEAD").read_text().strip()
    moving = [f"refs/heads/{branch}"] if branch else []
    heads = [*([] if on.startswith("ref: ") else ["HEAD"]), *moving]  # a branch that does not move keeps its commits
    if not heads:
        return
    kept = [f"^{oid}" for oid in present(remote.git_dir, {*read_shallow(remote.git_dir), *known})]
    without = [f"--exclude={branch}"] if branch else []
    others = ["--not", *without, "--branches", "--remotes", "--tags", "--glob=refs/previous"]
    stdin = "\n".join([*heads, *kept]) + "\n"
    listed = ("rev-list", "--ignore-missing", "--max-count=100", "--stdin", *others)  # there may be no such branch here
    lost = run(remote.path, *listed, stdin=stdin).split()
    if lost:
        where = f"on {branch}" if branch else "on a detached HEAD"
        count = "a commit" if len(lost) == 1 else f"{len(lost)} commits"
        raise LocalWorkError(
            f"{remote.who}: {count} {where} in {remote.path} that its remote does not have.",
            _command("git", "-C", str(remote.path), "branch", f"my-work-{lost[0][:7]}", lost[0]),
        )


def check_names(here: Checkout, branch: str) -> None:
    """Raise LocalWorkError where a branch of the user's has a name that leaves no room for `branch`."""
    for other in same_place(here.named("refs/heads/"), branch):
        raise LocalWorkError(
            f"{here.repository.name}: the branch {other} in {here.path} leaves no room for {branch}.",
            _command("git", "-C", str(here.path), "branch", "-m", other, f"mine-{other}"),
        )


def clear_left_overs(remote: Remote) -> None:
    """Remove what a killed process left in the repository and its submodules' (locks, half packs, drafts).

    Raises LocalWorkError where a living git works in the checkout.
    """
    inner = [head.parent for head in (remote.git_dir / "modules").rglob("HEAD") if (head.parent / "objects").is_dir()]
    left = [each for git_dir in (remote.git_dir, *inner) for pattern in _LEFT for each in git_dir.glob(pattern)
            if each.suffix != ".pack" or not each.with_suffix(".idx").exists()]  # fmt: skip
    if not left:
        return
    import psutil

    for process in psutil.process_iter(["name"]):
        try:
            if process.info["name"] == "git" and Path(process.cwd()).is_relative_to(remote.path.resolve()):
                raise LocalWorkError(
                    f"{remote.who}: git (process {process.pid}) is at work in {remote.path}.",
                    "Wait until it is done, then run the same command again.",
                )
        except psutil.Error:
            continue
    for each in left:
        if each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink(missing_ok=True)
    remote.network.reporter.event(remote.who, f"removed {len(left)} files that a killed process had left")


def _command(*argv: str) -> str:
    return shlex.join(argv)
