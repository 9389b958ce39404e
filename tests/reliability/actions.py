"""What users do in a checkout and upstream does to its repositories: one list, for tests of local work and for random
sequences. An action that cannot be done there does nothing."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable

from tests.thing import FILES, MODULES, PRECIOUS, Thing, User, section
from tests.upstream.store import Gitlink, Symlink, Tree, Upstream

NAMES = ("a.txt", "b.txt", "gone.txt", "kept.txt", "new.txt", "new.log", "folder/new.txt", "folder", "mine.txt",
         "mine.log", "deep/er/mine.txt", 'od"d\nname', "deps/new.txt", "x/y")  # fmt: skip


def edit(user: User, name: str) -> None:
    user.write(name)


def stage(user: User, name: str) -> None:
    user.write(name)
    user.git("add", "-f", "--", name)


def stage_and_put_back(user: User, name: str) -> None:
    stage(user, name)
    if user.git("cat-file", "-t", f"HEAD:{name}"):
        (user.place / name).write_bytes(user.git("show", f"HEAD:{name}").encode() + b"\n")


def stage_and_remove(user: User, name: str) -> None:
    stage(user, name)
    remove(user, name)


def commit(user: User, name: str) -> None:
    stage(user, name)
    user.git("commit", "-q", "-m", "Mine")


def commit_on_a_branch(user: User, name: str) -> None:
    user.git("checkout", "-q", "-b", f"mine{len(user.branches())}")
    commit(user, name)


def back_to_main(user: User, name: str) -> None:
    user.git("checkout", "-q", "main")


def detach(user: User, name: str) -> None:
    user.git("checkout", "-q", "--detach")


def step_back(user: User, name: str) -> None:
    user.git("checkout", "-q", "--detach", "HEAD~1")


def tag(user: User, name: str) -> None:
    user.git("tag", "-f", "mine")


def stash(user: User, name: str) -> None:
    user.write(name)
    changed = user.git("status", "--porcelain", "-z").split("\0")
    if not any(line and (user.place / line[3:]).is_dir() for line in changed):
        user.git("stash")


def to_folder(user: User, name: str) -> None:
    file = user.place / name
    if file.is_file() and not file.is_symlink():
        file.unlink()
    user.write(f"{name}/inner.txt")


def to_link(user: User, name: str) -> None:
    file = user.place / name
    if file.is_file() or file.is_symlink():
        file.unlink()
        file.symlink_to(user.text())


def to_repository(user: User, name: str) -> None:
    remove(user, name)
    user.write(f"{name}/inner.txt")
    inner = User(user.place / name, user.text, user.environ)
    if inner.place.is_dir():
        inner.git("init", "-q")
        commit(inner, "inner.txt")
        commit(inner, "inner.txt")


def remove(user: User, name: str) -> None:
    if (user.place / name).is_file():
        (user.place / name).unlink()


def touch(user: User, name: str) -> None:
    if (user.place / name).is_file():
        os.utime(user.place / name, (1, 1))


def assume_unchanged(user: User, name: str) -> None:
    user.git("update-index", "--assume-unchanged", "--", name)
    user.write(name)


def skip_worktree(user: User, name: str) -> None:
    user.git("update-index", "--skip-worktree", "--", name)
    user.write(name)


def intend(user: User, name: str) -> None:
    user.write(name)
    user.git("add", "-f", "-N", "--", name)


def sparse(user: User, name: str) -> None:
    user.git("sparse-checkout", "set", name.partition("/")[0])


def merge(user: User, name: str) -> None:
    user.other("merge")


def rebase(user: User, name: str) -> None:
    user.other("rebase")


def cherry_pick(user: User, name: str) -> None:
    user.other("cherry-pick")


def bisect(user: User, name: str) -> None:
    user.git("bisect", "start")


def link_worktree(user: User, name: str) -> None:
    user.git("worktree", "add", "-q", str(user.place.parent / "linked"), "main")


def link_detached_worktree(user: User, name: str) -> None:
    user.git("worktree", "add", "-q", "--detach", str(user.place.parent / "linked"))


def own_clone(user: User, name: str) -> None:
    """In place of a submodule without work: its work is in no repository of ours."""
    clean = not user.git("status", "--porcelain", "--ignored")
    seen = all(line.startswith("H ") for line in user.git("ls-files", "-v").split("\n"))
    if (user.place / ".git").is_file() and clean and seen and user.git("rev-parse", "HEAD"):
        address = user.git("config", "remote.origin.url")
        shutil.rmtree(user.place)
        User(user.place.parent, user.text, user.environ).git("clone", "-q", address, str(user.place))
        commit_on_a_branch(user, name)


Action = Callable[[User, str], None]
ACTIONS: tuple[Action, ...] = (
    edit, stage, stage_and_put_back, stage_and_remove, commit, commit_on_a_branch, back_to_main, detach,
    step_back, tag, stash, to_folder, to_link, to_repository, remove, touch,
    assume_unchanged, skip_worktree, intend, sparse, merge, rebase, cherry_pick, bisect,
    link_worktree, link_detached_worktree, own_clone,
)  # fmt: skip


Acts = tuple[tuple[Action, str], ...]


def act(thing: Thing, place: str, acts: Acts) -> None:
    """Let the user of the checkout at `place` act, with contents that are all different."""
    count = itertools.count()
    user = User(thing.sources.path / place, lambda: f"{PRECIOUS} {next(count)}\n", os.environ)
    for action, name in acts:
        action(user, name)


def names(given: object) -> str | None:
    """The id of acts in the name of a test."""
    if isinstance(given, tuple):
        return ",".join(f"{act.__name__} {name}".strip() for act, name in given).replace("/", "|")
    return None


def links(upstream: Upstream) -> dict[str, Gitlink]:
    """The newest commits of the submodules."""
    return {name: Gitlink(upstream.commit(f"some/{name}")) for name in ("lib", "outer", "inner")}


OUTER = ("drops", "moves", "moves with another name", "becomes a file", "becomes a link", "becomes a directory",
         "moves with the directory above it", "has a file above it", "has a link above it")  # fmt: skip
INNER = ("drops", "moves", "becomes a file", "becomes a link", "becomes a directory")


def change_outer(upstream: Upstream, how: str) -> None:
    """Let the submodule `deps/outer`, which has one itself, go or move."""
    link = links(upstream)
    third = MODULES.replace("deps/", "third/") + section("outer", "third/outer")
    moved: Tree = {"deps/lib": None, "deps/outer": None, "third/lib": link["lib"], "third/outer": link["outer"]}
    without: Tree = {".gitmodules": MODULES, "deps/outer": None}
    trees: dict[str, Tree] = {
        "drops": without,
        "moves": {**without, ".gitmodules": MODULES + section("outer", "other/outer"), "other/outer": link["outer"]},
        "moves with another name": {
            **without,
            ".gitmodules": MODULES + section("renamed", "other/outer", "outer"),
            "other/outer": link["outer"],
        },
        "becomes a file": {**without, "deps/outer": "a file\n"},
        "becomes a link": {**without, "deps/outer": Symlink("lib")},
        "becomes a directory": {**without, "deps/outer/inner/a.txt": "vendored\n"},
        "moves with the directory above it": {**moved, ".gitmodules": third},
        "has a file above it": {**moved, ".gitmodules": third, "deps": "a file\n"},
        "has a link above it": {**moved, ".gitmodules": third, "deps": Symlink("third")},
    }
    upstream.add_commit("some/thing", "main", trees[how])


def change_inner(upstream: Upstream, how: str) -> None:
    """Let the submodule `inner` of `deps/outer` go or move."""
    trees: dict[str, Tree] = {
        "drops": {".gitmodules": None, "inner": None},
        "moves": {".gitmodules": section("inner", "moved"), "inner": None, "moved": links(upstream)["inner"]},
        "becomes a file": {".gitmodules": None, "inner": "a file\n"},
        "becomes a link": {".gitmodules": None, "inner": Symlink("a.txt")},
        "becomes a directory": {".gitmodules": None, "inner": None, **{f"inner/{name}": FILES[name] for name in FILES}},
    }
    link = Gitlink(upstream.add_commit("some/outer", "main", trees[how]))
    upstream.add_commit("some/thing", "main", {"deps/outer": link})


def restore(upstream: Upstream) -> None:
    """Let everything be as it was at first, with the newest commits of the submodules."""
    inner = links(upstream)["inner"]
    outer: Tree = {"moved": None, "inner": inner, ".gitmodules": section("inner", "inner")}
    upstream.add_commit("some/outer", "main", outer)
    link = links(upstream)
    gone: Tree = dict.fromkeys(("deps", "third", "other"))
    modules = MODULES + section("outer", "deps/outer")
    tree: Tree = {**gone, ".gitmodules": modules, "deps/lib": link["lib"], "deps/outer": link["outer"]}
    upstream.add_commit("some/thing", "main", tree)
