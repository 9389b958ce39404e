"""What users do in a checkout and upstream does to its repositories: one list, for tests of local work and for random
sequences. An action that cannot be done there does nothing."""

from __future__ import annotations

import itertools
import os

from tests.thing import FILES, MODULES, PRECIOUS, Thing, User, section
from tests.upstream.store import Gitlink, Symlink, Tree, Upstream

NAMES = ("a.txt", "b.txt", "gone.txt", "kept.txt", "new.txt", "new.log", "folder/new.txt", "folder", "mine.txt",
         "mine.log", "deep/er/mine.txt", 'od"d\nname', "deps/new.txt", "x/y")  # fmt: skip

# Shell scripts that run in the checkout: $f is the name of a file, $1 to $3 are contents like no others.
ACTIONS = {
    "edit": 'write "$f" "$1"',
    "stage": 'write "$f" "$1"; git add -f -- "$f"',
    "stage and put back": 'write "$f" "$1"; git add -f -- "$f"; git cat-file -e "HEAD:$f" && git show "HEAD:$f" >"$f"',
    "stage and remove": 'write "$f" "$1"; git add -f -- "$f"; rm -- "$f"',
    "intend": 'write "$f" "$1"; git add -f -N -- "$f"',
    "commit": 'commit "$f" "$1"',
    "commit on a branch": 'git checkout -q -b "mine$(git branch | wc -l)"; commit "$f" "$1"',
    "back to main": "git checkout -q main",
    "detach": "git checkout -q --detach",
    "step back": "git checkout -q --detach HEAD~1",
    "tag": "git tag -f mine",
    "stash": 'write "$f" "$1"; [ -d "$f" ] || git stash',
    "to a directory": 'file "$f" && rm -- "$f"; write "$f/inner.txt" "$1"',
    "to a link": 'if file "$f" || [ -L "$f" ]; then ln -sfn -- "$1" "$f"; fi',
    "to a repository": 'file "$f" && rm -- "$f"; write "$f/inner.txt" "$1"; cd -- "$f" && git init -q && '
                       'commit inner.txt "$2" && commit inner.txt "$3"',
    "remove": 'file "$f" && rm -- "$f"',
    "touch": 'file "$f" && touch -d @1 -- "$f"',
    "assume unchanged": 'git update-index --assume-unchanged -- "$f"; write "$f" "$1"',
    "skip worktree": 'git update-index --skip-worktree -- "$f"; write "$f" "$1"',
    "sparse": 'git sparse-checkout set "${f%%/*}"',
    "merge": "git merge $(another)",
    "rebase": "git rebase $(another)",
    "cherry-pick": "git cherry-pick $(another)",
    "bisect": "git bisect start",
    "link a worktree": "git worktree add -q ../linked main",
    "link a detached worktree": "git worktree add -q --detach ../linked",
    # In place of a submodule without work: its work is in no repository of ours.
    "own clone": '[ -f .git ] && [ -z "$(git status --porcelain --ignored)$(git ls-files -v | grep -v "^H ")" ] && '
                 'here=$PWD url=$(git config remote.origin.url) && cd .. && rm -rf "$here" && '
                 'git clone -q "$url" "$here" && cd "$here" && git checkout -q -b mine && commit "$f" "$1"',
}  # fmt: skip
FUNCTIONS = r"""
file() { [ -f "$1" ] && [ ! -L "$1" ]; }
write() { [ -L "$1" ] || [ -d "$1" ] || { mkdir -p -- "$(dirname -- "$1")" && printf %s "$2" >"$1"; }; }
commit() { write "$1" "$2"; git add -f -- "$1"; git commit -q -m Mine; }
another() {
    git for-each-ref --format='%(objectname) %(refname:short)' refs/heads | grep -v "^$(git rev-parse HEAD)" |
    sed -n '$s/.* //p'
}
"""


def perform(user: User, action: str, name: str) -> None:
    """Let the user act on the file."""
    user.run(FUNCTIONS + ACTIONS[action], name, *(user.text() for _ in range(3)))


Acts = tuple[tuple[str, str], ...]  # actions and names


def act(thing: Thing, place: str, acts: Acts) -> None:
    """Let the user of the checkout at `place` act, with contents that are all different."""
    count = itertools.count()
    user = User(thing.sources.path / place, lambda: f"{PRECIOUS} {next(count)}\n", os.environ)
    for action, name in acts:
        perform(user, action, name)


def names(given: object) -> str | None:
    """The id of acts in the name of a test."""
    return ",".join(map(" ".join, given)).replace("/", "|") if isinstance(given, tuple) else None


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
