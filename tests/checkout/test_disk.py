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
from tests.upstream.host import GitHost
from tests.upstream.store import Upstream

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


@pytest.fixture
def on_disk(flashinfer: Sources, disk: Disk) -> Sources:
    """FlashInfer on the small disk."""
    flashinfer.path = disk.path / "tmp"
    return flashinfer


def test_too_little_space_is_reported_before_anything_is_downloaded(
    on_disk: Sources, disk: Disk, host: GitHost
) -> None:
    disk.resize(50_000_000)
    text = " ".join(on_disk("clone", check=4).err.split())
    assert re.search(r"[\d.]+ [GM]B", text) and "50.0 MB" in text and str(on_disk.path) in text
    assert "cache" in text
    assert host.count(FETCH) == 0
    assert nothing_but_the_lock(on_disk.path)


MATRIX = [(blocks, name) for blocks in (0, 2, 6, 14, 40) for name in ("flashinfer", "cccl")]


@pytest.mark.parametrize(
    ("blocks", "repository"),
    [(0, "cccl"), *exhaustive(case for case in MATRIX if case != (0, "cccl"))],
)
def test_a_disk_that_fills_up_leaves_no_partial_checkout_and_no_changed_one(
    blocks: int, repository: str, on_disk: Sources, disk: Disk, host: GitHost, upstream: Upstream
) -> None:
    host.fault("hook", rf"{repository}.*{FETCH}", call=lambda: disk.leave(blocks))
    result = on_disk("clone", check=4)
    assert "space" in result.err and "Total" not in result.err
    assert not (on_disk.path / "flashinfer").exists()
    disk.resize(9_000_000_000)
    on_disk("clone", flashinfer="v0.3.0")
    before = work(on_disk.path)
    host.fault("hook", rf"{repository}.*{FETCH}", call=lambda: disk.leave(blocks))
    assert "space" in on_disk("update", check=4, flashinfer="main").err
    assert work(on_disk.path) == before
    disk.resize(9_000_000_000)
    on_disk("update", flashinfer="main")
    assert on_disk.head("flashinfer") == upstream.commit("flashinfer")
    sound(on_disk, "flashinfer")
