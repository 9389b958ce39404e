"""The cache: whatever is wrong with it, clones and updates succeed without it, and nothing damaged gets into them."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tasks.git.packs import Cache, Known

from tests.sources import Sources
from tests.upstream.host import GitHost
from tests.upstream.store import Upstream

FETCH = r"upload-pack\? fetch"


@pytest.fixture
def cache(sglang: Sources, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of SGLang, filled by a clone and then copied, so that the two share no file."""
    sglang.settings["cache"] = str(tmp_path / "cache")
    made = tmp_path_factory.getbasetemp() / "cloned"  # once for each worker
    if not made.exists():
        sglang("clone")
        made.mkdir()
        subprocess.run(["mv", sglang.path, tmp_path / "cache", made], check=True)
    for directory in (sglang.path, tmp_path / "cache"):
        subprocess.run(["cp", "-a", made / directory.name, directory], check=True)
    (cache,) = (tmp_path / "cache").iterdir()
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
def test_whatever_the_damage_of_a_pack_nothing_is_taken(
    damage: Callable[[Path], None], suffix: str, built: Upstream, tmp_path: Path
) -> None:
    stored, target = Cache(tmp_path / "cache", "https://example.org/x.git"), tmp_path / "target"
    source = shutil.copytree(built.path("sglang"), tmp_path / "source")
    stored.give(source, lambda: None, tip=built.commit("sglang"))
    (directory,) = (tmp_path / "cache").iterdir()
    damage(largest(directory, suffix))
    known, packs = stored.take(target)
    assert packs == [] and not [*target.glob("objects/pack/*")]
    assert directory.exists() == (known != Known()) == ((damage, suffix) == (remove, ".idx")), "it is replaced"


@pytest.mark.parametrize(
    ("damage", "suffix", "full"), [(flip, ".pack", False), (flip, ".pack", True), (remove, ".idx", False)]
)
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
    if damage is flip:
        assert host.count(FETCH) == 0, "the cache is sound again"


@pytest.mark.parametrize("damage", [flip, remove])
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


IDS = ("shallow", "tips", "complete")


@pytest.mark.parametrize(
    "known",
    [
        "",
        "[]",
        "null",
        "[" * 100_000,
        '{"shallow": 5, "tips": 5, "complete": 5}',
        '{"shallow": ["--all", "x"], "tips": ["--upload-pack=touch canary", ""], "complete": [null]}',
        json.dumps({key: ["a" * 39, "A" * 40, f"{'a' * 40} "] for key in IDS}),
    ],
)
def test_what_is_no_id_in_a_cache_is_not_read(known: str, tmp_path: Path) -> None:
    stored = Cache(tmp_path / "cache", "https://example.org/x.git")
    stored.give(tmp_path / "source", lambda: None, tip="a" * 40)
    assert stored.take(tmp_path / "target")[0].tips == ("a" * 40,)
    (file,) = (tmp_path / "cache").glob("*/known.json")
    file.write_text(known)
    assert stored.take(tmp_path / "target") == (Known(), [])


@pytest.mark.parametrize("wrong", ["no object", "a blob", "a tree"])
def test_wrong_ids_in_a_cache_are_ignored(
    wrong: str, sglang: Sources, cache: Path, upstream: Upstream, tmp_path: Path
) -> None:
    name = {"a blob": "HEAD:python/pyproject.toml", "a tree": "HEAD^{tree}"}.get(wrong, "")
    ids = [sglang.git("sglang", "rev-parse", name)] if name else ["0" * 40, "a" * 40]
    (cache / "known.json").write_text(json.dumps(dict.fromkeys(IDS, ids)))
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


@pytest.mark.parametrize("part", ["", "objects/pack"])
@pytest.mark.parametrize("mode", [0o000, 0o500])
def test_a_cache_without_access_is_as_none(
    part: str, mode: int, cache: Path, unprivileged: Callable[[str], str], tmp_path: Path, host: GitHost
) -> None:
    (cache / part).chmod(mode)
    code = (
        "import tasks; from invoke import Context, Config; from tasks.settings import DEFAULTS\n"
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
