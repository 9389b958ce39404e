"""What a user does in the very moment in which an update moves files and refs is kept, too."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.sources import IDENTITY, commits, exhaustive
from tests.thing import Thing

Before = Callable[[Sequence[str], str], Path]
MOMENTS = ("switch", "checkout", "reset", "merge", "update-ref")
ME = " ".join(f"{name}={value}" for name, value in IDENTITY.items())
COMMIT = f"export {ME}; echo precious >mine.txt; git add mine.txt; git commit -q -m Mine"
SCRIPTS = [COMMIT, "echo precious >a.txt", "echo precious >new.txt", "echo precious >kept.txt",
           "echo precious >new.log", "rm a.txt; mkdir a.txt; echo precious >a.txt/mine",
           "echo precious >mine.txt; git add mine.txt",
           "echo precious >a.txt; git add a.txt; git show HEAD:a.txt >a.txt",
           "echo precious >gone.txt; git update-index --assume-unchanged gone.txt"]  # fmt: skip
PLACES = ("thing", "thing/deps/lib")
CASES = [(SCRIPTS[0], PLACES[0]), (SCRIPTS[1], PLACES[1]), (SCRIPTS[2], PLACES[0])]
MORE = [(script, place) for script in SCRIPTS for place in PLACES if (script, place) not in CASES]


@pytest.mark.parametrize(
    ("script", "place"), [*CASES, *exhaustive(MORE)], ids=lambda given: given.replace("/", "|")[-40:]
)
def test_a_change_just_before_files_or_refs_move_is_kept(
    script: str, place: str, thing: Thing, before_git: Before
) -> None:
    """For whatever command moves them: the first of them in that repository."""
    new = thing.move_on()
    directory = thing.sources.path / place
    done = before_git(MOMENTS, f"cd {directory}; {script}")
    result = thing.sources("update", check=None)
    assert done.exists(), "no command moved anything"
    assert result.status in (0, 5)
    assert thing.has()
    thing.put_away(place)
    thing.put_away("thing")
    thing.sources("update")
    assert thing.has()
    assert thing.sources.head("thing") == new


def test_commits_in_a_loop_keep_a_ref(thing: Thing) -> None:
    """As a user's own script would, while one update after the other runs."""
    loop = f"cd {thing.top}; export {ME}; while :; do echo $$ >>mine.txt; git add mine.txt; git commit -q -m Mine; done"
    for _ in range(2):
        thing.move_on()
        with subprocess.Popen(["sh", "-c", loop], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as user:
            result = thing.sources("update", check=None)
            user.kill()
        assert result.status in (0, 5), result.err
        (thing.top / ".git/index.lock").unlink(missing_ok=True)
        log = thing.git("thing", "log", "-g", "--format=%H %gs", "HEAD").split("\n")
        made = {line.split()[0] for line in log if " commit: Mine" in line}
        assert made <= commits(thing.top), "a commit was left without a ref"
