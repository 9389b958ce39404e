"""What a user does in the very moment in which an update moves files and refs is kept, too."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sources import IDENTITY, commits
from tests.thing import Thing
from tests.upstream.host import GitHost

Before = Callable[[str, str], Path]
SWITCH = "--no-overwrite-ignore"
ME = " ".join(f"{name}={value}" for name, value in IDENTITY.items())
WRITE = "echo precious >mine.txt; git add mine.txt"


def committing(path: Path) -> str:
    return f"cd {path}; export {ME}; {WRITE}; git commit -q -m Mine"


@pytest.mark.parametrize(
    ("moment", "place", "detached"),
    [
        (SWITCH, "thing", False), (SWITCH, "thing", True), (SWITCH, "thing/deps/lib", True),
        ("update-ref --stdin", "thing", False),
        ("update-ref refs/heads/main", "thing", False), ("update-ref refs/heads/main", "thing", True),
        ("update-ref refs/heads/main", "thing/deps/lib", True),
    ],
)  # fmt: skip
def test_a_commit_between_the_last_look_and_the_end_keeps_a_ref(
    moment: str, place: str, detached: bool, thing: Thing, before_git: Before
) -> None:
    if detached and place == "thing":
        thing.git("thing", "checkout", "-q", "--detach")
    new = thing.move_on()
    done = before_git(moment, committing(thing.sources.path / place))
    result = thing.sources("update", check=None)
    assert done.exists()
    assert thing.has()
    thing.sources.resolve(result=result)
    mine = [commit for commit in thing_commits(thing, place)
            if thing.git(place, "log", "-1", "--format=%s", commit) == "Mine"]  # fmt: skip
    assert mine
    assert thing.has()
    assert thing.sources.head("thing") == new


def thing_commits(thing: Thing, place: str) -> set[str]:
    return commits(thing.sources.path / place, "--all")


@pytest.mark.parametrize("script", ["echo precious >a.txt", "echo precious >kept.txt", "echo precious >new.txt",
                                    "echo precious >new.log", "rm a.txt; mkdir a.txt; echo precious >a.txt/mine",
                                    WRITE, "echo precious >a.txt; git add a.txt; git show HEAD:a.txt >a.txt",
                                    "echo precious >gone.txt; git update-index --assume-unchanged gone.txt"],
                         ids=lambda script: script.replace("/", "|"))  # fmt: skip
def test_a_change_after_the_last_look_is_kept(script: str, thing: Thing, before_git: Before) -> None:
    new = thing.move_on()
    done = before_git(SWITCH, f"cd {thing.top}; {script}; cd deps/lib; {script}")
    result = thing.sources("update", check=None)
    assert done.exists()
    assert thing.has()
    thing.sources.resolve(result=result)
    assert thing.has()
    assert thing.sources.head("thing") == new


def test_commits_in_a_loop_keep_a_ref(thing: Thing) -> None:
    """As a user's own script would, while one update after the other runs."""
    loop = f"cd {thing.top}; export {ME}; while :; do echo $$ >>mine.txt; git add mine.txt; git commit -q -m Mine; done"
    for _ in range(4):
        thing.move_on()
        with subprocess.Popen(["sh", "-c", loop], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as user:
            result = thing.sources("update", check=None)
            user.kill()
        assert result.status in (0, 5), result.err
        (thing.top / ".git/index.lock").unlink(missing_ok=True)
        log = thing.git("thing", "log", "-g", "--format=%H %gs", "HEAD").splitlines()
        made = {line.split()[0] for line in log if " commit: Mine" in line}
        assert made <= commits(thing.top), "a commit was left without a ref"


def test_a_linked_worktree_keeps_the_branch_that_it_has_checked_out(thing: Thing) -> None:
    thing.git("thing", "checkout", "-q", "--detach")
    other = thing.sources.path / "other"
    thing.git("thing", "worktree", "add", "-q", str(other), "main")
    head = thing.sources.head("thing")
    new = thing.move_on()
    result = thing.sources("update", check=5)
    assert thing.git("other", "rev-parse", "HEAD") == head
    assert thing.git("other", "status", "--porcelain") == ""
    thing.sources.resolve(result=result)
    assert thing.sources.head("thing") == new
    assert thing.git("other", "rev-parse", "HEAD") == head


def test_a_commit_that_was_fetched_from_another_place_is_the_users(thing: Thing) -> None:
    """A fetch with --depth writes the commit into .git/shallow, as this tool's own do."""
    fork = thing.sources.path / "fork"
    subprocess.run(["git", "clone", "-q", thing.upstream.path("some/thing"), fork], check=True)
    mine = thing.commit("fork")
    thing.git("thing", "fetch", "-q", "--depth=1", f"file://{fork}", "HEAD")
    thing.git("thing", "checkout", "-q", "FETCH_HEAD")
    assert mine in (thing.top / ".git/shallow").read_text()
    subprocess.run(["rm", "-r", fork], check=True)
    new = thing.move_on()
    result = thing.sources("update", check=5)
    thing.sources.resolve(result=result)
    assert thing.sources.head("thing") == new
    assert mine in commits(thing.top)


def test_a_change_while_submodules_are_downloaded_is_kept(thing: Thing, host: GitHost) -> None:
    new = thing.move_on()
    host.fault("hook", r"lib\.git.*upload-pack\? fetch", call=lambda: thing.write("thing/deps/lib", "a.txt"))
    result = thing.sources("update", check=5)
    assert thing.has()
    thing.sources.resolve(result=result)
    assert thing.has()
    assert thing.sources.head("thing") == new
