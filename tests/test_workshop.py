"""The whole workshop: four repositories, locked, and made again elsewhere from the lock, with the real commands."""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig
import venv
from collections.abc import Callable

import pytest
from mypy.modulefinder import FindModuleCache, ModuleNotFoundReason, compute_search_paths
from mypy.options import Options

from tests.conftest import Project
from tests.sources import fingerprint
from tests.upstream.host import GitHost
from tests.upstream.store import Upstream
from tests.upstream.workshop import COOKBOOK, TRACE

LOCK = "pylock.sources.toml"
PRESETS = "sources:\n  repositories: {sgl-cookbook: {}, flashinfer-trace: {}}\n"


@pytest.fixture
def workshop(make_project: Callable[..., Project]) -> Callable[[str], Project]:
    """`workshop(name)` makes a project with the two presets and without trace data of its own."""

    def make(name: str) -> Project:
        project = make_project(name)
        shutil.rmtree(project.path / "flashinfer_trace")
        project.environ["PATH"] += f":{sysconfig.get_path('scripts')}"  # where the tests' uv is
        (project.path / "invoke.yaml").write_text(PRESETS)
        return project

    return make


def target(project: Project) -> str:
    """The option that names an environment of the project's own, in which nothing is installed at first."""
    path = project.path.with_name(f"{project.path.name}-target")
    if not path.exists():
        venv.create(path, symlinks=True)
    return f"--python={path / 'bin/python'}"


def freeze(project: Project) -> str:
    command = ["uv", "pip", "freeze", "--exclude-editable", target(project)]
    return subprocess.run(command, env=project.environ, check=True, capture_output=True, text=True).stdout


def heads(project: Project) -> dict[str, str]:
    return {path.parent.name: project.git(path.parent.name, "rev-parse", "HEAD") for path in project.tmp.glob("*/.git")}


def test_two_lines_set_up_the_whole_workshop_and_its_lock_the_same_elsewhere_after_all_upstreams_moved_on(
    workshop: Callable[[str], Project], upstream: Upstream, host: GitHost
) -> None:
    """SGLang's version is that of its tag, whatever newer tags there are; mypy finds both packages."""
    upstream.move_tag("sglang", "v0.5.99")
    here = workshop("here")
    refs = ("--sglang-branch=v0.5.10.post1", "--flashinfer-branch=matching")
    found = json.loads(here.invoke("setup", *refs, "--json", target(here)).out)
    assert list(heads(here)) == ["flashinfer", "flashinfer-trace", "sgl-cookbook", "sglang"]
    assert not host.count("/lfs/")
    assert found["trace"]["path"] == str(here.tmp / "flashinfer-trace")
    versions = {name: package["version"] for name, package in found["packages"].items()}
    assert versions == {"sglang": "0.5.10.post1", "flashinfer": "0.6.7.post3"}
    options = Options()
    options.python_executable = target(here).partition("=")[2]
    finder = FindModuleCache(compute_search_paths([], options, ""), None, options)
    assert not {ModuleNotFoundReason.NOT_FOUND} & {finder.find_module(name) for name in versions}
    here.invoke("lock", target(here))
    lock = (here.path / LOCK).read_bytes()

    upstream.move_tag("sglang", "v0.5.10.post1", "main")
    upstream.move_tag("flashinfer", "v0.6.7.post3", "main")
    upstream.add_commit(COOKBOOK)
    upstream.add_commit(TRACE)
    there = workshop("there")
    (there.path / LOCK).write_bytes(lock)
    again = json.loads(there.invoke("setup", "--locked", "--json", target(there)).out)
    assert {step["ref_source"] for step in again["steps"] if step["task"] == "clone"} == {"lock file"}
    assert heads(there) == heads(here)
    assert freeze(there) == freeze(here)
    before = fingerprint(there.path, r"^tmp/\.lock")
    there.invoke("setup", "--locked", target(there))
    assert fingerprint(there.path, r"^tmp/\.lock") == before

    there.git("sgl-cookbook", "fetch", "-q", "origin", "main")
    there.git("sgl-cookbook", "checkout", "-q", "FETCH_HEAD")
    found = json.loads(there.invoke("verify", target(there), "--locked", "--json", check=1).out)
    (moved,) = [check["detail"] for check in found["checks"] if check["name"] == "lock: sgl-cookbook commit"]
    assert f"{upstream.commit(COOKBOOK)}, locked is" in moved

    (here.tmp / "sglang/README.md").write_text("mine\n")
    identity = ["-c", "user.name=U", "-c", "user.email=u@example.org"]
    here.git("flashinfer", *identity, "commit", "-q", "--allow-empty", "-m", "Mine")
    refused = here.invoke("lock", target(here), check=5)
    assert "sglang: 1 changed file" in refused.err and "flashinfer: 1 commit" in refused.err
    assert (here.path / LOCK).read_bytes() == lock
