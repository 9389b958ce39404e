"""A set-up is locked, made again elsewhere from its lock, and compared with it: with real uv and pip."""

from __future__ import annotations

import subprocess
import venv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from invoke.context import Context
from packaging.pylock import Pylock

from tasks.errors import InstallError, LocalWorkError, SourcesError, UsageError
from tasks.models import Check, Repository
from tasks.packages.environment import probe
from tasks.packages.lock import differences, make_lock
from tasks.packages.lock_file import FILE, Lock, LockedRepository, read_lock
from tasks.packages.metadata import read_toml
from tasks.packages.package import Package
from tests.packages.conftest import BACKEND, At, Place
from tests.upstream.store import git
from tests.upstream.wheels import write_wheel

pytestmark = pytest.mark.usefixtures("user")

PROJECTS = {  # repository: distribution, version, directory, requirements
    "sglang": ("sglang", "0.5", "python", ["alpha[fast]>=1", "flashinfer-python==0.6", "never; os_name == 'plan9'"]),
    "flashinfer": ("flashinfer-python", "0.6", "", ["beta"]),
    "third": ("gamma", "3.0", "", []),
}
CUTLASS = "c" * 40
LOCKED = {"alpha": "1.0", "beta": "2.0", "flashinfer-cubin": "0.6", "gamma": "3.0rc1"}


@dataclass
class SetUp(Place):
    """One directory with checkouts of both repositories, and an environment."""

    packages: list[Package] = field(default_factory=list)
    repositories: list[LockedRepository] = field(default_factory=list)

    def lock(self, *obstacles: str, **settings: Any) -> Lock:
        return make_lock(
            Context(), self.packages, self.repositories, self.environment, settings=self.settings(**settings),
            log=self.log, reporter=self.heard, obstacles=obstacles,
        )  # fmt: skip

    def install_locked(self, lock: Lock) -> list[str]:
        return self.install(*self.packages, lock=lock)

    def differences(self, lock: Lock, *overrides: str) -> list[Check]:
        return differences(lock, self.packages, self.repositories, self.environment, overrides)


@pytest.fixture
def wheels(tmp_path: Path, wheelhouse: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, user: None) -> Path:
    """The only package index: a directory of wheels, this test's own."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, version, requires in (
        ("alpha", "1.0", ["beta>=1", "gamma>=2; extra == 'fast'", "slow; extra == 'slow'"]),
        ("beta", "2.0", []),
        ("gamma", "3.0rc1", []),
        ("unrelated", "1.0", []),
        ("flashinfer-cubin", "0.6", []),
    ):
        write_wheel(folder, name, version, {f"{name}.py": ""}, requires)
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_PRERELEASE", "allow")
    monkeypatch.setenv("PIP_PRE", "1")
    return folder


@pytest.fixture
def make(tmp_path: Path, wheels: Path) -> Callable[..., SetUp]:
    """`make("here")` makes a place whose checkouts are at the same commits everywhere."""

    def make(name: str) -> SetUp:
        path = tmp_path / name
        venv.create(path / "venv", symlinks=True)
        packages = [package(path / repository, repository) for repository in ("sglang", "flashinfer")]
        repositories = [repository_of(each) for each in packages]
        cookbook = LockedRepository("sgl-cookbook", "https://u:S3cr3t@host.example/cookbook.git", "main", "a" * 40, {})
        return SetUp(probe(path / "venv"), packages=packages, repositories=[*repositories, cookbook])

    return make


def package(path: Path, name: str) -> Package:
    """A checkout, and what is to be installed of it."""
    distribution, version, subdirectory, requires = PROJECTS[name]
    folder, module = path / subdirectory, distribution.replace("-", "_")
    (folder / name).mkdir(parents=True)
    project = f'[project]\nname = "{distribution}"\nversion = "{version}"\ndependencies = {requires!r}\n'
    project += '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    backend = BACKEND.format(module=module, name=distribution, version=version, requires=requires, action="")
    for file, text in {"pyproject.toml": project, "backend.py": backend, f"{name}/__init__.py": ""}.items():
        (folder / file).write_text(text)
    git(path, "init", "-q", "--initial-branch=main")
    git(path, "add", "-A")
    commit = git(path, "write-tree")  # a tree's id is the same in every place
    checkout: Any = At(Repository(name, f"git@host.example:org/{name}.git", "main", path), commit)
    return Package(checkout)


def repository_of(package: Package) -> LockedRepository:
    repository = package.repository
    ref, submodules = ("matching", {"3rdparty/cutlass": CUTLASS}) if repository.name == "flashinfer" else ("main", {})
    return LockedRepository(repository.name, repository.url, ref, package.commit, submodules)


@pytest.fixture
def here(make: Callable[..., SetUp]) -> SetUp:
    """A set-up that was installed from the index as it was then."""
    place = make("here")
    place.uv("install", "-q", "unrelated", "flashinfer-cubin==0.6")
    place.install(*place.packages)
    return place


def test_a_lock_is_installed_elsewhere_after_newer_versions_appeared(
    here: SetUp, make: Callable[..., SetUp], wheels: Path, tmp_path: Path
) -> None:
    (tmp_path / FILE).write_text(here.lock().text())
    for name in LOCKED:
        write_wheel(wheels, name, "9.0", {f"{name}.py": ""})
    frozen = here.uv("freeze", "--exclude-editable")
    there, lock = make("there"), read_lock(tmp_path / FILE)
    assert there.install_locked(lock) == ["installed", "installed"]
    versions = {name: there.environment.distribution(name) for name in LOCKED}
    assert {name: found and found.version for name, found in versions.items()} == LOCKED
    assert not there.environment.distribution("unrelated")
    assert [check.status for check in there.differences(lock)] == ["pass"]
    assert there.uv("freeze", "--exclude-editable") == frozen.replace("unrelated==1.0\n", "")
    there.heard.commands.clear()
    assert there.install_locked(lock) == ["already installed", "already installed"]
    assert there.heard.commands == []
    assert there.differences(lock, "torch==2")[0].name == "lock: overrides"
    for each in there.packages:
        assert each.is_current(there.environment, True, {"flashinfer-python"})


def test_the_same_set_up_gives_the_same_bytes_and_no_password(here: SetUp, tmp_path: Path) -> None:
    text = here.lock().text()
    assert here.lock().text() == text
    (tmp_path / FILE).write_text(text)
    assert read_lock(tmp_path / FILE).text() == text
    assert "S3cr3t" not in text and "https://host.example/cookbook.git" in text
    assert [check.status for check in here.differences(read_lock(tmp_path / FILE))] == ["pass"]


def test_the_file_says_in_the_standards_terms_what_it_can(here: SetUp, tmp_path: Path) -> None:
    content = read_toml(here.lock().text().encode(), FILE)
    found = {str(each.name): each for each in Pylock.from_dict(content).packages}
    assert list(found) == ["alpha", "beta", "flashinfer-cubin", "flashinfer-python", "gamma", "sglang"]
    assert all(found[name].wheels and str(found[name].version) == version for name, version in LOCKED.items())
    sglang, flashinfer = found["sglang"].vcs, found["flashinfer-python"].vcs
    assert sglang and flashinfer
    assert (sglang.url, sglang.requested_revision) == ("ssh://git@host.example/org/sglang.git", "main")
    assert (sglang.commit_id, sglang.subdirectory) == (here.packages[0].commit, "python")
    assert (flashinfer.requested_revision, flashinfer.subdirectory) == (None, None)  # `matching` is no revision
    tool = content["tool"]["flashinfer-sources"]
    assert [each["ref"] for each in tool["repositories"]] == ["matching", "main", "main"]
    assert tool["repositories"][0]["submodules"] == {"3rdparty/cutlass": CUTLASS}
    assert tool["made-on"]["python_version"] == here.environment.markers["python_version"]


def test_uv_accepts_the_file(here: SetUp, make: Callable[..., SetUp]) -> None:
    there = make("there")
    (there.path / FILE).write_text(here.lock().text())
    command = ["uv", "pip", "install", "--dry-run", "-r", FILE, "--python", str(there.environment.python)]
    accepted = subprocess.run(command, cwd=there.path, check=True, capture_output=True, text=True).stderr
    assert {"alpha==1.0", "gamma==3.0rc1"} < {line.removeprefix(" + ") for line in accepted.splitlines()}
    assert (
        f"sglang @ git+ssh://git@host.example/org/sglang.git@{here.packages[0].commit}#subdirectory=python" in accepted
    )


def test_each_difference_is_found_and_named(here: SetUp, wheels: Path) -> None:
    lock = here.lock()

    def failed() -> dict[str, str]:
        checks = here.differences(lock)
        assert {check.status for check in checks} == {"fail"}
        assert {check.command for check in checks} == {"invoke setup --locked"}
        return {check.name.removeprefix("lock: "): check.detail for check in checks}

    same = list(here.repositories)
    sglang, flashinfer, cookbook = same
    here.repositories = [replace(sglang, commit="b" * 40), flashinfer, cookbook]
    assert failed() == {"sglang commit": f"{'b' * 40}, locked is {sglang.commit}"}
    here.repositories = [sglang, replace(flashinfer, submodules={"3rdparty/spdlog": CUTLASS}), cookbook]
    assert failed() == {
        "flashinfer 3rdparty/cutlass": f"none, locked is {CUTLASS}",
        "flashinfer 3rdparty/spdlog": f"{CUTLASS}, locked is none",
    }
    here.repositories = [sglang, flashinfer, replace(cookbook, url="https://u:S3cr3t@elsewhere.example/x")]
    assert failed() == {"sgl-cookbook url": "https://elsewhere.example/x, locked is https://host.example/cookbook.git"}
    here.repositories = [sglang, flashinfer]
    assert set(failed()) == {"sgl-cookbook url", "sgl-cookbook commit"}
    here.repositories = same
    sglang_package = here.packages[0]
    checkout: Any = At(replace(sglang_package.repository, extras=("srt",)), sglang_package.commit)
    here.packages[0] = Package(checkout)
    assert failed() == {"sglang extras": "srt, locked is none"}
    here.packages[0] = sglang_package

    write_wheel(wheels, "beta", "2.1", {"beta.py": ""}, ["delta"])
    write_wheel(wheels, "delta", "4.0", {"delta.py": ""})
    here.uv("install", "-q", "beta==2.1")
    here.uv("uninstall", "-q", "gamma")
    alpha = wheels / "alpha-1.0-py3-none-any.whl"
    here.uv("install", "-q", "--reinstall-package=alpha", str(alpha))
    assert failed() == {
        "alpha version": f"1.0 from {alpha}, locked is 1.0",
        "beta version": "2.1, locked is 2.0",
        "delta version": "4.0, locked is none",
        "gamma version": "none, locked is 3.0rc1",
    }


def test_another_python_or_platform_is_reported(here: SetUp, make: Callable[..., SetUp]) -> None:
    lock = replace(here.lock(), made_on={**here.lock().made_on, "python_version": "3.9", "sys_platform": "darwin"})
    there = make("there")
    with pytest.raises(InstallError, match=r"python_version is 3.*, not 3.9, sys_platform is linux, not darwin"):
        there.install_locked(lock)
    assert not there.environment.distribution("alpha")
    found = {check.name: check.detail for check in here.differences(lock)}
    assert set(found) == {"lock: python_version", "lock: sys_platform"}
    assert found["lock: sys_platform"] == "linux, locked is darwin"


def test_what_cannot_be_reproduced_is_refused_and_named(here: SetUp, wheels: Path, tmp_path: Path) -> None:
    third = package(tmp_path / "third", "third")
    here.uv("install", "-q", "--reinstall-package=beta", str(wheels / "beta-2.0-py3-none-any.whl"))
    here.uv("install", "-q", "--no-deps", "-e", str(third.folder))
    with pytest.raises(LocalWorkError) as raised:
        here.lock("sgl-cookbook: 2 changed files")
    beta = (wheels / "beta-2.0-py3-none-any.whl").as_uri()
    assert raised.value.what == (
        "This set-up cannot be reproduced: sgl-cookbook: 2 changed files; "
        f"beta is installed from {beta}; gamma is installed from {third.folder.as_uri()}."
    )
    here.uv("uninstall", "-q", "sglang")
    with pytest.raises(LocalWorkError, match=f"sglang is not installed from {here.packages[0].folder}") as raised:
        here.lock()
    assert raised.value.command == "invoke install"


def test_versions_that_the_index_no_longer_has_are_named(here: SetUp, wheels: Path) -> None:
    (wheels / "beta-2.0-py3-none-any.whl").unlink()
    write_wheel(wheels, "beta", "2.1", {"beta.py": ""})
    with pytest.raises(SourcesError, match=r"beta==2\.0") as raised:
        here.lock()
    assert "pip compile" in raised.value.command


def test_nothing_is_installed_of_files_that_are_not_the_locked_ones(
    here: SetUp, make: Callable[..., SetUp], wheels: Path
) -> None:
    lock = here.lock()
    write_wheel(wheels, "beta", "2.0", {"beta.py": "changed = True\n"})
    there = make("there")
    with pytest.raises(SourcesError, match=r"(?i)hash"):
        there.install_locked(lock)
    assert not there.environment.distribution("beta")


def test_what_is_not_a_lock_file_of_this_tool_is_refused_in_one_sentence(here: SetUp, tmp_path: Path) -> None:
    text = here.lock().text()
    for old, new in (
        ('lock-version = "1.0"', 'lock-version = "x"'),
        ("tool.flashinfer-sources", "tool.another"),
        ('"3rdparty/cutlass" = "cccc', '"3rdparty/cutlass" = "--up'),
        ("https://host.example/cookbook.git", "ext::sh -c id"),
        ("extras = []", "extras = 5"),
        ("commit = ", "comit = "),
        ('ref = "main"', 'ref = "--upload-pack=x"'),
        ('ref = "main"', "ref = 2026-11-28"),
        ('name = "sgl-cookbook"', "name = [1]"),
        ("overrides = []", "overrides = 5"),
        ("[[packages]]", "[[packages"),
    ):
        assert old in text
        (tmp_path / FILE).write_text(text.replace(old, new))
        with pytest.raises(UsageError, match="is not a lock file of this tool"):
            read_lock(tmp_path / FILE)


def test_a_missing_lock_file_is_named_with_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file") as raised:
        read_lock(tmp_path / FILE)
    assert raised.value.command == "invoke lock"
