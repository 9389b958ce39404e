"""What `invoke` itself shows: help, start-up, `--dry`, a missing library."""

from __future__ import annotations

import re
import subprocess

from tests.conftest import ROOT, Project
from tests.sources import fingerprint

TASKS = ("clone", "update", "install", "verify", "setup", "status", "lock")
SLOW = ("rich", "git", "packaging", "fastjsonschema")


def test_the_list_and_the_help_explain_themselves_and_have_what_readme_says(project: Project) -> None:
    listed = project.invoke("--list").out
    assert re.findall(r"^  (\w+) ", listed, re.M) == sorted(TASKS)
    (table,) = re.findall(r"\| task \|.*?\n\n", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    rows = {task: set(re.findall(r"`(--[\w-]+)", row)) for task, row in re.findall(r"^\| `(\w+)` (.*)", table, re.M)}
    rows["update"] = rows["clone"]
    rows["setup"] = rows["clone"] | rows["install"] | rows["verify"]
    for task in TASKS:
        shown = project.invoke("--help", task).out
        assert all(len(line) <= 80 for line in shown.splitlines()), f"the help of {task} at 80 columns"
        options = re.findall(r"^ +(?:-\w, )?(--[\w\[\]-]+)", shown.partition("Options:")[2], re.M)
        assert {option.replace("[no-]", "no-") for option in options} == rows[task] | {"--json"}
        for form in ("branch", "tag", "commit id", "'latest'", "'matching'") if "--full" in rows[task] else ():
            assert form in shown, f"{form} in the help of {task}"


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


def test_dry_changes_nothing_and_says_what_would_be_done(project: Project) -> None:
    result = project.invoke("--dry", "setup", "--flashinfer-branch=matching")
    for name, ref in (("sglang", "main"), ("flashinfer", "matching")):
        assert re.search(rf"^{name} +{ref}, .*\n +clone: would clone", result.out, re.M)
    assert not project.tmp.exists()
    assert "not cloned" in project.invoke("--dry", "update", check=1).err

    project.invoke("clone")
    before = fingerprint(project.path)
    moved = project.invoke("--dry", "update", "--sglang-branch=v0.5.3").out
    assert re.search(r"^sglang +(main → )?v0.5.3, .*\n +update: would update", moved, re.M)
    assert re.search(r"^flashinfer +main, .*\n +update: up to date", moved, re.M)
    assert project.invoke("--dry", "install").out.count("would install") == 2
    assert fingerprint(project.path) == before
    (project.tmp / "sglang/README.md").write_text("mine\n")
    before = fingerprint(project.path)
    assert "stash" in project.invoke("--dry", "update", "--sglang-branch=v0.5.3", check=5).err
    assert fingerprint(project.path) == before


def test_a_missing_library_is_named_with_the_command_that_installs_it(project: Project) -> None:
    (project.path / "rich.py").write_text("raise ModuleNotFoundError(\"No module named 'rich'\", name='rich')\n")
    result = project.invoke("clone", check=2)
    assert result.err.startswith("error: rich is not installed for ")
    assert result.err.endswith(f"-m pip install -r {project.path}/tasks/requirements.txt\n")
    assert "Traceback" not in result.err
