"""A finished set-up: `--json` at each kind of exit (report/test_document.py has all combinations), and `verify` of one
that is damaged, and after the commands that it names."""

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

from tasks.models import Repository
from tasks.settings import DEFAULTS
from tasks.verify import checkouts
from tests.conftest import ROOT, Project, new_environment, new_folder, unknown_user
from tests.sources import Result
from tests.upstream.__main__ import write_configuration
from tests.upstream.host import GitHost
from tests.upstream.store import Upstream

SCHEMA = json.loads((ROOT / "tasks/verify/schemas/result.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


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
    read(project.invoke("setup", "--json"), "setup")
    subprocess.run(["cp", "-a", project.tmp, folder / "finished"], check=True)
    return project


@pytest.fixture
def project(finished: Project, github_host: GitHost) -> Project:
    """The project as `invoke setup` left it, at one place, as its environment knows it. The environment is shared:
    every run below fails before it changes it, or leaves it repaired."""
    changed = [finished.path / name for name in ("tmp", "bin", "invoke.yaml", "pylock.sources.toml")]
    subprocess.run(["rm", "-rf", *changed], check=True)
    subprocess.run(["cp", "-a", finished.path.with_name("finished"), finished.tmp], check=True)
    github_host.reset()
    return Project(finished.path, dict(finished.environ), lambda: finished.environment)


def read(result: Result, task: str) -> dict[str, Any]:
    """The object that the task printed, which is all that it printed there."""
    commands: list[str] = []

    def note(value: dict[str, Any]) -> dict[str, Any]:
        commands.append(value.get("command") or "")
        return value

    found: dict[str, Any] = json.loads(result.out, object_hook=note)
    VALIDATOR.validate(found)
    assert (found["task"], found["exit_status"], found["ok"]) == (task, result.status, result.status == 0)
    assert "Traceback" not in result.err
    subprocess.run(["sh", "-n", "-c", "\n".join(commands)], check=True)
    return found


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


def interrupted_build(project: Project, host: GitHost) -> None:
    """The parent of uv alone is interrupted, which waits for uv."""
    backend = project.tmp / "flashinfer/build_backend.py"
    parent = "int(open(f'/proc/{os.getppid()}/stat').read().rpartition(')')[2].split()[1])"
    interrupt = f"import os, signal\nos.kill({parent}, signal.SIGINT)\n"
    backend.write_text(f"{backend.read_text()}\n\n{interrupt}")


@pytest.mark.parametrize(
    ("words", "status", "situation"),
    [
        ("status", 0, not_cloned),
        ("verify", 0, as_it_is),
        ("verify", 2, wrong_configuration),
        ("clone", 3, network_down),
        ("install --reinstall", 4, unwritable_log),
        ("update --sglang-branch=v0.5.3", 5, local_changes),
        ("install --reinstall", 6, broken_build),
        ("install --reinstall", 130, interrupted_build),
    ],
)
def test_each_exit_prints_one_object(
    words: str, status: int, situation: Callable[[Project, GitHost], None], project: Project, github_host: GitHost
) -> None:
    task, *options = words.split()
    situation(project, github_host)
    found = read(project.invoke(task, *options, "--json", check=status, timeout=60), task)
    errors = [step["error"] for step in [found, *found["steps"]] if step["error"]]
    bad = [check for check in found.get("checks", ()) if check["status"] in ("fail", "warn")]
    assert not errors if status == 0 else errors or bad


def faults(project: Project, *options: str, check: int) -> dict[str, str]:
    """The failed checks of `invoke verify`, each with its command."""
    checks = read(project.invoke("verify", *options, "--json", check=check), "verify")["checks"]
    return {check["name"]: check["command"] for check in checks if check["status"] == "fail"}


def test_damage_is_named_with_the_commands_that_repair_it(project: Project) -> None:
    cutlass, sglang = project.tmp / "flashinfer/3rdparty/cutlass", project.tmp / "sglang"
    project.git("flashinfer", "clean", "-qxdf")  # what the build generated
    for path in cutlass.iterdir():
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(sglang / "python/sglang/srt/models")
    project.git("sglang", "checkout", "-q", "--detach", "HEAD")
    commands = {
        "flashinfer: submodules": f"git -C {cutlass} checkout-index --all --quiet",
        "flashinfer: imports": "invoke install --reinstall",
        "sglang: models": f"git -C {sglang} checkout HEAD -- python/sglang/srt/models",
        "sglang: ref": "invoke update",
    }
    assert faults(project, check=1) == commands
    for command in sorted(commands.values()):  # git's first
        program, *words = command.split()
        if program == "invoke":
            project.invoke(*words)
        else:
            subprocess.run([program, *words], env=project.environ, check=True)
    assert faults(project, check=0) == {}


def in_process(checkout: Path) -> dict[str, str]:
    """The details of the checks of a checkout of SGLang, by name."""
    found = checkouts.find(Repository("sglang", DEFAULTS["repositories"]["sglang"]["url"], "main", checkout))
    return {check.name: check.detail for check in checkouts.check_checkout(found)}


def test_a_users_branch_is_shown_and_metadata_that_cannot_be_read_is_named_with_its_line(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in project.environ.items():
        monkeypatch.setenv(name, value)
    sglang = project.tmp / "sglang"
    project.git("sglang", "switch", "-q", "-c", "mine")
    assert in_process(sglang)["ref"].startswith("your branch mine (")
    pyproject = sglang / "python/pyproject.toml"
    text = pyproject.read_text()
    pyproject.write_text(f"{text}\n[project\n")
    assert [*in_process(sglang)] == ["metadata"]
    assert f"line {text.count(chr(10)) + 2}" in in_process(sglang)["metadata"]


def test_of_what_is_not_cloned_there_is_one_check(project: Project) -> None:
    shutil.rmtree(project.tmp / "sglang")
    assert faults(project, "--only=sglang", check=1) == {"sglang: repository": "invoke clone"}


def test_a_run_that_waits_for_another_prints_the_object_alone(project: Project) -> None:
    with (project.tmp / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = project.start("clone", "--json")
        assert process.stdout and process.stderr
        assert any("waiting for" in line for line in process.stderr)
        assert not select.select([process.stdout], [], [], 0)[0]
    out, err = process.communicate(timeout=60)
    read(Result(process.returncode, out, err), "clone")


@pytest.mark.skipif(not shutil.which("jq"), reason="jq is not installed")
def test_the_examples_of_the_documentation_run(project: Project) -> None:
    invoke = project.path / "bin/invoke"
    invoke.parent.mkdir()
    invoke.write_text(f'#!/bin/sh\nexec {project.environment.python} -m invoke "$@"\n')
    invoke.chmod(0o755)
    environ = {**project.environ, "PATH": f"{invoke.parent}:{project.environ['PATH']}"}
    examples = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/json.md").read_text(encoding="utf-8"), re.S)
    command = ["bash", "-e", "-c", "".join(examples)]
    printed = subprocess.check_output(command, cwd=project.path, env=environ, text=True)
    assert f"{project.tmp}/sglang/python/sglang/srt/models" in printed.splitlines()
    assert re.search(r"^\S+ [\d.]+ 0 behind$", printed, re.M)
    assert json.loads((project.path / "verify.json").read_text())["ok"]
