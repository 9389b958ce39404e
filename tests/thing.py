"""A small repository with a submodule, what a user does in it, and all that must not get lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.sources import IDENTITY, Result, Sources, commits, url
from tests.upstream.store import File, Gitlink, Upstream

PRECIOUS = "precious"
TOP, LIB = "thing", "thing/deps/lib"
MODULES = '[submodule "lib"]\n\tpath = deps/lib\n\turl = ../lib.git\n'
FILES = {"a.txt": "a\n" * 9, "b.txt": "b\n", "gone.txt": "gone\n", "kept.txt": "kept\n", ".gitignore": "*.log\n"}
NEW = {
    "a.txt": "new\n" * 9,
    "gone.txt": None,
    "new.txt": "new\n",
    "folder/new.txt": "new\n",
    "new.log": "new\n",
}


UNDER_WAY: dict[str, tuple[str, ...]] = {
    "MERGE_HEAD": ("merge", "--abort"),
    "rebase-merge": ("rebase", "--abort"),
    "CHERRY_PICK_HEAD": ("cherry-pick", "--abort"),
    "BISECT_LOG": ("bisect", "reset"),
}


def section(name: str, path: str, repository: str = "") -> str:
    """A section of .gitmodules."""
    return f'[submodule "{name}"]\n\tpath = {path}\n\turl = ../{repository or name}.git\n'


def contents(checkout: Path) -> set[bytes]:
    """Every content that is kept in a checkout and the repositories below it: in a file, an index, a commit that a ref
    leads to, a stash, or an object that a ref names."""
    files = {file for file in checkout.rglob("*") if ".git" not in file.relative_to(checkout).parts}
    found = {os.fsencode(file.readlink()) if file.is_symlink() else file.read_bytes()
             for file in files if file.is_symlink() or file.is_file()}  # fmt: skip
    heads = [*checkout.rglob("HEAD")]
    for repository in {head.parent for head in heads if (head.parent / "objects").is_dir()}:
        found |= _objects(repository)
    return found


def _objects(git_dir: Path) -> set[bytes]:
    def git(*arguments: str, stdin: str = "") -> bytes:
        command = ["git", f"--git-dir={git_dir}", f"--work-tree={git_dir}", *arguments]
        return subprocess.run(command, input=stdin.encode(), capture_output=True, check=False).stdout

    here = set(git("cat-file", "--batch-all-objects", "--batch-check=%(objectname)").decode().split())
    tips = [*git("stash", "list", "--format=%H").split(), *git("rev-parse", "-q", "--verify", "HEAD").split()]
    options = ("--objects", "--all", "--indexed-objects", "--missing=allow-any", "--no-object-names")
    wanted = here.intersection(git("rev-list", *options, *map(os.fsdecode, tips)).decode().split())
    output, found = git("cat-file", "--batch", stdin="".join(f"{oid}\n" for oid in wanted)), set()
    while output:
        head, _, output = output.partition(b"\n")
        size = int(head.split()[2])
        found |= {output[:size]} if head.split()[1] == b"blob" else set()
        output = output[size + 1 :]
    return found


@dataclass
class User:
    """Somebody who works in the checkout at `place`; `text` returns what is written next."""

    place: Path
    text: Callable[[], str]
    environ: Mapping[str, str]

    def git(self, *arguments: str) -> str:
        """What git prints; nothing where it fails."""
        environ = {**self.environ, **IDENTITY, "GIT_EDITOR": "true"}
        run = subprocess.run(["git", *arguments], cwd=self.place, env=environ, capture_output=True, check=False)
        return os.fsdecode(run.stdout).strip() if not run.returncode else ""

    def run(self, script: str, name: str, *texts: str) -> None:
        """Run a shell script in the checkout, whose $f is `name` and whose $1 and so on are `texts`; it may fail."""
        environ = {**self.environ, **IDENTITY, "GIT_EDITOR": "true", "f": name}
        command = ["sh", "-c", script, "sh", *texts]
        subprocess.run(command, cwd=self.place, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False)

    def put_away(self, away: Path) -> None:
        """What a user does about work that is in the way: end what is under way, move repositories of his own away,
        stash, move away what cannot be stashed, give commits a branch and main its place."""
        git_dir = Path(self.git("rev-parse", "--absolute-git-dir"))
        self._branch("HEAD")  # which the end of a bisection leaves
        for file, command in UNDER_WAY.items():
            if (git_dir / file).exists():
                self.git(*command)
        for own in [*self.place.glob("**/.git")]:
            if own.is_dir() and own.parent != self.place:
                self._move(own.parent, away)
        for entry in self.git("ls-files", "-v", "-z").split("\0"):
            if entry[:1] not in ("H", "") and os.path.lexists(self.place / entry[2:]):
                for option in ("--no-skip-worktree", "--no-assume-unchanged"):
                    self.git("update-index", option, entry[2:])
        stash = ("stash", "-q", "--all")  # which fails where a file is only intended to be added
        for command in (stash, ("commit", "-q", "-m", "Staged"), ("reset", "-q"), stash):
            self.git(*command)
        for name in self.git("ls-files", "--others", "--directory", "-z").split("\0"):
            if name:
                self._move(self.place / name.rstrip("/"), away)
        for commit in ("HEAD", "refs/heads/main"):
            self._branch(commit)
        if self.git("branch", "--show-current") == "main":
            self.git("reset", "-q", "--hard", "origin/main")

    def _branch(self, commit: str) -> None:
        self.git("branch", f"put-away-{len(self.git('branch').splitlines())}", commit)

    def _move(self, path: Path, away: Path) -> None:
        if os.path.lexists(path):
            away.mkdir(exist_ok=True)
            path.rename(away / f"{len([*away.iterdir()])}")


class Thing:
    """A small repository with a submodule, cloned; and what a user does in one of the two."""

    def __init__(self, sources: Sources, upstream: Upstream) -> None:
        self.sources, self.upstream = sources, upstream
        sources.repositories = {"thing": {"url": url("some/thing"), "branch": "main"}}

    @property
    def top(self) -> Path:
        """The checkout."""
        return self.sources.path / "thing"

    def make(self) -> None:
        """Make the upstreams and clone them."""
        self.upstream.add_commit("some/lib", "main", FILES)
        lib = self.upstream.add_commit("some/lib", "main", {"b.txt": "2\n"})
        self.upstream.add_commit("some/thing", "main", FILES)
        self.upstream.add_commit("some/thing", "main", {".gitmodules": MODULES, "deps/lib": Gitlink(lib)})
        self.upstream.move_tag("some/thing", "v1.0")
        self.sources("clone")

    def move_on(self) -> str:
        """Both upstreams have new commits, which change, add and delete files. Returns the repository's new commit."""
        lib = self.upstream.add_commit("some/lib", "main", NEW)
        return self.upstream.add_commit("some/thing", "main", {**NEW, "deps/lib": Gitlink(lib)})

    def write(self, place: str, name: str, text: str = f"{PRECIOUS}\n") -> None:
        """Write a file, with the directories above it."""
        file = self.sources.path / place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def git(self, place: str, *arguments: str, check: bool = True) -> str:
        """What git prints in a checkout."""
        return self.sources.git(place, *arguments, check=check)

    def commit(self, place: str, name: str = "mine.txt") -> str:
        """Commit a file as the user would."""
        return self.sources.commit(place, name, f"{PRECIOUS}\n")

    def has(self, text: str = PRECIOUS) -> bool:
        """Whether a content with this text is kept, in or beside the checkout."""
        return any(text.encode() in content for content in contents(self.sources.path))

    def own(self, place: str, *revisions: str) -> set[str]:
        """The commits that a ref of the repository (or `revisions` alone) leads to and that are not upstream's."""
        upstreams = (self.upstream.path(name) for name in ("some/thing", "some/lib"))
        found = commits(self.sources.path / place, *revisions)
        return found.difference(*(commits(path, "--all") for path in upstreams))

    def git_dir(self, place: str) -> Path:
        """The repository of a checkout."""
        return Path(self.git(place, "rev-parse", "--absolute-git-dir"))

    def nest(self) -> None:
        """Make the upstreams of a submodule `deps/outer` with a submodule `inner`, and update to them."""
        inner = self.upstream.add_commit("some/inner", "main", FILES)
        outer: dict[str, File | None] = {**FILES, ".gitmodules": section("inner", "inner"), "inner": Gitlink(inner)}
        link = Gitlink(self.upstream.add_commit("some/outer", "main", outer))
        modules = MODULES + section("outer", "deps/outer")
        self.upstream.add_commit("some/thing", "main", {".gitmodules": modules, "deps/outer": link})
        self.sources("update")

    def put_away(self, place: str) -> None:
        """What a user does about work that is in the way: see `User.put_away`."""
        User(self.sources.path / place, str, os.environ).put_away(self.sources.path / "away")

    def kill_a_switch(self, place: str, at: str) -> Result:
        """Let upstream move on, and git be killed while an update writes the file `at` of the checkout at `place`."""
        self.move_on()
        attributes = self.git_dir(place) / "info/attributes"
        attributes.parent.mkdir(exist_ok=True)
        attributes.write_text(f"{at} filter=stop\n")
        self.git(place, "config", "filter.stop.smudge", "head -c 2; kill -KILL 0")  # git's own process group
        result = self.sources("update", check=None)
        self.git(place, "config", "--remove-section", "filter.stop")
        attributes.unlink()
        assert result.status
        assert (self.sources.path / place / "a.txt").read_text() == NEW["a.txt"], "it did not begin"
        return result

    def interrupt(self, place: str = TOP, at: str = "new.txt") -> str:
        """Let upstream move on and a switch be interrupted as by Ctrl-C. Returns the commit that it led to."""
        self.kill_a_switch(place, at)
        (self.git_dir(place) / "index.lock").unlink()  # which git itself removes after Ctrl-C
        return self.upstream.commit("some/thing")


def _made_once(name: str, thing: Thing, make: Callable[[], None], base: Path) -> Thing:
    """Make the repository and its upstreams once for each worker, then copy them."""
    made = base / name
    if made.exists():
        shutil.rmtree(thing.upstream.root / "some", ignore_errors=True)
        shutil.rmtree(thing.sources.path, ignore_errors=True)
        shutil.copytree(made / "some", thing.upstream.root / "some")
        subprocess.run(["cp", "-a", made / "tmp", thing.sources.path], check=True)  # with times to the nanosecond
    else:
        make()
        shutil.copytree(thing.upstream.root / "some", made / "some")
        subprocess.run(["cp", "-a", thing.sources.path, made / "tmp"], check=True)
    return thing


@pytest.fixture
def thing(sources: Sources, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Thing:
    """The small repository, cloned."""
    thing = Thing(sources, upstream)
    return _made_once("thing", thing, thing.make, tmp_path_factory.getbasetemp())


@pytest.fixture
def nested(thing: Thing, tmp_path_factory: pytest.TempPathFactory) -> Thing:
    """The small repository with a submodule more, `deps/outer`, which has the submodule `inner`."""
    return _made_once("nested", thing, thing.nest, tmp_path_factory.getbasetemp())
