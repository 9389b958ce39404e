"""Local work that moving a checkout to another commit could lose, as far as git itself does not refuse.

git refuses to overwrite changed, untracked and ignored files (`git switch --no-overwrite-ignore`). What it does not
notice: commits that no ref leads to any more, an operation in progress, untracked files where sparse-checkout is on.
Changed files stop the move although git would carry most of them along: what a user builds upon is not replaced.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from .. import names
from ..errors import LocalWorkError, counted, examples
from ..git import messages, refs, submodules
from ..git.repository import Checkout

MANY = 1000  # files that are compared byte by byte; more are changed on purpose
OPERATIONS = {
    "rebase-merge": "rebase",
    "rebase-apply": "rebase or am",
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "sequencer": "cherry-pick or revert",
    "BISECT_LOG": "bisect",
}


def changed_files(checkout: Checkout, *, refresh: bool = False) -> list[str]:
    """The tracked files of a checkout that differ from its commit or are staged, and submodules that do, or that hold
    such files (or untracked ones). With `refresh` git may write to its index what it found."""
    changed, _ = _status(checkout, "--ignore-submodules=none", refresh=refresh)
    return changed


def unreproducible(checkout: Checkout) -> list[str]:
    """What exists only in this checkout, so that it cannot be reproduced elsewhere, in words."""
    reasons = []
    if files := changed_files(checkout):
        reasons.append(f"{counted(len(files), 'changed file')} ({examples(files)})")
    others = ("--not", f"--remotes={checkout.remote}", "--tags", checkout.record.commit or checkout.head)
    if commits := checkout.git("rev-list", "--missing=allow-any", "HEAD", *others).split():
        reasons.append(f"{counted(len(commits), 'commit')} that its remote does not have")
    return reasons


def problems(
    checkout: Checkout, branch: str = "", known: Iterable[str] = (), *, rewrite: bool = False
) -> list[LocalWorkError]:
    """Everything that keeps HEAD from moving, and `branch` if not empty. `known` are commits of the remote; for
    `rewrite` see `changes`."""
    lost, moving = commits(checkout, known, branch), branch_conflicts(checkout, branch)
    return [*operation(checkout), *changes(checkout, rewrite=rewrite), *lost, *moving]


def refuse(problems: Sequence[LocalWorkError]) -> None:
    """Raise all problems of a checkout as one error, if there are any."""
    if not problems:
        return
    hints = dict.fromkeys(problem.hint for problem in problems if problem.hint)
    command = problems[0].command if len(problems) == 1 else ""
    raise LocalWorkError("\n".join(problem.what for problem in problems), "\n".join(hints), command)


def operation(checkout: Checkout) -> list[LocalWorkError]:
    """The git operation that is in progress in a checkout, if there is one."""
    for file, name in OPERATIONS.items():
        if (checkout.git_dir / file).exists():
            what = f"{checkout.name}: git {name} is in progress in {checkout.path}."
            return [LocalWorkError(what, messages.FINISH)]
    return []


def changes(checkout: Checkout, *, rewrite: bool = False) -> list[LocalWorkError]:
    """The changed files of a checkout, without those in its submodules.

    With `rewrite` git may write what it finds to the index, and the files are written anew whose bytes are those of the
    commit though git takes them for changed: their line endings do not fit their attributes, and git would refuse to
    replace them.
    """
    files, alike = _status(checkout, "--ignore-submodules=dirty", refresh=rewrite)
    if alike and rewrite:
        checkout.git("checkout-index", "--force", "-u", "-z", "--stdin", stdin="".join(f"{path}\0" for path in alike))
    links = submodules.gitlinks(checkout, "HEAD", *files) if files else {}
    own = [file for file in files if file not in links]
    if not own:
        return []
    what = f"{checkout.name}: {counted(len(own), 'changed file')} ({examples(own)}) in {checkout.path}."
    return [LocalWorkError(what, messages.KEEP_IT)]


def refresh(checkout: Checkout, env: Mapping[str, str] | None = None) -> None:
    """Let the index know the files as they are now, so that git need not read them again."""
    checkout.git("update-index", "-q", "--refresh", check=False, env=env)


def staged(checkout: Checkout) -> list[LocalWorkError]:
    """The files of a checkout that are staged."""
    listed = checkout.git("diff-index", "--cached", "--name-only", "-z", "HEAD", check=False)
    files = list(filter(None, listed.split("\0")))
    what = f"{checkout.name}: {counted(len(files), 'staged file')} ({examples(files)}) in {checkout.path}."
    return [LocalWorkError(what, messages.KEEP_IT)] if files else []


def commits(checkout: Checkout, known: Iterable[str], branch: str = "") -> list[LocalWorkError]:
    """The commits that would have no ref any more if HEAD moved, and `branch` with it; `known` are the remote's."""
    ref = f"{names.HEADS}{branch}"
    tracked = checkout.refs.get(checkout.tracking(branch))
    known = [*known, checkout.record.commit, tracked.commit if tracked else ""]
    tips = [tip for tip in ("HEAD" if checkout.head else "", ref if ref in checkout.refs else "") if tip]
    lost = without_ref(checkout, tips, known, excluded=ref)
    if not lost:
        return []
    where = f"on {branch}" if branch and checkout.branch == branch else "on a detached HEAD"
    count = counted(len(lost), "commit")
    what = f"{checkout.name}: {count} {where} in {checkout.path} that its remote does not have."
    keep = names.shell("git", "-C", checkout.path, "branch", f"my-work-{lost[0][:7]}", lost[0])
    return [LocalWorkError(what, "Push them, or keep them on a branch of your own:", keep)]


def without_ref(checkout: Checkout, tips: Sequence[str], known: Iterable[str], excluded: str = "") -> list[str]:
    """The commits below `tips` that no ref leads to but the one that is `excluded`, and none of the commits `known`."""
    lines = [*tips, *(f"^{oid}" for oid in known if oid)]
    options = ("--ignore-missing", "--missing=allow-any", "--max-count=100", "--stdin", "--not", "--exclude=refs/stash")
    others = [f"--exclude={excluded}"] if excluded else []
    return checkout.git("rev-list", *options, *others, "--glob=refs/*", stdin="\n".join(lines)).split() if tips else []


def branch_conflicts(checkout: Checkout, branch: str) -> list[LocalWorkError]:
    """Whether `branch` cannot be created beside the local ones, or is checked out in a linked worktree."""
    if not branch:
        return []
    branches = [name.removeprefix(names.HEADS) for name in checkout.refs if name.startswith(names.HEADS)]
    for other in refs.conflicting(branches, branch):
        what = f"{checkout.name}: local branch {other!r} in {checkout.path} conflicts with the name {branch!r}."
        rename = names.shell("git", "-C", checkout.path, "branch", "-m", other, f"mine-{other}")
        return [LocalWorkError(what, "Rename it:", rename)]
    ref = checkout.refs.get(f"{names.HEADS}{branch}")
    if ref and ref.worktree and os.path.realpath(ref.worktree) != os.path.realpath(checkout.path):
        what = f"{checkout.name}: branch {branch} is checked out in the linked worktree {ref.worktree}."
        return [LocalWorkError(what, "Leave it there:", names.shell("git", "-C", ref.worktree, "switch", "--detach"))]
    return []


def in_the_way(checkout: Checkout, commit: str, *, ask_git: bool = True) -> list[LocalWorkError]:
    """What git-switch(1) would refuse for, before it is asked: changed files that git was told not to look at, and
    untracked and ignored files in the way of a path of the next commit. Where sparse-checkout is on, git itself
    overwrites the latter (seen with git 2.39 and 2.43). The index has to be fresh. `ask_git` is off where a submodule
    leaves: git takes its files for untracked ones."""
    if ask_git:
        try:
            checkout.git("read-tree", "-n", "-m", "-u", "HEAD", commit)
        except LocalWorkError as error:
            return [error]
    paths = overlapping(checkout, untracked_files(checkout), commit)
    return [messages.overwrite_error(checkout.name, checkout.path, paths, untracked=True)] if paths else []


def untracked_files(checkout: Checkout, *options: str, env: Mapping[str, str] | None = None) -> list[str]:
    """The files that git does not track, ignored ones included; of a repository among them, its directory with a slash
    at the end (git-ls-files(1), --others)."""
    return list(filter(None, checkout.git("ls-files", "--others", "-z", *options, env=env).split("\0")))


def overlapping(checkout: Checkout, paths: Sequence[str], commit: str) -> list[str]:
    """Those of the paths that are a file of the commit, above one or below one."""
    if not paths:
        return []
    files = {*checkout.git("ls-tree", "-r", "-z", "--name-only", "--full-tree", commit).split("\0")}
    directories = {str(parent) for file in files for parent in PurePosixPath(file).parents}
    found = []
    for path in map(PurePosixPath, paths):
        if str(path) in files or str(path) in directories or any(str(parent) in files for parent in path.parents):
            found.append(str(path))
    return found


def _status(checkout: Checkout, *options: str, refresh: bool) -> tuple[list[str], list[str]]:
    """The changed paths (git-status(1)); and those that git takes for changed though their bytes are the index's."""
    command = ("status", "--porcelain=v2", "-z", "--untracked-files=no", "--no-renames", *options)
    locks = {"GIT_OPTIONAL_LOCKS": "1"} if refresh else {}
    changed, suspects = [], {}
    for line in filter(None, checkout.git(*command, env=locks).split("\0")):
        if line[0] == "u":  # u XY sub m1 m2 m3 mW h1 h2 h3 path
            changed.append(line.split(" ", 10)[10])
        elif line[0] == "1":  # 1 XY sub mH mI mW hH hI path
            _, state, _, _, index_mode, mode, _, oid, path = line.split(" ", 8)
            changed.append(path)
            if state == ".M" and index_mode == mode and mode.startswith("100"):
                suspects[path] = oid
    alike = same_bytes(checkout, suspects)
    return [path for path in changed if path not in alike], alike


def same_bytes(checkout: Checkout, oids: Mapping[str, str]) -> list[str]:
    """Those of the paths whose bytes are those of the object id that is given for each."""
    paths = [path for path in oids if not (checkout.path / path).is_symlink()][:MANY]
    hashed = checkout.git("hash-object", "--no-filters", "--", *paths, check=False).split("\n") if paths else []
    return [path for path, oid in zip(paths, hashed, strict=False) if oid == oids[path]]


@contextmanager
def own_index(checkout: Checkout) -> Iterator[dict[str, str]]:
    """The variables that let git use an index of our own with HEAD's files, where no flag of the user's hides any."""
    with tempfile.TemporaryDirectory(dir=checkout.git_dir, prefix="tmp-index") as directory:
        index = {"GIT_INDEX_FILE": str(Path(directory) / "index")}
        if checkout.head:
            checkout.git("read-tree", "HEAD", env=index)
            refresh(checkout, index)
        yield index
