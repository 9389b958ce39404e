"""What a user does in the very moment in which an update moves files and refs is kept, too."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.sources import IDENTITY, exhaustive
from tests.thing import LIB, TOP, Thing

MOMENTS = ("switch", "checkout", "reset", "merge", "update-ref")
ME = " ".join(f"{name}={value}" for name, value in IDENTITY.items())
SCRIPTS = [f"export {ME}; echo precious >mine.txt; git add mine.txt; git commit -q -m Mine",
           "echo precious >a.txt", "echo precious >new.txt", "echo precious >kept.txt",
           "echo precious >new.log", "rm a.txt; mkdir a.txt; echo precious >a.txt/mine",
           "echo precious >mine.txt; git add mine.txt",
           "echo precious >a.txt; git add a.txt; git show HEAD:a.txt >a.txt",
           "echo precious >gone.txt; git update-index --assume-unchanged gone.txt"]  # fmt: skip
CASES = [(SCRIPTS[0], TOP), (SCRIPTS[1], LIB), (SCRIPTS[2], TOP)]
# A commit on a detached HEAD in that moment, as in a submodule, stays in the reflog alone.
MORE = [(script, place) for script in SCRIPTS[1:] for place in (TOP, LIB) if (script, place) not in CASES]


def before_git(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch, moments: Sequence[str] = MOMENTS) -> Path:
    """Let the shell script run once, just before the first git command that moves files or refs, or that has one of
    the words `moments`. Returns a file that exists once that has happened."""
    folder.mkdir()
    done = folder / "done"
    patterns = "|".join(f'*" {word} "*' for word in moments)
    (folder / "git").write_text(
        f'#!/bin/sh\ncase " $* " in {patterns}) if mkdir {done} 2>/dev/null; then\n'
        f"( PATH={os.environ['PATH']}; unset GIT_INDEX_FILE; {script} ) >{folder}/log 2>&1 </dev/null\n"
        f'fi;; esac\nexec {shutil.which("git")} "$@"\n'
    )
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return done


@pytest.mark.parametrize(
    ("script", "place"), [*CASES, *exhaustive(MORE)], ids=lambda given: given.replace("/", "|")[-40:]
)
def test_a_change_just_before_files_or_refs_move_is_kept(
    script: str, place: str, thing: Thing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = thing.move_on()
    done = before_git(f"cd {thing.sources.path / place}; {script}", tmp_path / "bin", monkeypatch)
    result = thing.sources("update", check=None)
    assert done.exists(), "no command moved anything"
    assert result.status in (0, 5)
    assert thing.has()
    thing.put_away(place)
    thing.put_away(TOP)
    thing.sources("update")
    assert thing.has()
    assert thing.sources.head(TOP) == new


def test_files_that_appear_in_the_place_of_a_submodule_are_kept(
    thing: Thing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thing.git(TOP, "submodule", "deinit", "-f", "deps/lib")
    new = thing.move_on()
    before_git(f"cd {thing.sources.path / LIB} && echo precious >a.txt", tmp_path / "bin", monkeypatch, ["init"])
    thing.sources("update", check=5)
    assert thing.has()
    (thing.sources.path / LIB / "a.txt").unlink()
    thing.sources("update")
    assert thing.sources.head(TOP) == new


def test_a_commit_on_the_branch_while_head_moves_stays_there(
    thing: Thing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thing.move_on()
    commit = f"{ME} git commit-tree -p main -m Mine main^{{tree}}"
    script = f'cd {thing.top}; git update-ref refs/heads/main "$({commit})"'
    before_git(script, tmp_path / "bin", monkeypatch, ["refs/heads/main"])
    result = thing.sources("update", check=5)
    assert "a commit was made" in result.err
    assert thing.git(TOP, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert thing.git(TOP, "show", "--no-patch", "--format=%s", "main") == "Mine"
