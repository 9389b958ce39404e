"""`--json` end to end: every task, and every kind of failure. report/test_document.py has all combinations."""

from __future__ import annotations

import fcntl
import json
import re
import select
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.conftest import ROOT, Project, new_environment, new_folder, unknown_user
from tests.sources import Result
from tests.upstream.__main__ import write_configuration
from tests.upstream.host import GitHost
from tests.upstream.store import Upstream

SCHEMA = json.loads((ROOT / "tasks/verify/schemas/result.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
TASKS = ("clone", "update", "install", "verify", "setup", "lock")


@pytest.fixture(scope="module")
def github_host(built: Upstream) -> Iterator[GitHost]:
    """A host for all tests of this module; none of them changes an upstream."""
    with GitHost(built.root) as host:
        yield host


@pytest.fixture(scope="module")
def finished(
    github_host: GitHost, wheelhouse: dict[str, str], tools: Path, tmp_path_factory: pytest.TempPathFactory
) -> Project:
    """A project after `invoke setup`, and a copy of its checkouts beside it."""
    folder = tmp_path_factory.mktemp("json")
    environ = unknown_user(folder / "home", wheelhouse)
    configuration = write_configuration(folder / "gitconfig", github_host.url)
    environment = new_environment(folder / "venv", tools)
    environ |= {"GIT_CONFIG_GLOBAL": str(configuration), "INVOKE_SOURCES_ATTEMPTS": "1"}
    project = Project(new_folder(folder / "project"), environ, lambda: environment)
    project.invoke("setup")
    subprocess.run(["cp", "-a", project.tmp, folder / "finished"], check=True)
    return project


@pytest.fixture
def project(finished: Project, github_host: GitHost) -> Project:
    """The project as `invoke setup` left it, at one place, as its environment knows it. The environment is shared:
    every run below that would change it fails, and so leaves it as it was."""
    changed = [finished.path / name for name in ("tmp", "bin", "invoke.yaml", "pylock.sources.toml")]
    subprocess.run(["rm", "-rf", *changed], check=True)
    subprocess.run(["cp", "-a", finished.path.with_name("finished"), finished.tmp], check=True)
    github_host.reset()
    return Project(finished.path, dict(finished.environ), lambda: finished.environment)


def as_it_is(project: Project, host: GitHost) -> None:
    pass


def not_cloned(project: Project, host: GitHost) -> None:
    shutil.rmtree(project.tmp)


def wrong_configuration(project: Project, host: GitHost) -> None:
    (project.path / "invoke.yaml").write_text("sources: {stall: 0}\n")


def network_down(project: Project, host: GitHost) -> None:
    shutil.rmtree(project.tmp / "flashinfer")
    host.fault("status", status=503, times=99)


def unwritable_log(project: Project, host: GitHost) -> None:
    (project.tmp / "install.log").unlink(missing_ok=True)
    (project.tmp / "install.log").mkdir()


def local_changes(project: Project, host: GitHost) -> None:
    (project.tmp / "sglang/README.md").write_text("mine\n")


def broken_build(project: Project, host: GitHost) -> None:
    (project.tmp / "flashinfer/build_backend.py").write_text("raise SystemExit('no build today')\n")


def interrupted(project: Project, host: GitHost) -> None:
    """The first git that the task starts presses Ctrl-C, and waits for its end (GitPython asks for the version)."""
    wrapper = project.path / "bin/git"
    wrapper.parent.mkdir()
    real = shutil.which("git")
    wrapper.write_text(f'#!/bin/sh\ncase "$*" in *version) exec {real} "$@";; esac\nkill -INT $PPID\nexec sleep 60\n')
    wrapper.chmod(0o755)
    project.environ["PATH"] = f"{wrapper.parent}:{project.environ['PATH']}"


def interrupted_build(project: Project, host: GitHost) -> None:
    """The parent of uv alone is interrupted, which waits for uv."""
    backend = project.tmp / "flashinfer/build_backend.py"
    parent = "int(open(f'/proc/{os.getppid()}/stat').read().rpartition(')')[2].split()[1])"
    interrupt = f"import os, signal\nos.kill({parent}, signal.SIGINT)\n"
    backend.write_text(f"{backend.read_text()}\n\n{interrupt}")


Situation = Callable[[Project, GitHost], None]
CASES: tuple[tuple[str, int, Situation], ...] = (
    ("clone", 3, network_down),
    ("clone", 130, interrupted),
    ("update --sglang-branch=v0.5.3", 5, local_changes),
    ("install --python=/nothing/python", 2, as_it_is),
    ("install --reinstall", 4, unwritable_log),
    ("install --reinstall", 6, broken_build),
    ("install --reinstall", 130, interrupted_build),
    ("verify", 0, as_it_is),
    ("status", 0, as_it_is),
    ("status", 0, not_cloned),
    ("verify", 2, wrong_configuration),
    ("setup", 0, as_it_is),
    ("lock", 0, as_it_is),
    ("lock", 1, not_cloned),
)


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in it."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(each)


def read(result: Result, task: str) -> dict[str, Any]:
    """The object that the task printed, which is all that it printed there."""
    found: dict[str, Any] = json.loads(result.out)
    VALIDATOR.validate(found)
    assert (found["task"], found["exit_status"], found["ok"]) == (task, result.status, result.status == 0)
    assert "Traceback" not in result.err
    commands = [each["command"] for each in objects(found) if each.get("command")]
    for command in commands:
        assert subprocess.run(["sh", "-n", "-c", command], check=False).returncode == 0, command
    return found


@pytest.mark.parametrize(
    ("words", "status", "situation"), CASES, ids=[f"{words}-{status}-{each.__name__}" for words, status, each in CASES]
)
def test_each_exit_prints_one_object(
    words: str, status: int, situation: Situation, project: Project, github_host: GitHost
) -> None:
    task, *options = words.split()
    situation(project, github_host)
    found = read(project.invoke(task, *options, "--json", check=status, timeout=60), task)
    errors = [each["error"] for each in [found, *found["steps"]] if each["error"]]
    bad = [check for check in found.get("checks", ()) if check["status"] in ("fail", "warn")]
    assert not errors if status == 0 else errors or bad


def test_a_run_that_waits_for_another_prints_the_object_alone(project: Project) -> None:
    with (project.tmp / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = project.start("setup", "--json")
        assert process.stdout and process.stderr
        assert any("waiting for" in line for line in process.stderr)
        assert not select.select([process.stdout], [], [], 0)[0]
    out, err = process.communicate(timeout=60)
    read(Result(process.returncode, out, err), "setup")


@pytest.mark.skipif(not shutil.which("jq"), reason="jq is not installed")
def test_the_examples_of_the_documentation_run(project: Project) -> None:
    invoke = project.path / "bin/invoke"
    invoke.parent.mkdir()
    invoke.write_text(f'#!/bin/sh\nexec {project.environment.python} -m invoke "$@"\n')
    invoke.chmod(0o755)
    environ = {**project.environ, "PATH": f"{invoke.parent}:{project.environ['PATH']}"}
    (first, second) = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/json.md").read_text(encoding="utf-8"), re.S)
    printed = subprocess.run(
        ["bash", "-e", "-c", first + second], cwd=project.path, env=environ, capture_output=True, text=True, check=False
    )
    assert printed.returncode == 0, printed.stderr
    assert f"{project.tmp}/sglang/python/sglang/srt/models" in printed.stdout.splitlines()
    assert re.search(r"^\S+ [\d.]+ 0 behind$", printed.stdout, re.M)
    assert json.loads((project.path / "verify.json").read_text())["ok"]
