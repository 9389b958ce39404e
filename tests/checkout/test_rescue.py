"""After an interrupted switch the next run keeps what it finds below refs/rescue/, then finishes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress

import psutil
import pytest

from tests.checkout.test_clone import sound
from tests.sources import Result, Sources
from tests.thing import PRECIOUS, Thing
from tests.upstream.host import GitHost
from tests.upstream.store import Upstream

pytestmark = pytest.mark.xfail(strict=False, reason="the checkouts are being rewritten")


FETCH = r"upload-pack\? fetch"


def rescued(thing: Thing, place: str = "thing") -> list[str]:
    return thing.git(place, "for-each-ref", "--format=%(refname)", "refs/rescue").split()


def shown(thing: Thing, result: Result) -> str:
    """What the commands show that the run names."""
    commands = re.findall(r"git -C \S+ show[^\n]*?refs/rescue/\S+", result.out + result.err)
    assert commands
    shown = ""
    for command in dict.fromkeys(commands):
        run = subprocess.run(
            ["sh", "-c", command.rstrip(").,")], cwd=thing.sources.path, capture_output=True, text=True, check=True
        )
        shown += run.stdout
    return shown


@pytest.mark.parametrize("place", ["thing", "thing/deps/lib"])
def test_edits_after_an_interruption_are_kept_and_the_switch_finished(place: str, thing: Thing) -> None:
    new = thing.interrupt(place)
    for name in ("a.txt", "kept.txt"):
        thing.write(place, name)
    thing.write(place, "staged.txt", "precious and staged\n")
    thing.git(place, "add", "staged.txt")
    (thing.sources.path / place / "staged.txt").unlink()
    result = thing.sources("update")
    assert thing.sources.head("thing") == new
    sound(thing.sources, "thing")
    assert rescued(thing, place)
    assert thing.has() and thing.has("precious and staged")
    text = shown(thing, result)
    assert PRECIOUS in text and "precious and staged" in text
    again = thing.sources("update")
    assert "refs/rescue" not in again.out + again.err, "named once"
    assert "up to date" in again.out


def test_a_commit_after_an_interruption_keeps_a_ref(thing: Thing) -> None:
    new = thing.interrupt()
    mine = thing.commit("thing")
    assert thing.sources("update", check=None).status in (0, 5)
    assert mine in thing.own("thing")
    thing.sources("update", check=None)
    assert mine in thing.own("thing")
    assert new in thing.git("thing", "rev-list", "--all").split()


def test_a_repository_of_the_users_that_appears_after_an_interruption_is_kept(thing: Thing) -> None:
    thing.interrupt()
    (thing.top / "new.txt").unlink(missing_ok=True)
    thing.write("thing", "new.txt/mine.txt")
    thing.git("thing/new.txt", "init", "-q")
    thing.commit("thing/new.txt")
    result = thing.sources("update", check=None)
    assert thing.has() and (thing.top / "new.txt/.git").is_dir()
    assert result.status == 5 and "new.txt" in result.err
    shutil.move(thing.top / "new.txt", thing.sources.path / "away")
    thing.sources("update")
    sound(thing.sources, "thing")


@pytest.mark.parametrize("place", ["thing", "thing/deps/lib"])
def test_a_git_that_is_killed_in_a_switch_leaves_no_lock(place: str, thing: Thing) -> None:
    """As by a machine without memory: git alone; the run goes on, and ends as any other that failed."""
    new = thing.move_on()
    git_dir = thing.git_dir(place)
    (git_dir / "info").mkdir(exist_ok=True)
    (git_dir / "info/attributes").write_text("new.txt filter=stop\n")
    thing.git(place, "config", "filter.stop.smudge", "head -c 2; kill -KILL 0")
    result = thing.sources("update", check=None)
    assert result.status
    assert re.search("SIGKILL|signal 9|killed", result.err, re.I)
    assert (git_dir / "index.lock").exists() or rescued(thing) == []
    thing.git(place, "config", "--remove-section", "filter.stop")
    thing.sources("update")
    assert thing.sources.head("thing") == new
    sound(thing.sources, "thing")


def test_a_lock_without_an_interrupted_switch_is_left(sglang: Sources, upstream: Upstream) -> None:
    sglang("clone")
    before = sglang.head("sglang")
    upstream.add_commit("sglang", "main")
    lock = sglang.path / "sglang/.git/index.lock"
    lock.touch()
    result = sglang("update", check=5)
    assert str(lock) in result.err
    assert lock.exists() and sglang.head("sglang") == before
    lock.unlink()
    sglang("update")


def test_a_git_that_is_killed_in_a_fetch_is_said_to_be(sglang: Sources, host: GitHost, upstream: Upstream) -> None:
    sglang("clone")
    new = upstream.add_commit("sglang", "main", {"large": os.urandom(100_000)})

    def kill() -> None:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if "fetch" in process.cmdline() and "git" in process.name():
                    process.send_signal(signal.SIGKILL)

    host.fault("hook", FETCH, after=1000, call=kill, times=9)
    result = sglang("update", check=None)
    assert result.status
    assert re.search("SIGKILL|signal 9", result.err)
    assert "check the URL" not in result.err.lower() and "without a message" not in result.err
    host.reset()
    sglang("update")
    assert sglang.head("sglang") == new
