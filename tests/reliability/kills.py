"""One kill: Invoke, mostly with all its children, gets SIGKILL at a random moment; the next run must complete."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sysconfig
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil

from tests.conftest import Project
from tests.sources import fingerprint
from tests.upstream.host import GitHost
from tests.upstream.store import Upstream

LEFT_OVER = re.compile(r"\.partial|\.lock$|/fetch-|tmp_(pack|idx|obj|rev)|\.new$")
NAMES = ("sglang", "flashinfer")


@dataclass(frozen=True)
class Scenario:
    """`before` is cloned (None: nothing), then `command` is killed; `ends` are the revisions that must be there."""

    before: tuple[str, str] | None
    command: tuple[str, ...]
    ends: tuple[str, str]
    duration: float  # seconds, about

    @property
    def clones(self) -> bool:
        return self.before is None


def _refs(task: str, sglang: str, flashinfer: str, *more: str) -> tuple[str, ...]:
    return (task, f"--sglang-branch={sglang}", f"--flashinfer-branch={flashinfer}", *more)


SCENARIOS: Mapping[str, Scenario] = {
    "clone": Scenario(None, ("clone",), ("main", "main"), 1.6),
    "branch to tag": Scenario(("main", "main"), _refs("update", "v0.5.3", "v0.3.0"), ("v0.5.3", "v0.3.0"), 1.2),
    "layout to layout": Scenario(("v0.4.0", "v0.1.6"), _refs("update", "main", "main"), ("main", "main"), 1.6),
    "back to the old layout": Scenario(
        ("main", "main"), _refs("update", "v0.4.0", "v0.1.6"), ("v0.4.0", "v0.1.6"), 1.6
    ),
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
    mine: dict[str, str] = {}
    if scenario.before:
        project.invoke(*_refs("clone", *scenario.before))
        mine = _work(world)
    moment = _killed(world, scenario, random_)
    said = f"{name}, seed {seed}, killed {moment}"
    assert _mine(world, mine) == mine, f"{said}: lost something of the user's"
    if scenario.clones:
        for repository in NAMES:
            if (project.tmp / repository).exists():
                _sound(world, repository, world.upstream.commit(repository), said)
    if random_.random() < 0.3 and not scenario.clones and "main" in scenario.ends:
        world.upstream.add_commit("sglang", "main", {"later.txt": f"{seed}\n"})
        said += ", then the remote moved on"
    result = project.invoke(*scenario.command, check=None)
    assert result.status == 0, f"{said}: exit status {result.status}\n{result.out}\n{result.err}"
    for repository, revision in zip(NAMES, scenario.ends, strict=True):
        _sound(world, repository, world.upstream.commit(repository, revision), said)
    assert _mine(world, mine) == mine, f"{said}: lost something of the user's in the next run"
    left = [path for path in fingerprint(project.tmp, r"^\.lock$") if LEFT_OVER.search(path)]
    assert not left, f"{said}: left behind {left}"
    return moment


def _work(world: World) -> dict[str, str]:
    """Let the user do some work in each checkout. Returns what must survive, by name."""
    project, identity = world.project, ("-c", "user.name=Me", "-c", "user.email=me@example.org")
    for repository in NAMES:
        project.git(repository, "branch", "my-branch")
        project.git(repository, "switch", "-q", "my-branch")
        (project.tmp / repository / "mine.py").write_text("mine = True\n")
        project.git(repository, "add", "mine.py")
        project.git(repository, *identity, "commit", "-q", "-m", "Mine")
        (project.tmp / repository / "mine.py").write_text("mine = 'stashed'\n")
        project.git(repository, *identity, "stash", "-q")
        project.git(repository, "checkout", "-q", "-")
        (project.tmp / repository / "notes").mkdir()
        (project.tmp / repository / "notes/today.txt").write_text("untracked notes\n")
        (project.tmp / repository / "todo.txt").write_text("more notes\n")
    return _mine(world, dict.fromkeys(NAMES, ""))


def _mine(world: World, wanted: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for repository in NAMES if wanted else ():
        found[repository] = ""
        folder = world.project.tmp / repository
        for file in (folder / "notes/today.txt", folder / "todo.txt"):
            found[str(file)] = f"{file.read_text()} {file.stat().st_mtime_ns}" if file.exists() else "lost"
        for revision in ("my-branch", "my-branch:mine.py", "stash@{0}", "stash@{0}:mine.py"):
            found[f"{repository} {revision}"] = world.project.git(repository, "rev-parse", revision)
        assert world.project.git(repository, "show", "stash@{0}:mine.py") == "mine = 'stashed'"
    return found


def _killed(world: World, scenario: Scenario, random_: random.Random) -> str:
    """Start the scenario's command and kill it. Returns the moment in words."""
    project, host = world.project, world.host
    host.reset()
    host.latency = random_.choice([0, 0, 0.05])
    way = random_.choice(["bytes", "time", "file"])
    now = threading.Event()
    files = ("sources.json", "index.lock", "shallow.lock", "config.lock", "tmp_pack_", ".partial", "packed-refs",
             ".git", "HEAD.lock", "egg-info", "sparse-checkout", "main.lock", "fetch-", "dist-info")  # fmt: skip
    latest = random_.uniform(scenario.duration / 3, scenario.duration)  # for moments that do not come
    if way == "bytes":
        nth, after = random_.randrange(1, 30), random_.choice([0, 10, 200, 2000])
        host.fault("hook", "", nth=nth, after=after, call=now.set)
        moment = f"at byte {after} of request {nth}"
    elif way == "time":
        wait = random_.uniform(0.3, scenario.duration)
        moment = f"after {wait:.2f} s"
    else:
        file, nth = random_.choice(files), random_.randrange(1, 4)
        moment = f"when a {file} appeared, {nth}"
    process = project.start(*scenario.command)
    ended = threading.Thread(target=process.communicate)  # reads what it says, too
    ended.start()
    started, seen = time.monotonic(), set[str]()
    while ended.is_alive():
        if now.wait(0.002):
            break
        if time.monotonic() - started > (wait if way == "time" else latest):
            break
        if way == "file":
            seen |= _appeared(project, file)
            if len(seen) >= nth:
                break
    if ended.is_alive():
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


def _appeared(project: Project, name: str) -> set[str]:
    found = set()
    for folder, folders, files in os.walk(project.tmp):
        for each in (*folders, *files):
            if each.endswith(name) or (name[-1] in "-_" and each.startswith(name)):
                found.add(f"{folder}/{each}")
        folders[:] = [each for each in folders if each not in ("info", "logs", "csrc", "docs", "test", "tests")]
    return found


def _sound(world: World, repository: str, commit: str, said: str) -> None:
    """The checkout is at the commit, whole, and nothing but the user's files is in it that is not tracked."""
    git = world.project.git
    try:
        assert git(repository, "rev-parse", "HEAD") == commit, said
        changed = git(repository, "status", "--porcelain", "--ignore-submodules=none")
        strangers = [line for line in changed.splitlines() if line not in ("?? notes/", "?? todo.txt")]
        assert not strangers, f"{said}: {strangers}"
        told = git(repository, "submodule", "status")
        assert not re.search(r"^[-+U]", told, re.M), f"{said}: {told}"
        for path in (line.split()[1] for line in told.splitlines()):
            assert git(f"{repository}/{path}", "status", "--porcelain") == "", f"{said}: {path}"
            git(f"{repository}/{path}", "fsck", "--connectivity-only")
        git(repository, "fsck", "--connectivity-only")
        git(repository, "log", "--oneline", "-3")
    except subprocess.CalledProcessError as error:
        raise AssertionError(f"{said}: {error.cmd}: {error.stderr}") from None
