"""What `invoke` itself is told: help, mistakes, broken configuration, its own flags, completion, start-up."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from tests.conftest import Project
from tests.sources import fingerprint
from tests.upstream.host import GitHost

TASKS = ("clone", "update", "install", "verify", "setup", "status", "lock")
SLOW = ("rich", "git", "packaging", "tenacity", "platformdirs", "psutil", "fastjsonschema")


def test_the_list_and_the_help_explain_themselves(project: Project) -> None:
    listed = project.invoke("--list").out
    assert re.findall(r"^  (\w+) ", listed, re.M) == sorted(TASKS)
    shown = {task: project.invoke("--help", task).out for task in TASKS}
    for task in ("clone", "update", "setup"):
        for form in ("branch", "tag", "commit id", "'latest'", "'matching'"):
            assert form in shown[task], f"{form} in the help of {task}"
        assert "--sglang-branch=STRING" in shown[task]
    for task, text in shown.items():
        assert "--json" in text
        assert all(len(line) <= 80 for line in text.splitlines()), f"the help of {task} at 80 columns"
    assert "--[no-]deps" in shown["install"]


def test_nothing_slow_is_imported_before_it_is_needed(project: Project) -> None:
    for arguments in (["--list"], ["--help", "clone"]):
        run = subprocess.run(
            [project.environment.python, "-X", "importtime", "-m", "invoke", *arguments],
            cwd=project.path, env=project.environ, capture_output=True, text=True, check=True,
        )  # fmt: skip
        imported = set(re.findall(r"\|\s+([\w.]+)$", run.stderr, re.M))
        assert "tasks" in imported
        assert not imported & set(SLOW)
        assert {name for name in imported if name.startswith("tasks.")} <= {
            f"tasks.{name}" for name in ("settings", "names", "errors", "verify")
        }


def test_completion_knows_tasks_and_options(project: Project) -> None:
    script = project.invoke("--print-completion-script", "bash").out
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert set(TASKS) <= set(project.invoke("--complete", "--", "invoke").out.split())
    assert "--sglang-branch" in project.invoke("--complete", "--", "invoke", "setup", "--").out.split()


def test_dry_changes_nothing_and_says_what_would_be_done(project: Project) -> None:
    result = project.invoke("--dry", "setup", "--flashinfer-branch=matching")
    for name, ref in (("sglang", "main"), ("flashinfer", "matching")):
        assert re.search(rf"^{name} +{ref}, .*\n +clone: would clone", result.out, re.M)
    assert not project.tmp.exists()
    assert "would clone" in project.invoke("--dry", "clone").out
    assert "not cloned" in project.invoke("--dry", "update", check=1).err

    project.invoke("clone")
    before = fingerprint(project.path)
    assert re.search(r"^sglang +main, .*\n +clone: already cloned", project.invoke("--dry", "clone").out, re.M)
    moved = project.invoke("--dry", "update", "--sglang-branch=v0.5.3").out
    assert re.search(r"^sglang +(main → )?v0.5.3, .*\n +update: would update", moved, re.M)
    assert re.search(r"^flashinfer +main, .*\n +update: up to date", moved, re.M)
    assert project.invoke("--dry", "install").out.count("would install") == 2
    assert json.loads(project.invoke("--dry", "verify", "--json", check=1).out)["ok"] is False
    assert fingerprint(project.path) == before
    (project.tmp / "sglang/README.md").write_text("mine\n")
    before = fingerprint(project.path)
    assert "stash" in project.invoke("--dry", "update", "--sglang-branch=v0.5.3", check=5).err
    assert fingerprint(project.path) == before


def test_echo_shows_the_commands_that_are_run(project: Project, host: GitHost) -> None:
    out = project.invoke("--echo", "clone").out
    assert "git ls-remote --heads --tags -- https://github.com/sgl-project/sglang.git" in out
    assert re.search(r"^cd \S+ && git .*fetch ", out, re.M)
    assert "git" not in project.invoke("--echo", "clone", "--hide=out").out.replace(str(host.url), "")


def test_the_tasks_are_found_from_a_folder_below_and_work_where_they_stand(project: Project) -> None:
    below: Path = project.path / "docs/notes"
    below.mkdir(parents=True)
    project.invoke("clone", cwd=below)
    assert (project.tmp / "sglang/.git").is_dir()
    assert not list(below.iterdir())


def test_a_missing_library_is_named_with_the_command_that_installs_it(project: Project) -> None:
    (project.path / "rich.py").write_text("raise ModuleNotFoundError(\"No module named 'rich'\", name='rich')\n")
    result = project.invoke("clone", check=2)
    assert result.err.startswith("error: rich is not installed for ")
    assert result.err.endswith(f"-m pip install -r {project.path}/tasks/requirements.txt\n")
    assert "Traceback" not in result.err
