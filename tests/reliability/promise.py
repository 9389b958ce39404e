"""A user, an upstream and updates act at random; everything that the user ever made must be kept all the way."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from invoke.config import Config
from invoke.context import Context
from invoke.exceptions import Exit

import tasks
import tasks.run
from tasks.config.defaults import DEFAULTS
from tests.sources import IDENTITY
from tests.thing import MODULES, contents
from tests.upstream.store import Gitlink, Symlink, Tree, Upstream

NAMES = ("a.txt", "b.txt", "gone.txt", "kept.txt", "new.txt", "new.log", "folder/new.txt", "folder", "mine.txt",
         "mine.log", "deep/er/mine.txt", 'od"d\nname', "deps/new.txt", "x/y")  # fmt: skip
PLACES = ("", "deps/lib", "linked")


class Child:
    """A function in a forked process and process group; Exit and KeyboardInterrupt end it as they end Invoke."""

    def __init__(self, output: Path, environ: dict[str, str], call: Callable[[], object]) -> None:
        self.output, self.status, self.ended = output, -1, False
        self.pid = os.fork()
        if not self.pid:
            status = 1
            try:
                os.setsid()
                signal.signal(signal.SIGINT, signal.default_int_handler)
                file = os.open(output, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
                for descriptor in (1, 2):
                    os.dup2(file, descriptor)
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                os.environ.clear()
                os.environ.update(environ)
                call()
                status = 0
            except Exit as error:
                sys.stderr.write(f"{error}\n")
                status = error.code or 0
            except KeyboardInterrupt:
                status = 130
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within that time; its `status` is known then."""
        limit = time.monotonic() + seconds
        while not self.ended:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status, self.ended = os.waitstatus_to_exitcode(status), True
            elif time.monotonic() > limit:
                break
            else:
                time.sleep(0.003)
        return self.ended


@dataclass
class World:
    """A checkout `top` of the upstream `some/thing`, and all contents that the user has made so far."""

    directory: Path
    upstream: Upstream
    random: random.Random
    environ: dict[str, str]
    made: set[bytes] = field(default_factory=set)
    log: list[str] = field(default_factory=list)
    branch: str = "main"
    ref: str = "main"

    @property
    def top(self) -> Path:
        return self.directory / "tmp/thing"

    def git(self, place: Path, *arguments: str) -> str:
        """What git prints, for a user to whom nothing matters; nothing where it fails."""
        environ = {**self.environ, **IDENTITY, "GIT_EDITOR": "true"}
        run = subprocess.run(["git", *arguments], cwd=place, env=environ, capture_output=True, check=False)
        return os.fsdecode(run.stdout).strip() if not run.returncode else ""

    def start(self, task: str = "update") -> Child:
        """Start the task in a child of this process, which has imported everything already."""
        url = f"file://{self.upstream.path('some/thing')}"
        given = {"attempts": 1, "cache": str(self.directory / "cache"), "directory": str(self.directory / "tmp")}
        tree = {**DEFAULTS, **given, "repositories": {"thing": {"url": url, "branch": self.ref}}}
        return Child(self.directory / "output", self.environ, lambda: getattr(tasks, task)(
            Context(Config(overrides={"sources": tree}, lazy=True)), only=["thing"]))  # fmt: skip

    def lost(self) -> list[bytes]:
        """What was made and is kept nowhere."""
        return sorted(self.made - contents(self.directory / "tmp"))


def content(world: World) -> str:
    """A content like no other, recorded as soon as it is written."""
    return f"made {len(world.made)} {world.random.random()}\n"


def _write(world: World, file: Path) -> None:
    text = content(world)
    try:
        if file.is_symlink() or (file.is_dir() and not any(file.iterdir())):
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    except OSError:
        return
    world.made.add(text.encode())


def _forget(world: World) -> None:
    """What the user has destroyed by an action is no loss: only what is there after it counts."""
    world.made &= contents(world.directory / "tmp")


def edit(world: World, place: Path, name: str) -> None:
    _write(world, place / name)


def stage(world: World, place: Path, name: str) -> None:
    _write(world, place / name)
    world.git(place, "add", "-f", "--", name)


def stage_and_edit(world: World, place: Path, name: str) -> None:
    stage(world, place, name)
    _write(world, place / name)


def stage_and_put_back(world: World, place: Path, name: str) -> None:
    stage(world, place, name)
    if world.git(place, "cat-file", "-t", f"HEAD:{name}"):
        (place / name).write_bytes(world.git(place, "show", f"HEAD:{name}").encode() + b"\n")


def commit(world: World, place: Path, name: str) -> None:
    stage(world, place, name)
    world.git(place, "commit", "-q", "-m", "Mine")


def commit_on_a_branch(world: World, place: Path, name: str) -> None:
    world.git(place, "checkout", "-q", "-b", f"mine{len(world.made)}")
    commit(world, place, name)


def back_to_main(world: World, place: Path, name: str) -> None:
    world.git(place, "checkout", "-q", "main")


def detach(world: World, place: Path, name: str) -> None:
    world.git(place, "checkout", "-q", "--detach")


def stash(world: World, place: Path, name: str) -> None:
    _write(world, place / name)
    if not any(file.is_dir() for file in (place / line[3:] for line in
               world.git(place, "status", "--porcelain").splitlines())):  # fmt: skip
        world.git(place, "stash")


def to_folder(world: World, place: Path, name: str) -> None:
    file = place / name
    if file.is_file() and not file.is_symlink():
        file.unlink()
    _write(world, file / "inner.txt")


def to_link(world: World, place: Path, name: str) -> None:
    file, target = place / name, content(world)
    if file.is_file() or file.is_symlink():
        file.unlink()
        file.symlink_to(target)
        world.made.add(target.encode())


def remove(world: World, place: Path, name: str) -> None:
    if (place / name).is_file():
        (place / name).unlink()


def remove_from_the_index(world: World, place: Path, name: str) -> None:
    world.git(place, "rm", "-q", "--cached", "--", name)


def rename(world: World, place: Path, name: str) -> None:
    world.git(place, "mv", "--", name, f"{name}2")


def chmod(world: World, place: Path, name: str) -> None:
    if (place / name).is_file() and not (place / name).is_symlink():
        (place / name).chmod(0o755)


def hide(world: World, place: Path, name: str) -> None:
    world.git(place, "update-index", world.random.choice(("--assume-unchanged", "--skip-worktree")), "--", name)
    _write(world, place / name)


def intend(world: World, place: Path, name: str) -> None:
    _write(world, place / name)
    world.git(place, "add", "-f", "-N", "--", name)


def sparse(world: World, place: Path, name: str) -> None:
    world.git(place, "sparse-checkout", *world.random.choice((["set", "folder"], ["disable"], ["set", "deep"])))


def merge(world: World, place: Path, name: str) -> None:
    branches = world.git(place, "for-each-ref", "--format=%(refname:short)", "refs/heads").split()
    if branches:
        world.git(place, "merge", *world.random.choice((["--no-commit", "--no-ff"], [])), world.random.choice(branches))


def rebase(world: World, place: Path, name: str) -> None:
    branches = world.git(place, "for-each-ref", "--format=%(refname:short)", "refs/heads").split()
    if branches:
        world.git(place, "rebase", world.random.choice(branches))


def link_worktree(world: World, place: Path, name: str) -> None:
    target = world.top.parent / "linked"
    if not target.exists():
        world.git(place, "worktree", "add", "-q", str(target), world.random.choice(("main", "HEAD")))


def own_clone(world: World, place: Path, name: str) -> None:
    lib = world.top / "deps/lib"
    if (lib / ".git").is_file() and not world.git(lib, "status", "--porcelain", "--ignored"):
        index = world.git(lib, "ls-files", "-v")
        if all(line.startswith("H ") for line in index.splitlines()):
            shutil.rmtree(lib)
            world.git(world.top, "clone", "-q", f"file://{world.upstream.path('some/lib')}", str(lib))
            commit_on_a_branch(world, lib, name)


ACTIONS: tuple[Callable[[World, Path, str], None], ...] = (
    edit, stage, stage_and_edit, stage_and_put_back, commit, commit_on_a_branch, back_to_main, detach, stash,
    to_folder, to_link, remove, remove_from_the_index, rename, chmod, hide, intend, sparse, merge, rebase,
    link_worktree, own_clone,
)  # fmt: skip


def act(world: World) -> None:
    """One action of the user's."""
    places = [place for place in (world.top, world.top / "deps/lib", world.top.parent / "linked")
              if (place / ".git").exists()]  # fmt: skip
    if not places:
        return
    action, place = world.random.choice(ACTIONS), world.random.choice(places)
    name = world.random.choice(NAMES)
    world.log.append(f"{action.__name__} {place.name} {name!r}")
    try:
        action(world, place, name)
    except OSError as error:
        world.log[-1] += f" ({error.strerror})"
    _forget(world)


def move_upstream(world: World) -> None:
    """One move of upstream's."""
    pick, thing = world.random, "some/thing"
    lib = world.upstream.commit("some/lib")
    kind = pick.choice(("files", "files", "lib", "lib", "tree", "force", "tag", "remove", "restore", "move"))
    world.log.append(f"upstream: {kind}")
    number = f"{pick.random()}\n" * 50
    files: Tree = {}
    if kind == "files":
        changes = pick.sample(NAMES[:7], 3)
        files = {name: pick.choice((number, None)) for name in changes}
        if "folder" in _tree(world):
            files = {**files, "folder": None}
    elif kind == "tree":
        as_file = "folder" in _tree(world)
        files = {"folder": None, "folder/new.txt": number} if as_file else {"folder/new.txt": None, "folder": number}
    elif kind == "lib":
        lib = world.upstream.add_commit("some/lib", "main", {pick.choice(NAMES[:5]): number})
        files = {"deps/lib": Gitlink(lib), ".gitmodules": MODULES, "deps/lib/file": None}
    elif kind == "remove":
        link = Symlink("../a.txt")
        room: tuple[Tree, ...] = ({}, {"deps/lib": number}, {"deps/lib/file": number}, {"deps/lib": link})
        files = {"deps/lib": None, "other/lib": None, ".gitmodules": None, **pick.choice(room)}
    elif kind == "restore":
        files = {"deps/lib": None, "other/lib": None, ".gitmodules": MODULES}
        files = {"deps/lib/file": None, **files, "deps/lib": Gitlink(lib)}
    elif kind == "move":
        modules = MODULES.replace("deps/lib", "other/lib").replace('"lib"', pick.choice(('"lib"', '"renamed"')))
        files = {"deps/lib": None, "other/lib": Gitlink(lib), ".gitmodules": modules}
    elif kind == "tag":
        world.upstream.move_tag(thing, pick.choice(("v1.0", "v1.1")))
        return
    if kind == "force":
        world.upstream.force_push(thing, "main", {"a.txt": number})
    else:
        world.upstream.add_commit(thing, "main", files)


def _tree(world: World) -> set[str]:
    from tests.upstream.store import git

    names = git(world.upstream.path("some/thing"), "ls-tree", "-r", "--name-only", "main").splitlines()
    return {name for name in names if name == "folder"}


def update(world: World, resolve: bool = False) -> None:
    """One run, which may be killed or interrupted; AssertionError where it loses something or ends in an odd way."""
    way = "complete" if resolve else world.random.choice(("complete", "complete", "kill", "kill", "interrupt"))
    began, child = time.monotonic(), world.start()
    if way != "complete" and not child.wait(world.random.uniform(0, 0.5)):
        for group in _groups(child.pid) if way == "kill" else [child.pid]:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL if way == "kill" else signal.SIGINT)
    assert child.wait(120), "it does not end"
    err = child.output.read_text(errors="replace")
    world.log.append(f"update: {way} after {time.monotonic() - began:.2f} s, status {child.status}")
    assert "Traceback" not in err, f"{err}\n{world.log}"
    lost = world.lost()
    assert not lost, f"lost {lost[:3]}\n{err[-2500:]}\n" + "\n".join(world.log)
    allowed = (0, 5) if way == "complete" else (0, 5, 130, -9)
    assert child.status in allowed, f"status {child.status}\n{err}\n" + "\n".join(world.log)
    if resolve and child.status:
        found = re.findall(r"^  ((?:git|mv|invoke|rm) .*)$", err, re.M)
        assert found, f"no command\n{err}\n" + "\n".join(world.log)
        world.log.append(f"suggested: {found[0]}")
        if found[0].startswith("invoke clone"):
            world.start("clone").wait(120)
        elif not found[0].startswith("invoke"):
            command = found[0].replace("rm -i", "rm")
            done = subprocess.run(["sh", "-c", command], cwd=world.directory, env={**world.environ, **IDENTITY},
                                  capture_output=True, text=True, check=False)  # fmt: skip
            assert not done.returncode, f"{found[0]}\n{done.stderr}\n" + "\n".join(world.log)
            lost = world.lost()
            assert not lost, f"{found[0]} lost {lost[:3]}\n" + "\n".join(world.log)
        return update(world, resolve=len(world.log) < 400)
    return None


def _groups(pid: int) -> list[int]:
    """The process groups of the process and its children: each git has one of its own."""
    groups = [pid]
    with suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(ProcessLookupError):
                groups.append(os.getpgid(child.pid))
    return list(dict.fromkeys(groups))


def play(directory: Path, template: Path, seed: int, environ: dict[str, str], steps: int = 12) -> list[str]:
    """One sequence, from a copy of the `template`; the same seed acts in the same way, but for the moments of kills.
    Returns what was done. Raises AssertionError where a content is lost or the end is not reached."""
    subprocess.run(["cp", "-a", template, directory], check=True)
    world = World(directory, Upstream(directory / "upstream"), random.Random(seed), environ)
    url = f"file://{world.upstream.path('some/thing')}"
    world.git(world.top, "remote", "set-url", "origin", url)
    lib = f"file://{world.upstream.path('some/lib')}"
    world.git(world.top / "deps/lib", "remote", "set-url", "origin", lib)
    for _ in range(steps):
        step = world.random.choices((act, move_upstream, update), (6, 3, 3))[0]
        step(world)
    if world.random.random() < 0.7:
        world.upstream.add_commit("some/thing", "main", {"a.txt": f"{world.random.random()}\n"})
    for _ in range(25):
        before = len(world.log)
        update(world, resolve=True)
        if "status 0" in world.log[-1]:
            break
        assert len(world.log) > before
    assert "status 0" in world.log[-1], "not resolved\n" + "\n".join(world.log)
    return world.log


def make_template(directory: Path, environ: dict[str, str]) -> Path:
    """The upstreams and a clone of them."""
    from tests.thing import FILES

    upstream = Upstream(directory / "upstream")
    upstream.add_commit("some/lib", "main", FILES)
    lib = upstream.add_commit("some/lib", "main", {"b.txt": "2\n"})
    upstream.add_commit("some/thing", "main", FILES)
    upstream.add_commit("some/thing", "main", {".gitmodules": MODULES, "deps/lib": Gitlink(lib)})
    for name in ("some/lib", "some/thing"):
        for key in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
            subprocess.run(["git", "config", key, "true"], cwd=upstream.path(name), check=True)
    world = World(directory, upstream, random.Random(0), environ)
    child = world.start("clone")
    assert child.wait(120) and child.status == 0, child.output.read_text()
    return directory
