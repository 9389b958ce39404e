"""A set-up is locked, made again elsewhere from its lock, and compared with it."""

from __future__ import annotations

import venv
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.pylock import Pylock

from tasks.errors import InstallError, LocalWorkError, SourcesError, UsageError
from tasks.packages.environment import probe
from tasks.packages.lock import FILE, Lock, LockedRepository, differences, make_lock, read_lock
from tasks.packages.package import Package, read_toml
from tests.packages.conftest import Place, put
from tests.upstream.wheels import write_wheel

Make = Callable[..., Package]
COOKBOOK = LockedRepository("sgl-cookbook", "https://u:S3cr3t@host.example/cookbook.git", "main", "a" * 40)
LOCKED = {"alpha": "1.0", "beta": "2.0", "flashinfer-cubin": "0.6", "gamma": "3.0rc1"}


def lock(place: Place, *packages: Package, obstacles: tuple[str, ...] = ()) -> str:
    """The text of the lock, as a run makes it."""
    repositories = [COOKBOOK]
    for package in packages:
        name = package.repository.name
        repositories.append(LockedRepository(name, f"git@host.example:{name}.git", "main", package.commit))
    return make_lock(place.tool(), packages, repositories, obstacles)


def failed(found: Lock, place: Place, **commits: str) -> dict[str, tuple[str, str]]:
    """What differs, how, and the command that resolves it."""
    known = {locked.name: locked.commit for locked in found.repositories}
    checks = differences(found, {**known, **commits}, place.environment)
    assert {check.status for check in checks} in ({"pass"}, {"fail"})
    return {check.name: (check.detail, check.command) for check in checks if check.status == "fail"}


@pytest.fixture
def both(make_package: Make) -> tuple[Package, Package]:
    requires = ["alpha[fast]>=1", "flashinfer-python==0.6", "never; os_name == 'plan9'"]
    return make_package("sglang", "0.5", requires), make_package("flashinfer-python", "0.6", ["beta"])


@pytest.fixture
def wheels(tmp_path: Path, wheelhouse: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, user: None) -> Path:
    """The only package index: a directory of wheels, this test's own."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    requires = {"alpha": ["beta>=1", "gamma>=2; extra == 'fast'", "slow; extra == 'slow'"]}
    for name, version in {**LOCKED, "unrelated": "1.0"}.items():
        write_wheel(folder, name, version, {f"{name}.py": ""}, requires.get(name, []))
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_PRERELEASE", "allow")
    return folder


def test_a_lock_is_installed_elsewhere_after_newer_versions_appeared(
    place: Place, both: tuple[Package, Package], wheels: Path, tmp_path: Path
) -> None:
    place.uv("install", "-q", "unrelated", "flashinfer-cubin==0.6")
    place.install(*both)
    text = lock(place, *both)
    assert lock(place, *both) == text and "S3cr3t" not in text
    content = Pylock.from_dict(read_toml(text.encode(), FILE))
    assert {str(entry.name): str(entry.version) for entry in content.packages} == LOCKED
    (tmp_path / FILE).write_text(text)
    for name in LOCKED:
        write_wheel(wheels, name, "9.0", {f"{name}.py": ""})
    venv.create(tmp_path / "there", symlinks=True)
    there, locked = Place(probe(tmp_path / "there")), read_lock(tmp_path / FILE)
    assert failed(locked, place) == {}
    assert there.install(*both, lock=locked) == ["installed", "installed"]
    assert {name: there.version(name) for name in [*LOCKED, "unrelated"]} == {**LOCKED, "unrelated": ""}
    assert failed(locked, there) == {}
    there.heard.commands.clear()
    assert there.install(*both, lock=locked) == ["already installed", "already installed"]
    assert there.heard.commands == []
    assert all(package.is_current(there.environment, True, {"flashinfer-python"}) for package in both)

    there.uv("uninstall", "-q", "beta")
    assert failed(locked, there, sglang="b" * 40) == {
        "lock: beta": ("none, locked is 2.0", "invoke setup --locked"),
        "lock: sglang commit": (f"{'b' * 40}, locked is {both[0].commit}", "invoke setup --locked"),
    }
    digest = next(line for line in locked.requirements() if line.startswith("beta")).partition("sha256:")[2]
    (tmp_path / FILE).write_text(text.replace(digest, "0" * 64))
    with pytest.raises(SourcesError, match=r"(?i)hash"):
        there.install(*both, lock=read_lock(tmp_path / FILE))
    assert not there.version("beta")
    (wheels / "beta-2.0-py3-none-any.whl").unlink()
    with pytest.raises(SourcesError, match=r"beta==2\.0") as raised:
        lock(place, *both)
    assert "pip compile" in raised.value.command
    other = replace(locked, made_on="pypy 3.1 plan9 abacus")
    with pytest.raises(InstallError, match=r"was made on pypy 3\.1 plan9 abacus; this is cpython"):
        there.install(*both, lock=other)
    assert failed(other, place)["lock: made on"][1] == "invoke lock"


def test_what_cannot_be_reproduced_is_refused_and_named(place: Place, both: tuple[Package, Package]) -> None:
    sglang, flashinfer = both
    editable = '{{"url": "{}", "dir_info": {{"editable": true}}}}'
    put(place.environment, "sglang", "0.5", ("beta",), direct_url_json=editable.format(sglang.folder.as_uri()))
    put(place.environment, "beta", "2.0", ("broken",), direct_url_json='{"url": "https://u:S3cr3t@host.example/b.whl"}')
    put(place.environment, "broken", "1", direct_url_json="")
    with pytest.raises(LocalWorkError) as raised:
        lock(place, *both, obstacles=("sgl-cookbook: 2 changed files",))
    assert raised.value.what == (
        f"This set-up cannot be reproduced: sgl-cookbook: 2 changed files; "
        f"flashinfer-python is not installed from {flashinfer.folder}; "
        "beta is installed from https://***@host.example/b.whl; broken: its metadata is missing or damaged."
    )
    assert raised.value.command == "invoke install"


TEXT = f"""lock-version = "1.0"
created-by = "uv"

[[packages]]
name = "six"
version = "1.16.0"
wheels = [{{ url = "https://host.example/six-1.16.0-py2.py3-none-any.whl", hashes = {{ sha256 = "8abb" }} }}]

[tool.flashinfer-sources]
made-on = "cpython 3.12 linux x86_64"

[[tool.flashinfer-sources.repositories]]
name = "flashinfer"
url = "https://host.example/flashinfer.git"
ref = "matching"
commit = "{"a" * 40}"
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('lock-version = "1.0"', 'lock-version = "x"'),
        ("tool.flashinfer-sources", "tool.another"),
        ("https://host.example/flashinfer.git", "ext::sh -c id"),
        ("commit = ", "comit = "),
        ('commit = "aaaa', 'commit = "--up'),
        ("[[tool.flashinfer-sources.repositories]]", "[tool.flashinfer-sources.repositories]"),
        ('ref = "matching"', 'ref = "--upload-pack=x"'),
        ('ref = "matching"', "ref = 2026-11-28"),
        ("[[packages]]", "[[packages"),
    ],
)
def test_what_is_no_lock_file_of_this_tool_is_refused_in_one_sentence(tmp_path: Path, old: str, new: str) -> None:
    assert old in TEXT
    (tmp_path / FILE).write_text(TEXT.replace(old, new))
    with pytest.raises(UsageError, match="is not a lock file of this tool"):
        read_lock(tmp_path / FILE)
    with pytest.raises(UsageError, match="No such file"):
        read_lock(tmp_path / "elsewhere")
