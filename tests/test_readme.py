"""What README and the workflow say is what happens. RECORD=1 in the environment rewrites README's sessions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from invoke.vendor import yaml

from tasks.config.defaults import DEFAULTS
from tasks.packages.layouts import LAYOUTS
from tests.conftest import Environment, Project

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
HOME = "/home/you/project"
SESSION = re.compile(r"```console\n(.*?)```", re.S)
INSTALL = "python3 -m venv .venv && .venv/bin/pip install "


@pytest.fixture
def shell(project: Project, make_environment: Callable[[str], Environment], tools: Path) -> Project:
    """A project with its environment in `.venv`, as README has it, on the PATH; uv is there, too."""
    environment = make_environment(f"{project.path.name}/.venv")
    (site,) = environment.path.glob("lib/python*/site-packages")
    (site / "tools.pth").unlink()
    for source in tools.iterdir():  # copied, as uv looks for what is installed in this folder alone
        if source.name != "pip":
            (shutil.copytree if source.is_dir() else shutil.copy)(source, site / source.name)
    invoke = environment.path / "bin/invoke"
    invoke.write_text('#!/bin/sh\nexec "$(dirname "$0")/python" -m invoke "$@"\n')
    invoke.chmod(0o755)
    project._environment.append(environment)
    project.environ["PATH"] = f"{invoke.parent}:{project.environ['PATH']}:{sysconfig.get_path('scripts')}"
    return project


def run(command: str, project: Project) -> str:
    """What a shell shows of the command, and its exit status if that is not 0."""
    done = subprocess.run(
        ["bash", "-c", command], cwd=project.path, env=project.environ, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    told = re.sub(r" +$", "", done.stdout, flags=re.M).replace(str(project.path), HOME)
    return told + (f"(exit status {done.returncode})\n" if done.returncode else "")


def settled(text: str) -> list[str]:
    """The lines without times, sizes, widths and the order of what runs side by side."""
    text = re.sub(r"Python [\d.]+|\d\d:\d\d:\d\d|\d+(\.\d+)?(ms| ?s| kB| MB| min)\b", "N", text)
    return sorted(" ".join(line.split()) for line in text.splitlines() if line.strip())


def test_the_sessions_are_what_is_seen(shell: Project) -> None:
    whole = TEXT
    for session in SESSION.finditer(TEXT):
        commands = re.findall(r"^\$ (.*)$", session[1], re.M)
        seen = "\n".join(f"$ {command}\n{run(command, shell)}" for command in commands)
        whole = whole.replace(session[0], f"```console\n{seen}```")
        if "RECORD" not in os.environ:
            assert settled(seen) == settled(session[1])
    if "RECORD" in os.environ:
        README.write_text(whole, encoding="utf-8")


def test_the_configuration_shown_is_the_default() -> None:
    (shown,) = re.findall(r"these are the defaults:\n\n```yaml\n(.*?)```", TEXT, re.S)
    tree = yaml.safe_load(shown)["sources"]  # type: ignore[no-untyped-call]
    assert {key: value if key == "repositories" else str(value) for key, value in tree.items()} == DEFAULTS


def test_options_in_the_table_exist_and_none_is_missing(shell: Project) -> None:
    helped = shell.invoke("--help", "setup").out
    options = {
        option.replace("[no-]", "no-") for option in re.findall(r"--[\w\[\]-]+", helped.partition("Options:")[2])
    }
    (table,) = re.findall(r"\| task \|.*?\n\n", TEXT, re.S)
    assert set(re.findall(r"`(--[\w-]+)", table)) == options


def test_the_commands_install_what_pyproject_offers() -> None:
    commands = re.findall(rf"^{re.escape(INSTALL)}.*$", TEXT, re.M)
    assert f"{INSTALL}. && .venv/bin/invoke setup" in commands
    assert f"{INSTALL}'.[test]' && .venv/bin/python -m pytest -n auto" in commands
    assert "\ntest = [" in (ROOT / "pyproject.toml").read_text()


def test_nothing_private_is_said() -> None:
    assert not re.search(r"/work/|/root/|\bissue \d|localhost|127\.0\.0\.1", TEXT)
    assert set(LAYOUTS) <= set(re.findall(r"\w+", TEXT))


def test_the_workflow_runs_what_exists(shell: Project) -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]  # type: ignore[no-untyped-call]
    assert [step["run"] for step in jobs["tests"]["steps"] if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci/run", os.X_OK)
    subprocess.run(["bash", "-n", ROOT / ".ci/run"], check=True)
    kept = next(step["with"]["path"] for step in jobs["sources"]["steps"] if "cache@" in step.get("uses", ""))
    shell.environ.update(jobs["sources"]["env"] | {"GITHUB_ACTIONS": "true"})
    first, *steps = [step["run"] for step in jobs["sources"]["steps"] if "run" in step]
    assert first == f"{INSTALL}."
    for step in steps:
        done = subprocess.run(
            ["bash", "-e", "-c", step], cwd=shell.path, env=shell.environ, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert all(any((shell.path / path).iterdir()) for path in kept.split())
