"""Too little space: reported before a download; where it runs out later, nothing that existed is lost."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.checkout.test_clone import FETCH
from tests.sources import Sources, exhaustive, nothing_but_the_lock, sound, work
from tests.thing import TOP, Thing
from tests.upstream.host import GitHost

BLOCK = 4096


class Disk:
    """A small disk of its own, whose size can change (tmpfs(5))."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", self.path], check=True, capture_output=True)

    def leave(self, blocks: int) -> None:
        """Let no more than that many blocks be free."""
        for _ in range(100):  # others may be writing; a disk cannot be smaller than what is on it
            usage = os.statvfs(self.path)
            with suppress(subprocess.CalledProcessError):
                return self.resize((usage.f_blocks - usage.f_bfree + blocks) * BLOCK)
        raise AssertionError("the disk could not be made smaller")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk with room for everything."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9g", "tests", path], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield Disk(path)
    subprocess.run(["umount", "--lazy", path], check=True)


def test_too_little_space_and_a_read_only_disk_are_reported_before_anything_is_downloaded(
    sglang: Sources, disk: Disk, host: GitHost
) -> None:
    sglang.path = disk.path / "tmp"
    sglang.path.mkdir()
    for options in ("--bind {0}", "-o remount,ro,bind"):
        subprocess.run(["mount", *options.format(disk.path).split(), str(disk.path)], check=True)
    assert f"{sglang.path} cannot be written" in sglang("clone", check=4).text
    subprocess.run(["umount", disk.path], check=True)
    disk.resize(50_000_000)
    text = sglang("clone", check=4).text
    assert re.search(r"[\d.]+ [GM]B", text) and "50.0 MB" in text and str(sglang.path) in text
    assert "cache" in text
    assert host.count(FETCH) == 0
    assert nothing_but_the_lock(sglang.path)


MATRIX = [(blocks, name) for blocks in (0, 2, 6, 14, 40) for name in ("thing", "lib")]


@pytest.mark.parametrize(
    ("blocks", "repository"), [(0, "lib"), *exhaustive(case for case in MATRIX if case != (0, "lib"))]
)
def test_a_disk_that_fills_up_leaves_no_partial_checkout_and_no_changed_one(
    blocks: int, repository: str, thing: Thing, disk: Disk, host: GitHost
) -> None:
    def fill(task: str) -> None:
        host.fault("hook", rf"{repository}.*{FETCH}", call=lambda: disk.leave(blocks))
        result = thing.sources(task, check=4)
        assert "space" in result.err and "Total" not in result.err
        disk.resize(9_000_000_000)

    thing.sources.path = disk.path / "tmp"
    thing.upstream.add_commit("some/lib", "main", {"large": os.urandom(400_000)})
    thing.move_on()
    fill("clone")
    assert not thing.top.exists()
    thing.sources("clone")
    before = work(thing.sources.path)
    thing.upstream.add_commit("some/lib", "main", {"large": os.urandom(400_000)})
    thing.upstream.add_commit("some/thing", "main", {"large": os.urandom(400_000)})
    new = thing.move_on()
    fill("update")
    assert work(thing.sources.path) == before
    thing.sources("update")
    assert thing.sources.head(TOP) == new
    sound(thing.sources, TOP)


def test_a_file_in_the_place_of_the_directory_is_called_a_file(sglang: Sources, tmp_path: Path) -> None:
    sglang.path = tmp_path / "README.md"
    sglang.path.write_text("mine\n")
    assert f"{sglang.path} is a file, not a directory" in sglang("clone", check=4).err
    assert sglang.path.read_text() == "mine\n"
