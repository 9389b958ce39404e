"""Too little space: reported before a download; where it runs out later, nothing that existed is lost."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tasks.checkout.space import cost, in_words
from tests.sources import Sources, work
from tests.upstream.host import GitHost
from tests.upstream.store import Upstream

FETCH = r"upload-pack\? fetch"
BLOCK = 4096


class Disk:
    """A small disk of its own, whose size can change (tmpfs(5))."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", self.path], check=True)

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
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g", "tests", path], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield Disk(path)
    subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture
def on_disk(sources: Sources, disk: Disk) -> Sources:
    """Both repositories, on the small disk."""
    sources.path = disk.path / "tmp"
    return sources


def explained(text: str) -> bool:
    """Whether every error of the message says how to make room, and none repeats git's progress."""
    hints = re.findall(r"\n  Free some space .*set another sources\.directory", text)
    return 0 < len(hints) == text.count("\n  ") and "Total" not in text


@pytest.mark.parametrize("full", [False, True])
def test_too_little_space_is_reported_before_anything_is_downloaded(
    full: bool, on_disk: Sources, disk: Disk, host: GitHost
) -> None:
    disk.resize(50_000_000)
    result = on_disk("clone", check=4, full=full)
    for name in ("sglang", "flashinfer"):
        needed = in_words(cost(name).full_disk if full else cost(name).slim_disk)
        assert re.search(rf"{name}: .*{needed} are needed in {on_disk.path}, 50 MB are free", result.err)
    assert host.count(FETCH) == 0
    assert {path.name for path in on_disk.path.iterdir()} <= {".lock"}


def test_the_cache_is_named_where_deleting_it_would_free_space(on_disk: Sources, disk: Disk) -> None:
    on_disk("clone")
    on_disk.path = disk.path / "second"
    disk.leave(1000)
    result = on_disk("clone", check=4)
    assert re.search(r"Free some space \(the cache /.* holds [\d.]+ [kM]B", result.err)


@pytest.mark.parametrize("blocks", [0, 2, 6, 14, 40])
def test_a_disk_that_fills_up_during_a_clone_leaves_no_partial_checkout(
    blocks: int, on_disk: Sources, disk: Disk, host: GitHost
) -> None:
    host.fault("hook", rf"flashinfer.*{FETCH}", call=lambda: disk.leave(blocks))
    result = on_disk("clone", check=4)
    assert explained(result.err), result.err
    assert not [path.name for path in on_disk.path.iterdir() if "partial" in path.name]
    for name in ("sglang", "flashinfer"):
        if (on_disk.path / name).exists():
            assert on_disk.git(name, "status", "--porcelain") == ""
    disk.resize(2_000_000_000)
    on_disk("clone")


@pytest.mark.parametrize(("repository", "blocks"), [("flashinfer", 0), ("flashinfer", 4), ("nixl", 0), ("nixl", 16)])
def test_a_disk_that_fills_up_while_an_update_downloads_leaves_the_checkout_as_it_was(
    repository: str, blocks: int, on_disk: Sources, disk: Disk, host: GitHost, upstream: Upstream
) -> None:
    del on_disk.repositories["sglang"]
    on_disk("clone", flashinfer="v0.3.0")
    before = work(on_disk.path)
    host.fault("hook", rf"{repository}.*{FETCH}", call=lambda: disk.leave(blocks))
    result = on_disk("update", check=4, flashinfer="main")
    assert explained(result.err), result.err
    new = r"\.git/modules/3rdparty/(cccl|nixl)"  # repositories of submodules that nothing refers to yet
    assert {path: file for path, file in work(on_disk.path).items() if not re.search(new, path)} == before
    disk.resize(2_000_000_000)
    on_disk("update", flashinfer="main")
    assert on_disk.head("flashinfer") == upstream.commit("flashinfer")
    assert on_disk.git("flashinfer", "status", "--porcelain", "--untracked-files=no") == ""


@pytest.fixture
def before_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have a shell command run each time before git checks out files."""
    folder = tmp_path / "first on the path"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def install(command: str) -> None:
        real = shutil.which("git", path=others)
        script = f'#!/bin/sh\ncase " $* " in *" checkout "* | *" switch "*) {command};; esac\nexec {real} "$@"\n'
        (folder / "git").write_text(script)
        (folder / "git").chmod(0o755)

    others = os.environ["PATH"].partition(os.pathsep)[2]
    return install


@pytest.mark.parametrize("blocks", [0, 1, 8, 20])
def test_an_update_that_a_full_disk_interrupts_loses_nothing_and_is_finished_later(
    blocks: int, on_disk: Sources, disk: Disk, before_checkout: Callable[[str], None], upstream: Upstream
) -> None:
    del on_disk.repositories["sglang"]
    on_disk("clone", flashinfer="v0.3.0")
    (on_disk.path / "flashinfer/notes.txt").write_text("mine\n")
    used = f"$(df -k --output=used {disk.path} | tail -1)"
    resize = f"mount -o remount,size=$(({used}+{blocks * 4}))k {disk.path}"
    before_checkout(f"for try in $(seq 20); do {resize} && break; done")
    result = on_disk("update", check=4, flashinfer="main")
    assert explained(result.err), result.err
    before_checkout("true")
    assert (on_disk.path / "flashinfer/notes.txt").read_text() == "mine\n"
    disk.resize(2_000_000_000)
    on_disk("update", flashinfer="main")
    assert on_disk.head("flashinfer") == upstream.commit("flashinfer")
    assert on_disk.git("flashinfer", "status", "--porcelain") == "?? notes.txt"
    assert (on_disk.path / "flashinfer/notes.txt").read_text() == "mine\n"
