"""A user, an upstream and updates act at random (hypothesis.stateful); everything that the user ever made must be kept.

Kept is what is in a file, in the index, in a commit that a ref leads to, or in a stash. Some begin
without a checkout. A run is killed or interrupted as it starts its n-th git command, or after some time; one that ends
by itself ends with 0 or 5, and with 0 once the user has put his work away.
"""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, Literal

import psutil
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from invoke.config import Config
from invoke.context import Context
from invoke.exceptions import Exit

import tasks
from tasks.settings import DEFAULTS
from tests.reliability import actions
from tests.reliability.actions import INNER, NAMES, OUTER
from tests.thing import FILES, User, contents, section
from tests.upstream.store import Gitlink, Tree, Upstream

REPOSITORIES = {"thing": "some/thing", "thing/deps/lib": "some/lib", "thing/deps/outer": "some/outer",
                "thing/deps/outer/inner": "some/inner"}  # fmt: skip
PLACES = ("thing", "thing", "thing/deps/lib", "thing/deps/outer", "thing/deps/outer/inner", "linked")
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


def run(task: str, context: Context, environ: Mapping[str, str], output: Path) -> None:
    """Run a task in a child of this process, which has imported everything already; it ends as Invoke does."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout = sys.stderr = output.open("w", buffering=1)
    faulthandler.register(signal.SIGUSR1, file=sys.stderr)
    os.environ.clear()
    os.environ.update(environ)
    try:
        getattr(tasks, task)(context, only=["thing"])
    except Exit as exit:
        sys.exit(exit.code or 0)
    except KeyboardInterrupt:
        sys.exit(130)


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

    def user(self, place: str) -> User:
        """Who works in a place below `tmp`."""
        return User(self.directory / "tmp" / place, self._make, self.environ)

    def _make(self) -> str:
        text = self.content()
        self.made.add(text.encode())
        return text

    def start(self, **environ: str) -> ForkProcess:
        """Start `update`, or `clone` where there is no checkout, in a process group of its own."""
        task = "update" if self.top.exists() else "clone"
        url = f"file://{self.upstream.path('some/thing')}"
        given = {"attempts": 1, "directory": str(self.directory / "tmp")}
        tree = {**DEFAULTS, **given, "repositories": {"thing": {"url": url, "branch": "main"}}}
        context = Context(Config(overrides={"sources": tree}, lazy=True))
        arguments = (task, context, {**self.environ, **environ}, self.directory / "output")
        child = get_context("fork").Process(target=run, args=arguments)
        child.start()
        return child

    def lost(self) -> list[bytes]:
        """What was made and is kept nowhere."""
        return sorted(self.made - contents(self.directory / "tmp"))

    def forget(self) -> None:
        """What the user has destroyed by an action is no loss: only what is there after it counts."""
        self.made &= contents(self.directory / "tmp")


def change_files(world: World, name: str, other: str) -> None:
    files: Tree = {name: world.content() * 50, other: None}
    world.upstream.add_commit("some/thing", "main", {**files, **({"folder": None} if _is_file(world) else {})})


def swap_file_and_folder(world: World, name: str, other: str) -> None:
    text = world.content() * 50
    folder: Tree = {"folder": None, "folder/new.txt": text}
    file: Tree = {"folder/new.txt": None, "folder": text}
    world.upstream.add_commit("some/thing", "main", folder if _is_file(world) else file)


def _is_file(world: World) -> bool:
    upstream = User(world.upstream.path("some/thing"), str, world.environ)
    return upstream.git("cat-file", "-t", "main:folder") == "blob"


def change_submodules(world: World, name: str, other: str) -> None:
    for repository in ("some/lib", "some/inner"):
        world.upstream.add_commit(repository, "main", {name: world.content() * 50})
    actions.restore(world.upstream)


def change_outer(world: World, name: str, other: str) -> None:
    actions.change_outer(world.upstream, OUTER[len(name + other) % len(OUTER)])


def change_inner(world: World, name: str, other: str) -> None:
    actions.change_inner(world.upstream, INNER[len(name + other) % len(INNER)])


def force_push(world: World, name: str, other: str) -> None:
    world.upstream.force_push("some/thing", "main", {"a.txt": world.content() * 50})


Move = Callable[[World, str, str], None]
MOVES: tuple[Move, ...] = (
    change_files, swap_file_and_folder, change_submodules, change_outer, change_inner, force_push,
)  # fmt: skip
CHANGED = st.sampled_from(NAMES[:7])
ACT = st.tuples(st.just("act"), st.sampled_from([*actions.ACTIONS]), st.sampled_from(PLACES), st.sampled_from(NAMES))
MOVE = st.tuples(st.just("move_upstream"), st.sampled_from(MOVES), CHANGED, CHANGED)
UPDATE = st.tuples(st.just("update"), st.sampled_from(ENDINGS), st.integers(1, 60))


class Promise(RuleBasedStateMachine):
    """Sequences of a user's actions, of upstream's moves and of updates, from a copy of the world at `template`."""

    template: Path
    environ: dict[str, str]

    @initialize(fresh=st.booleans())
    def copy(self, fresh: bool) -> None:
        self.directory = tempfile.TemporaryDirectory(dir=self.template.parent)
        self.world = World(Path(self.directory.name, "world"), self.environ)
        subprocess.run(["cp", "-a", self.template, self.world.directory], check=True)
        for place, name in REPOSITORIES.items():
            self.world.user(place).git("config", "remote.origin.url", f"file://{self.world.upstream.path(name)}")
        if fresh:
            shutil.rmtree(self.world.top)

    @rule(step=st.one_of(ACT, ACT, MOVE, UPDATE))  # three rules would mostly come one without the others
    def step(self, step: tuple[Any, ...]) -> None:
        getattr(self, step[0])(*step[1:])

    def act(self, action: str, place: str, name: str) -> None:
        if (self.world.directory / "tmp" / place / ".git").exists():
            actions.perform(self.world.user(place), action, name)
            self.world.forget()

    def move_upstream(self, move: Move, name: str, other: str) -> None:
        move(self.world, name, other)

    def update(self, ending: Ending, number: int) -> None:
        world, count = self.world, self.world.directory / "count"
        count.write_text("")
        child = world.start(GIT_NUMBER=str(number), GIT_ENDING=ending, GIT_COUNT=str(count))
        if ending == "killed later":
            child.join(number / 100)
            for group in _groups(child):
                with suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
        self._check(child, (0, 5) if ending == "complete" else (0, 5, 130, -9))

    def teardown(self) -> None:
        """Once the user has put away what is in the way, everywhere, an update succeeds."""
        if not hasattr(self, "world"):
            return
        try:
            for _ in range(4):  # what is in the way of a submodule's submodule shows when the submodule is right
                if not self._check(self.world.start(), (0, 5)):
                    return
                self._put_away()
            self._check(self.world.start(), (0,))
        finally:
            self.directory.cleanup()

    def _put_away(self) -> None:
        for file in sorted((self.world.directory / "tmp").glob("**/.git"), reverse=True):  # the innermost first
            user = User(file.parent, self.world.content, self.world.environ)
            user.put_away(self.world.directory / "tmp/away")
            if file.parent.name == "linked":
                user.git("switch", "--detach")
        assert not (lost := self.world.lost()), f"putting away lost {lost[:3]}"

    def _check(self, child: ForkProcess, allowed: tuple[int, ...]) -> int:
        child.join(120)
        if (status := child.exitcode) is None and child.pid:
            os.killpg(child.pid, signal.SIGUSR1)  # faulthandler shows where it hangs
            child.join(10)
        output = (self.world.directory / "output").read_text(errors="replace")
        note(f"# status {status}\n{output[-3000:]}")
        assert status is not None, f"it does not end\n{output[-6000:]}"
        assert "Traceback" not in output, output
        assert not (lost := self.world.lost()), f"lost {lost[:3]}\n{output[-2500:]}"
        assert status in allowed, f"status {status}\n{output}"
        return status


def _groups(child: ForkProcess) -> list[int]:
    """The process groups of the process and its children: each git has one of its own."""
    groups = set()
    with suppress(psutil.Error):
        for process in (psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)):
            with suppress(ProcessLookupError):
                groups.add(os.getpgid(process.pid))
    return [*groups - {os.getpgid(0)}]


def make_template(directory: Path, environ: dict[str, str]) -> Path:
    """The upstreams and a clone of them."""
    upstream = Upstream(directory / "upstream")
    for name in ("some/lib", "some/inner", "some/thing"):
        upstream.add_commit(name, "main", FILES)
    inner = Gitlink(upstream.commit("some/inner"))
    upstream.add_commit("some/outer", "main", {**FILES, ".gitmodules": section("inner", "inner"), "inner": inner})
    actions.restore(upstream)
    for name in REPOSITORIES.values():
        for key in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
            subprocess.run(["git", "config", key, "true"], cwd=upstream.path(name), check=True)
    child = World(directory, environ).start()
    child.join(120)
    assert child.exitcode == 0, (directory / "output").read_text()
    return directory
