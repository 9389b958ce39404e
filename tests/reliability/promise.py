"""A user, an upstream and updates act at random (hypothesis.stateful); everything that the user ever made must be kept.

Kept is what is in a file, in the index, in a commit that a ref leads to, or in a stash. A run is killed or interrupted
as it starts its n-th git command, or after some time; one that ends by itself ends with 0 or 5, and in the end the
commands that are suggested lead to 0.
"""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from invoke.config import Config
from invoke.context import Context

import tasks
import tasks.run
from tasks.settings import DEFAULTS
from tests.sources import IDENTITY
from tests.thing import MODULES, contents
from tests.upstream.store import Gitlink, Symlink, Tree, Upstream

NAMES = ("a.txt", "b.txt", "gone.txt", "kept.txt", "new.txt", "new.log", "folder/new.txt", "folder", "mine.txt",
         "mine.log", "deep/er/mine.txt", 'od"d\nname', "deps/new.txt", "x/y")  # fmt: skip
PLACES = ("thing", "thing/deps/lib", "linked")
ENDINGS = ("complete", "stopped", "killed", "interrupted", "killed later")
Ending = Literal["complete", "stopped", "killed", "interrupted", "killed later"]
GIT = """#!/bin/sh
printf x >>"$GIT_COUNT"
if [ "$(wc -c <"$GIT_COUNT")" -eq "$GIT_NUMBER" ]; then
    case $GIT_ENDING in
        stopped) kill -KILL $PPID; exit 1;;
        killed) kill -KILL $PPID;;
        interrupted) kill -INT $PPID;;
    esac
fi
exec "$GIT_REAL" "$@"
"""


class Child:
    """A task in a forked process and process group; Exit and KeyboardInterrupt end it as they end Invoke."""

    def __init__(self, directory: Path, environ: dict[str, str], call: Callable[[], object]) -> None:
        self.output, self._command = directory / "output", directory / "command"
        self.status, self.ended = -1, False
        self.pid = os.fork()
        if not self.pid:
            status = 1
            try:
                os.setsid()
                signal.signal(signal.SIGINT, signal.default_int_handler)
                file = os.open(self.output, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
                for descriptor in (1, 2):
                    os.dup2(file, descriptor)
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                faulthandler.register(signal.SIGUSR1, file=sys.stderr)
                os.environ.clear()
                os.environ.update(environ)
                self._command.write_text("")
                call()
                status = 0
            except tasks.run.Failed as error:
                status = error.result.exit_status
                errors = [*(row.error for row in error.result.outcomes), error.result.error]
                self._command.write_text(next((each.command for each in errors if each and each.command), ""))
            except KeyboardInterrupt:
                status = 130
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)

    @property
    def command(self) -> str:
        """The command that a failed run suggests."""
        return self._command.read_text()

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
    """A checkout of the upstream `some/thing`, and all contents that the user has made so far."""

    directory: Path
    environ: dict[str, str]
    made: set[bytes] = field(default_factory=set)
    count: int = 0

    @property
    def upstream(self) -> Upstream:
        return Upstream(self.directory / "upstream")

    @property
    def top(self) -> Path:
        return self.directory / "tmp/thing"

    def content(self) -> str:
        """A content like no other."""
        self.count += 1
        return f"made {self.count}\n"

    def git(self, place: Path, *arguments: str) -> str:
        """What git prints, for a user to whom nothing matters; nothing where it fails."""
        environ = {**self.environ, **IDENTITY, "GIT_EDITOR": "true"}
        run = subprocess.run(["git", *arguments], cwd=place, env=environ, capture_output=True, check=False)
        return os.fsdecode(run.stdout).strip() if not run.returncode else ""

    def start(self, task: str = "update", **environ: str) -> Child:
        """Start the task in a child of this process, which has imported everything already."""
        url = f"file://{self.upstream.path('some/thing')}"
        given = {"attempts": 1, "cache": str(self.directory / "cache"), "directory": str(self.directory / "tmp")}
        tree = {**DEFAULTS, **given, "repositories": {"thing": {"url": url, "branch": "main"}}}
        context = Context(Config(overrides={"sources": tree}, lazy=True))
        return Child(self.directory, {**self.environ, **environ}, lambda: getattr(tasks, task)(context, only=["thing"]))

    def lost(self) -> list[bytes]:
        """What was made and is kept nowhere."""
        return sorted(self.made - contents(self.directory / "tmp"))

    def forget(self) -> None:
        """What the user has destroyed by an action is no loss: only what is there after it counts."""
        self.made &= contents(self.directory / "tmp")


def _write(world: World, file: Path) -> None:
    text = world.content()
    with suppress(OSError):
        if not file.is_symlink() and not (file.is_dir() and not any(file.iterdir())):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            world.made.add(text.encode())


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
    world.git(place, "checkout", "-q", "-b", f"mine{world.count}")
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
    file, target = place / name, world.content()
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


def assume_unchanged(world: World, place: Path, name: str) -> None:
    world.git(place, "update-index", "--assume-unchanged", "--", name)
    _write(world, place / name)


def skip_worktree(world: World, place: Path, name: str) -> None:
    world.git(place, "update-index", "--skip-worktree", "--", name)
    _write(world, place / name)


def intend(world: World, place: Path, name: str) -> None:
    _write(world, place / name)
    world.git(place, "add", "-f", "-N", "--", name)


def sparse(world: World, place: Path, name: str) -> None:
    world.git(place, "sparse-checkout", "set", name.partition("/")[0])


def end_sparse(world: World, place: Path, name: str) -> None:
    world.git(place, "sparse-checkout", "disable")


def merge(world: World, place: Path, name: str) -> None:
    for branch in _branches(world, place)[-1:]:
        world.git(place, "merge", branch)


def prepare_merge(world: World, place: Path, name: str) -> None:
    for branch in _branches(world, place)[-1:]:
        world.git(place, "merge", "--no-commit", "--no-ff", branch)


def rebase(world: World, place: Path, name: str) -> None:
    for branch in _branches(world, place)[-1:]:
        world.git(place, "rebase", branch)


def _branches(world: World, place: Path) -> list[str]:
    """The branches, that of the last commit at the end."""
    return world.git(place, "for-each-ref", "--sort=committerdate", "--format=%(refname:short)", "refs/heads").split()


def link_worktree(world: World, place: Path, name: str) -> None:
    target = world.top.parent / "linked"
    if not target.exists():
        world.git(place, "worktree", "add", "-q", str(target), "main")


def link_detached_worktree(world: World, place: Path, name: str) -> None:
    target = world.top.parent / "linked"
    if not target.exists():
        world.git(place, "worktree", "add", "-q", "--detach", str(target))


def own_clone(world: World, place: Path, name: str) -> None:
    lib = world.top / "deps/lib"
    if (lib / ".git").is_file() and not world.git(lib, "status", "--porcelain", "--ignored"):
        index = world.git(lib, "ls-files", "-v")
        if all(line.startswith("H ") for line in index.splitlines()):
            shutil.rmtree(lib)
            world.git(world.top, "clone", "-q", f"file://{world.upstream.path('some/lib')}", str(lib))
            commit_on_a_branch(world, lib, name)


Action = Callable[[World, Path, str], None]
ACTIONS: tuple[Action, ...] = (
    edit, stage, stage_and_edit, stage_and_put_back, commit, commit_on_a_branch, back_to_main, detach, stash,
    to_folder, to_link, remove, remove_from_the_index, rename, chmod, assume_unchanged, skip_worktree, intend, sparse,
    end_sparse, merge, prepare_merge, rebase, link_worktree, link_detached_worktree, own_clone,
)  # fmt: skip


def change_files(world: World, name: str, other: str) -> None:
    files: Tree = {name: world.content() * 50, other: None}
    world.upstream.add_commit("some/thing", "main", {**files, **({"folder": None} if _is_file(world) else {})})


def swap_file_and_folder(world: World, name: str, other: str) -> None:
    text = world.content() * 50
    folder: Tree = {"folder": None, "folder/new.txt": text}
    file: Tree = {"folder/new.txt": None, "folder": text}
    world.upstream.add_commit("some/thing", "main", folder if _is_file(world) else file)


def _is_file(world: World) -> bool:
    path = world.upstream.path("some/thing")
    return world.git(path, "cat-file", "-t", "main:folder") == "blob"


def change_submodule(world: World, name: str, other: str) -> None:
    world.upstream.add_commit("some/lib", "main", {name: world.content() * 50})
    restore_submodule(world, name, other)


def restore_submodule(world: World, name: str, other: str) -> None:
    files: Tree = {"deps/lib/file": None, "deps/lib": None, "other/lib": None, ".gitmodules": MODULES}
    lib = Gitlink(world.upstream.commit("some/lib"))
    world.upstream.add_commit("some/thing", "main", {**files, "deps/lib": lib})


def replace_submodule(world: World, name: str, other: str) -> None:
    text = world.content()
    rooms: tuple[Tree, ...] = ({}, {"deps/lib": text}, {"deps/lib/file": text}, {"deps/lib": Symlink("../a.txt")})
    files: Tree = {"deps/lib": None, "other/lib": None, ".gitmodules": None, **rooms[len(name) % 4]}
    world.upstream.add_commit("some/thing", "main", files)


def move_submodule(world: World, name: str, other: str) -> None:
    modules = MODULES.replace("deps/lib", "other/lib").replace('"lib"', ('"lib"', '"renamed"')[len(name) % 2])
    lib = Gitlink(world.upstream.commit("some/lib"))
    files: Tree = {"deps/lib": None, "other/lib": lib, ".gitmodules": modules}
    world.upstream.add_commit("some/thing", "main", files)


def move_tag(world: World, name: str, other: str) -> None:
    world.upstream.move_tag("some/thing", ("v1.0", "v1.1")[len(name) % 2])


def force_push(world: World, name: str, other: str) -> None:
    world.upstream.force_push("some/thing", "main", {"a.txt": world.content() * 50})


Move = Callable[[World, str, str], None]
MOVES: tuple[Move, ...] = (
    change_files, swap_file_and_folder, change_submodule, restore_submodule, replace_submodule, move_submodule,
    move_tag, force_push,
)  # fmt: skip
CHANGED = st.sampled_from(NAMES[:7])
ACT = st.tuples(st.just("act"), st.sampled_from(ACTIONS), st.sampled_from(PLACES), st.sampled_from(NAMES))
MOVE = st.tuples(st.just("move_upstream"), st.sampled_from(MOVES), CHANGED, CHANGED)
UPDATE = st.tuples(st.just("update"), st.sampled_from(ENDINGS), st.integers(1, 60))


class Promise(RuleBasedStateMachine):
    """Sequences of a user's actions, of upstream's moves and of updates, from a copy of the world at `template`."""

    template: Path
    environ: dict[str, str]

    @initialize()
    def copy(self) -> None:
        self.directory = tempfile.TemporaryDirectory(dir=self.template.parent)
        self.world = World(Path(self.directory.name, "world"), self.environ)
        subprocess.run(["cp", "-a", self.template, self.world.directory], check=True)
        for path, name in (("thing", "some/thing"), ("thing/deps/lib", "some/lib")):
            url = f"file://{self.world.upstream.path(name)}"
            self.world.git(self.world.directory / "tmp" / path, "remote", "set-url", "origin", url)

    @rule(step=st.one_of(ACT, ACT, MOVE, UPDATE))  # three rules would mostly come one without the others
    def step(self, step: tuple[Any, ...]) -> None:
        getattr(self, step[0])(*step[1:])

    def act(self, action: Action, place: str, name: str) -> None:
        if (self.world.directory / "tmp" / place / ".git").exists():
            with suppress(OSError):
                action(self.world, self.world.directory / "tmp" / place, name)
            self.world.forget()

    def move_upstream(self, move: Move, name: str, other: str) -> None:
        move(self.world, name, other)

    def update(self, ending: Ending, number: int) -> None:
        world, count = self.world, self.world.directory / "count"
        count.write_text("")
        child = world.start(GIT_NUMBER=str(number), GIT_ENDING=ending, GIT_COUNT=str(count))
        if ending == "killed later" and not child.wait(number / 100):
            for group in _groups(child.pid):
                with suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
        self._check(child, (0, 5) if ending == "complete" else (0, 5, 130, -9))

    def teardown(self) -> None:
        """Let the suggested commands lead to the commit that the remote has."""
        if not hasattr(self, "world"):
            return
        try:
            for _ in range(30):
                child = self.world.start()
                if not self._check(child, (0, 5)):
                    break
                self._resolve(child.command)
            else:
                raise AssertionError("the suggestions do not end")
        finally:
            self.directory.cleanup()

    def _check(self, child: Child, allowed: tuple[int, ...]) -> int:
        ended = child.wait(120)
        if not ended:
            os.killpg(child.pid, signal.SIGUSR1)  # faulthandler shows where it hangs
            child.wait(10)
        output = child.output.read_text(errors="replace")
        note(f"# status {child.status}\n{output[-3000:]}")
        assert ended, f"it does not end\n{output[-6000:]}"
        assert "Traceback" not in output, output
        assert not (lost := self.world.lost()), f"lost {lost[:3]}\n{output[-2500:]}"
        assert child.status in allowed, f"status {child.status}\n{output}"
        return child.status

    def _resolve(self, command: str) -> None:
        note(f"$ {command}")
        assert command, "no command"
        if command == "invoke clone":
            self._check(self.world.start("clone"), (0,))
        elif not command.startswith("invoke "):
            done = subprocess.run(
                ["sh", "-c", command.replace("rm -i", "rm")], cwd=self.world.directory, text=True, check=False,
                env={**self.world.environ, **IDENTITY}, capture_output=True,
            )  # fmt: skip
            assert not done.returncode, f"{command}\n{done.stderr}"
            assert not (lost := self.world.lost()), f"{command} lost {lost[:3]}"


def _groups(pid: int) -> list[int]:
    """The process groups of the process and its children: each git has one of its own."""
    groups = [pid]
    with suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(ProcessLookupError):
                groups.append(os.getpgid(child.pid))
    return list(dict.fromkeys(groups))


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
    child = World(directory, environ).start("clone")
    assert child.wait(120) and child.status == 0, child.output.read_text()
    return directory
