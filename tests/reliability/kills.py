"""One kill: Invoke, mostly with all its children, gets SIGKILL at a random moment; the next run must complete."""

from __future__ import annotations

import random
import re
import sysconfig
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil

from tests.conftest import Project
from tests.reliability.actions import FUNCTIONS
from tests.sources import fingerprint, sound
from tests.thing import User, contents
from tests.upstream.host import GitHost
from tests.upstream.store import Upstream

LEFT_OVER = re.compile(r"\.partial|\.lock$|/fetch-|tmp_(pack|idx|obj|rev)|\.new$")
NAMES = ("sglang", "flashinfer")
WORK = ("committed by the user\n", "stashed by the user\n", "untracked notes\n")


@dataclass(frozen=True)
class Scenario:
    """`before` is cloned (None: nothing), then `command` is killed; `ends` are the revisions that must be there."""

    before: tuple[str, str] | None
    command: tuple[str, ...]
    ends: tuple[str, str]
    duration: float  # seconds, about


def _refs(task: str, sglang: str, flashinfer: str, *more: str) -> tuple[str, ...]:
    return (task, f"--sglang-branch={sglang}", f"--flashinfer-branch={flashinfer}", *more)


SCENARIOS: Mapping[str, Scenario] = {
    "clone": Scenario(None, ("clone",), ("main", "main"), 1.6),
    "branch to tag": Scenario(("main", "main"), _refs("update", "v0.5.3", "v0.3.0"), ("v0.5.3", "v0.3.0"), 1.2),
    "layout to layout": Scenario(("v0.4.0", "v0.1.6"), _refs("update", "main", "main"), ("main", "main"), 1.6),
    "to whole histories": Scenario(("main", "main"), _refs("update", "main", "main", "--full"), ("main", "main"), 1.6),
    "install": Scenario(None, ("setup", "--no-deps"), ("main", "main"), 4),
}


@dataclass
class World:
    """Where it happens."""

    project: Project
    host: GitHost
    upstream: Upstream


def kill_once(world: World, name: str, seed: int) -> str:
    """Run the scenario with one kill; AssertionError where something does not hold. Returns when it was killed."""
    scenario, random_ = SCENARIOS[name], random.Random(f"{name} {seed}")
    project = world.project
    project.environ["PATH"] += f":{sysconfig.get_path('scripts')}"  # where the tests' uv is
    if scenario.before:
        project.invoke(*_refs("clone", *scenario.before))
        _work(project)
    moment = _killed(world, scenario, random_)
    said = f"{name}, seed {seed}, killed {moment}"
    _check_work(project, said, scenario)
    if not scenario.before:
        for repository in filter(lambda repository: (project.tmp / repository).exists(), NAMES):
            assert project.git(repository, "rev-parse", "HEAD") == world.upstream.commit(repository), said
            sound(project, repository)
    if random_.random() < 0.3 and scenario.before and "main" in scenario.ends:
        world.upstream.add_commit("sglang", "main", {"later.txt": f"{seed}\n"})
        said += ", then the remote moved on"
    result = project.invoke(*scenario.command, check=None)
    assert result.status == 0, f"{said}: exit status {result.status}\n{result.out}\n{result.err}"
    for repository, revision in zip(NAMES, scenario.ends, strict=True):
        assert project.git(repository, "rev-parse", "HEAD") == world.upstream.commit(repository, revision), said
        sound(project, repository, but=("?? notes/today.txt",))
    _check_work(project, f"{said}, in the next run", scenario)
    left = [path for path in fingerprint(project.tmp, r"^\.lock$") if LEFT_OVER.search(path)]
    assert not left, f"{said}: left behind {left}"
    return moment


def _work(project: Project) -> None:
    """Let the user do some work in each checkout: a commit on a branch, a stash, an untracked file."""
    script = """git checkout -q -b mine; commit mine.py "$1"; printf %s "$2" >mine.py; git stash
        git checkout -q -; write notes/today.txt "$3\""""
    for repository in NAMES:
        User(project.tmp / repository, str, project.environ).run(FUNCTIONS + script, "", *WORK)


def _check_work(project: Project, said: str, scenario: Scenario) -> None:
    """All of that is there."""
    for repository in NAMES if scenario.before else ():
        lost = {text.encode() for text in WORK} - contents(project.tmp / repository)
        assert not lost, f"{said}: lost {lost} of the user's in {repository}"
        assert project.git(repository, "branch", "--list", "mine"), f"{said}: lost a branch"


def _killed(world: World, scenario: Scenario, random_: random.Random) -> str:
    """Start the scenario's command and kill it, after some time or where a download has got to. Returns when."""
    host, now = world.host, threading.Event()
    host.reset()
    host.latency = random_.choice([0, 0, 0.05])
    wait = random_.uniform(0.3, scenario.duration)
    moment = f"after {wait:.2f} s"
    if random_.random() < 0.5:
        nth, after = random_.randrange(1, 30), random_.choice([0, 10, 200, 2000])
        host.fault("hook", "", nth=nth, after=after, call=now.set)
        moment = f"at byte {after} of request {nth}, or {moment}"
    process = world.project.start(*scenario.command)
    ended = threading.Thread(target=process.communicate)  # reads what it says, too
    ended.start()
    now.wait(wait)
    if process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True) if random_.random() < 0.7 else []
        process.kill()
        for child in children:  # else they live on for a while
            with suppress(psutil.NoSuchProcess):
                child.kill()
    else:
        moment += " (too late)"
    ended.join()
    host.reset()
    host.latency = 0
    return moment
