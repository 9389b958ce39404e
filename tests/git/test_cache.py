"""The cache: whatever is wrong with it, clones and updates succeed without it, and nothing damaged gets into them."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sources import Sources
from tests.upstream.host import GitHost
from tests.upstream.store import Upstream

FETCH = r"upload-pack\? fetch"


@pytest.fixture
def cache(sglang: Sources, tmp_path: Path) -> Path:
    """The cache of SGLang, filled by a clone that has become another file system's: what happens to one of them does
    not happen to the other."""
    sglang.settings["cache"] = str(tmp_path / "cache")
    sglang("clone")
    (cache,) = (tmp_path / "cache").iterdir()
    copy = tmp_path / "copy"
    shutil.copytree(cache, copy)
    shutil.rmtree(cache)
    copy.rename(cache)
    return cache


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def zero(file: Path) -> None:
    file.chmod(0o644)
    file.write_bytes(bytes(file.stat().st_size))


def empty(file: Path) -> None:
    file.chmod(0o644)
    file.write_bytes(b"")


def flip(file: Path) -> None:
    file.chmod(0o644)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def remove(file: Path) -> None:
    file.unlink()


def largest(cache: Path, suffix: str) -> Path:
    """The largest file of that kind, which has the files of the commit."""
    return max(cache.glob(f"objects/pack/*{suffix}"), key=lambda file: file.stat().st_size)


def sound(sources: Sources, upstream: Upstream) -> None:
    assert sources.head("sglang") == upstream.commit("sglang")
    assert sources.git("sglang", "status", "--porcelain") == ""
    sources.git("sglang", "fsck", "--connectivity-only")
    for index in (sources.path / "sglang/.git/objects/pack").glob("*.idx"):
        sources.git("sglang", "verify-pack", str(index))


@pytest.mark.parametrize("suffix", [".pack", ".idx"])
@pytest.mark.parametrize("damage", [truncate, zero, empty, flip, remove])
@pytest.mark.parametrize("full", [False, True], ids=["slim", "full"])
def test_a_damaged_pack_never_gets_into_a_checkout_and_is_replaced(
    damage: Callable[[Path], None], suffix: str, full: bool,
    sglang: Sources, cache: Path, host: GitHost, upstream: Upstream, tmp_path: Path,
) -> None:  # fmt: skip
    if full:
        sglang.path = tmp_path / "full"
        sglang("clone", full=True)
        shutil.copytree(cache, tmp_path / "copy")
        shutil.rmtree(cache)
        (tmp_path / "copy").rename(cache)
    damage(largest(cache, suffix))
    sglang.path = tmp_path / "second"
    sglang("clone", full=full)
    sound(sglang, upstream)
    assert full == (sglang.git("sglang", "rev-list", "--count", "HEAD") != "1")
    sglang.path = tmp_path / "third"
    host.reset()
    sglang("clone", full=full)
    sound(sglang, upstream)
    if (damage, suffix) != (remove, ".idx"):
        assert host.count(FETCH) == 0, "the cache is sound again"


@pytest.mark.parametrize("damage", [truncate, zero, empty, flip, remove])
def test_a_damaged_cache_does_not_harm_an_existing_checkout(
    damage: Callable[[Path], None], sglang: Sources, cache: Path, upstream: Upstream
) -> None:
    upstream.add_commit("sglang", "main")
    for pack in [*cache.glob("objects/pack/*.pack")]:
        damage(pack)
    shutil.rmtree(sglang.path / "sglang")
    shutil.copytree(sglang.path, sglang.path.parent / "unused", dirs_exist_ok=True)
    sglang("clone")
    upstream.add_commit("sglang", "main")
    for pack in [*cache.glob("objects/pack/*.pack")]:
        remove(pack)
    sglang("update")
    sound(sglang, upstream)


@pytest.mark.parametrize(
    "known",
    [
        "",
        "[]",
        "null",
        "[" * 100_000,
        '{"shallow": 5, "tips": 5, "complete": 5}',
        '{"shallow": ["--all", "x"], "tips": ["--upload-pack=touch canary", ""], "complete": [null]}',
        json.dumps({key: ["0" * 40, "a" * 40] for key in ("shallow", "tips", "complete")}),
        "blob",
        "tree",
    ],
)
def test_wrong_ids_in_a_cache_are_ignored(
    known: str, sglang: Sources, cache: Path, upstream: Upstream, tmp_path: Path
) -> None:
    if known in ("blob", "tree"):
        oid = sglang.git("sglang", "rev-parse", "HEAD^{tree}" if known == "tree" else "HEAD:python/pyproject.toml")
        known = json.dumps({key: [oid] for key in ("shallow", "tips", "complete")})
    (cache / "known.json").write_text(known)
    sglang.path = tmp_path / "second"
    sglang("clone")
    sound(sglang, upstream)
    upstream.add_commit("sglang", "main")
    sglang("update")
    sound(sglang, upstream)


def test_commits_whose_trees_are_gone_from_the_cache_are_fetched_again(
    sglang: Sources, cache: Path, upstream: Upstream, tmp_path: Path
) -> None:
    for file in [*cache.glob(f"objects/pack/{largest(cache, '.pack').stem}.*")]:
        remove(file)
    sglang.path = tmp_path / "second"
    sglang("clone")
    sound(sglang, upstream)


@pytest.mark.parametrize("place", ["a file", "below a file", "a dangling link", "a directory in place of the lock"])
def test_a_cache_that_cannot_be_used_is_as_none(
    place: str, sglang: Sources, cache: Path, upstream: Upstream, tmp_path: Path
) -> None:
    if place == "a directory in place of the lock":
        (cache / "lock").unlink()
        (cache / "lock").mkdir()
    else:
        shutil.rmtree(tmp_path / "cache")
        (tmp_path / "cache").symlink_to("nowhere") if "link" in place else (tmp_path / "cache").write_text("mine\n")
        sglang.settings["cache"] = str(tmp_path / "cache") + ("/below" if "below" in place else "")
    sglang.path = tmp_path / "second"
    sglang("clone")
    sound(sglang, upstream)


@pytest.mark.parametrize("part", ["", "objects", "objects/pack"])
@pytest.mark.parametrize("mode", [0o000, 0o500])
def test_a_cache_without_access_is_as_none(
    part: str, mode: int, cache: Path, unprivileged: Callable[[str], str], tmp_path: Path, host: GitHost
) -> None:
    (cache / part).chmod(mode)
    code = (
        "import tasks; from invoke import Context, Config; from tasks.config.defaults import DEFAULTS\n"
        f"own = {{'directory': {str(tmp_path / 'second')!r}, 'cache': {str(tmp_path / 'cache')!r}}}\n"
        "tree = Config(overrides={'sources': {**DEFAULTS, **own}}, lazy=True)\n"
        "tasks.clone(Context(tree), only=['sglang'])\n"
    )
    try:
        assert "cloned" in unprivileged(code)
    finally:
        (cache / part).chmod(0o755)


def test_a_lock_that_another_process_holds_is_waited_for_with_a_word(
    sglang: Sources, cache: Path, upstream: Upstream, tmp_path: Path
) -> None:
    sglang.path = tmp_path / "second"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        threading.Timer(3, lambda: fcntl.flock(lock, fcntl.LOCK_UN)).start()
        result = sglang("clone")
    assert "waiting for another run that writes to the cache" in result.out + result.err
    sound(sglang, upstream)
