"""Files that Git LFS tracks: pointers at first, whatever git-lfs is set up globally, and the files where asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tasks.checkout.lfs import LfsFiles, bring_lfs, check_lfs, read_lfs
from tasks.errors import NetworkError, SourcesError
from tasks.git.command import execute, run
from tasks.models import Network, Repository
from tests.conftest import Project
from tests.upstream import lfs
from tests.upstream.host import GitHost
from tests.upstream.store import Upstream

NAME = "flashinfer-ai/blobs"
BLOBS = {f"blob/{n}.safetensors": bytes([n]) * (2000 + n) for n in range(3)}
SIZE = 6003
FILTER = {
    "clean": "git-lfs clean -- %f",
    "smudge": "git-lfs smudge -- %f",
    "process": "git-lfs filter-process",
    "required": "true",
}
needs_lfs = pytest.mark.skipif(not shutil.which("git-lfs"), reason="git-lfs is not installed")


@dataclass
class Heard:
    """A reporter that keeps the events, and how much was done."""

    events: list[str] = field(default_factory=list)
    done: list[float] = field(default_factory=list)

    def event(self, who: str, message: str) -> None:
        self.events.append(f"{who}: {message}")

    warn = event

    def progress(self, who: str, doing: str, done: float | None, moved: int, rate: float) -> None:
        self.done.append(done or 0)

    def command(self, *_: object) -> None: ...

    def output(self, *_: object) -> None: ...

    def checked(self, group: str, checks: object) -> None: ...

    def terminal(self) -> None: ...


def network(heard: Heard | None = None) -> Network:
    return Network(attempts=2, stall=10, reporter=heard or Heard())


def git(path: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=path, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[GitHost]:
    """A host with one repository whose large files are stored with Git LFS."""
    upstream = Upstream(tmp_path / "upstream")
    path = upstream.path(NAME)
    attributes = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
    upstream.add_commit(NAME, files={".gitattributes": attributes, "small.txt": "small\n"})
    upstream.add_commit(NAME, files={name: lfs.store(path, data) for name, data in BLOBS.items()})
    with GitHost(upstream.root) as host:
        yield host


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a user without any configuration of git."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return tmp_path


@pytest.fixture
def configured(home: Path) -> Path:
    """The home of a user who has set up git-lfs for all repositories (git-lfs-install(1))."""
    for key, value in FILTER.items():
        git(home, "config", "--global", f"filter.lfs.{key}", value)
    return home


def clone(host: GitHost, path: Path, *, lfs: bool = False) -> Repository:
    """Clone as the program does."""
    url = f"{host.url}/{NAME}.git"
    path.parent.mkdir(exist_ok=True)
    assert execute(path.parent, ("clone", "-q", url, str(path)), {}).status == 0
    return Repository("blobs", url, "main", path, install=False, lfs=lfs)


def changed_once_touched(path: Path) -> str:
    """What the program's git takes for changed when it can't tell by times and sizes."""
    for file in path.glob("blob/*"):
        os.utime(file, (1, 1))
    return run(path, "status", "--porcelain")


def test_a_checkout_has_pointers_though_git_lfs_is_missing_and_configured(
    blobs: GitHost, configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (configured / "bin").mkdir()
    for tool in ("git", "sh"):
        (configured / "bin" / tool).symlink_to(str(shutil.which(tool)))
    monkeypatch.setenv("PATH", str(configured / "bin"))
    repository = clone(blobs, configured / "tmp/blobs")
    assert read_lfs(repository.path) == LfsFiles(total=3, pointers=3, size=SIZE, missing=SIZE)
    assert changed_once_touched(repository.path) == ""
    with pytest.raises(SourcesError, match="needs git-lfs") as raised:
        bring_lfs(repository, network())
    assert "Debian" in raised.value.hint and raised.value.command == ""
    (configured / "bin/apt-get").symlink_to("/bin/false")
    with pytest.raises(SourcesError) as raised:
        bring_lfs(repository, network())
    assert raised.value.command == "sudo apt-get install git-lfs"


@needs_lfs
def test_a_checkout_has_pointers_though_git_lfs_is_configured(blobs: GitHost, configured: Path) -> None:
    repository = clone(blobs, configured / "tmp/blobs")
    assert read_lfs(repository.path) == LfsFiles(3, 3, SIZE, SIZE)
    assert not blobs.count("lfs")
    assert changed_once_touched(repository.path) == git(repository.path, "status", "--porcelain") == ""


@needs_lfs
def test_the_whole_workshop_is_two_lines_and_its_blobs_are_pointers(project: Project, host: GitHost) -> None:
    (project.path / "invoke.yaml").write_text("sources: {repositories: {sgl-cookbook: {}, flashinfer-trace: {}}}\n")
    for key, value in FILTER.items():
        subprocess.run(["git", "config", "--global", f"filter.lfs.{key}", value], env=project.environ, check=True)
    project.invoke("clone")
    assert (project.tmp / "sgl-cookbook/README.md").is_file()
    assert read_lfs(project.tmp / "flashinfer-trace").pointers == 1
    assert not host.count("/lfs")
    assert project.git("flashinfer-trace", "status", "--porcelain") == ""


@needs_lfs
def test_the_users_own_pull_brings_the_files_and_the_checkout_stays_unchanged(blobs: GitHost, configured: Path) -> None:
    repository = clone(blobs, configured / "tmp/blobs")
    git(repository.path, "lfs", "pull")
    assert {name: (repository.path / name).read_bytes() for name in BLOBS} == BLOBS
    assert changed_once_touched(repository.path) == git(repository.path, "status", "--porcelain") == ""
    assert read_lfs(repository.path) == LfsFiles(3, 0, 0, 0)


@needs_lfs
def test_files_are_brought_where_asked_for_and_only_once(blobs: GitHost, home: Path) -> None:
    repository, heard = clone(blobs, home / "tmp/blobs", lfs=True), Heard()
    assert bring_lfs(repository, network(heard)) == SIZE
    assert heard.events == ["blobs: downloading 3 files with Git LFS (6.0 kB)"]
    assert {name: (repository.path / name).read_bytes() for name in BLOBS} == BLOBS
    assert changed_once_touched(repository.path) == git(repository.path, "status", "--porcelain") == ""
    assert heard.done == sorted(heard.done) and heard.done[-1] == 1
    blobs.reset()
    assert bring_lfs(repository, network(heard)) == 0
    assert not blobs.requests


@needs_lfs
def test_only_what_is_missing_is_downloaded(blobs: GitHost, home: Path) -> None:
    repository = clone(blobs, home / "tmp/blobs", lfs=True)
    bring_lfs(repository, network())
    pointer = git(repository.path, "show", "HEAD:blob/1.safetensors")
    (repository.path / "blob/1.safetensors").write_text(pointer)
    blobs.reset()
    assert read_lfs(repository.path) == LfsFiles(3, 1, 2001, 0)
    assert bring_lfs(repository, network()) == 0
    assert not blobs.count("GET .*lfs")
    assert (repository.path / "blob/1.safetensors").read_bytes() == BLOBS["blob/1.safetensors"]


@needs_lfs
def test_a_file_that_the_server_does_not_have_is_an_error_that_says_so(blobs: GitHost, home: Path) -> None:
    repository = clone(blobs, home / "tmp/blobs", lfs=True)
    shutil.rmtree(Upstream(blobs.root).path(NAME) / "lfs")
    with pytest.raises(NetworkError, match=r"^blobs: \S+/blobs\.git: .*not exist on the server") as raised:
        bring_lfs(repository, network())
    assert raised.value.what.isprintable() and "%" not in raised.value.what
    assert read_lfs(repository.path).pointers == 3


@needs_lfs
def test_a_server_that_falls_silent_is_given_up(blobs: GitHost, home: Path) -> None:
    repository = clone(blobs, home / "tmp/blobs", lfs=True)
    blobs.fault("stall", "lfs/objects", times=99)
    with pytest.raises(NetworkError, match=r"blobs: .*no data for 1 s"):
        bring_lfs(repository, Network(attempts=1, stall=1, reporter=Heard()))


def test_verify_counts_pointers_and_files_and_names_the_command(blobs: GitHost, home: Path) -> None:
    repository = clone(blobs, home / "tmp/blobs")
    check = check_lfs(repository)
    assert check and (check.name, check.status) == ("blobs: Git LFS", "pass")
    assert check.detail == "files: 0, pointers: 3 (to 6.0 kB, of which 6.0 kB are not downloaded)"
    asked = check_lfs(replace(repository, lfs=True))
    assert asked and asked.status == "fail"
    if shutil.which("git-lfs"):
        subprocess.run(check.command, shell=True, check=True)
        done = check_lfs(replace(repository, lfs=True))
        assert done and (done.status, done.detail, done.command) == ("pass", "files: 3, pointers: 0", "")


def test_a_repository_without_lfs_has_no_such_check(blobs: GitHost, home: Path) -> None:
    repository = clone(blobs, home / "tmp/blobs")
    git(repository.path, "checkout", "-q", "HEAD~1")
    assert check_lfs(repository) is None
    assert bring_lfs(repository, network()) == 0
