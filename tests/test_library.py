"""The tasks as functions of a script, as a part of another project's tasks, and with further repositories."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.conftest import Project
from tests.sources import Result
from tests.upstream.store import Upstream

PACKAGE = {
    "pyproject.toml": '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
    '[project]\nname = "bench"\nversion = "1.5"\n[tool.setuptools]\npackages = ["bench"]\n',
    "bench/__init__.py": "",
}
AS_FUNCTIONS = """
from invoke import Config, Context
from tasks import clone, update, verify
from tasks.errors import SourcesError
from tasks.models import Check, Failed, Outcome, RepositoryState, Result, Verification

context = Context(Config(overrides={"run": {"hide": "both"}}))
outcomes = clone(context, sglang_branch="v0.5.3")
assert [outcome.repository for outcome in clone(context, only="sglang")] == ["sglang"]
assert all(isinstance(outcome, Outcome) for outcome in outcomes)
for outcome in outcomes:
    print("got", outcome.repository, outcome.action, outcome.ref, outcome.version)
try:
    verify(context)
except Failed as failed:
    assert isinstance(failed.result, Result)
    found = failed.result.verification
    assert isinstance(found, Verification) and isinstance(found.repositories["sglang"], RepositoryState)
    assert all(isinstance(check, Check) for check in found.checks)
    print("got", failed.code, found.ok, found.repositories["sglang"].directories["models"])
    assert "sglang: installed: sglang is not installed" in str(failed)
try:
    update(context, flashinfer_branch="nothing-like-it")
except Failed as failed:
    assert isinstance(failed.result.error, SourcesError)
    print("got", failed.code, failed.result.steps, failed)
"""
ROOT = Path(__file__).parent.parent
PART = """
from invoke import Collection, task
from sources import namespace

@task
def hello(c):
    print("hello")

ns = Collection(hello)
ns.add_collection(namespace, "sources")
"""


def script(project: Project, code: str) -> Result:
    """Run Python code in the project's folder."""
    command = [str(project.environment.python), "-c", code]
    run = subprocess.run(command, cwd=project.path, env=project.environ, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return Result(run.returncode, run.stdout, run.stderr)


def test_the_tasks_are_functions_that_return_and_raise_typed_values(project: Project) -> None:
    printed = script(project, AS_FUNCTIONS)
    sglang, flashinfer, verified, failed = re.findall("^got (.*)", printed.out, re.M)
    assert sglang == "sglang cloned v0.5.3 0.5.3"
    assert flashinfer == "flashinfer cloned main 0.7.4"
    assert verified == f"1 False {project.tmp}/sglang/python/sglang/srt/models"
    assert re.match("2 {} flashinfer: https:.*nothing-like-it", failed)


def test_the_example_in_the_documentation_runs_and_is_typed(project: Project, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?from tasks import.*?)```", (ROOT / "docs/library.md").read_text(), re.S)
    (project.path / "invoke.yaml").write_text("sources: {directory: elsewhere}\n")
    project.environ["INVOKE_SOURCES_REPOSITORIES_SGLANG_BRANCH"] = "v0.5.3"
    cloning = example.replace("setup", "clone").replace('sglang_branch="latest", ', "").partition("for outcome")[0]
    printed = script(project, cloning)
    assert printed.out == ""
    assert 'version = "0.5.3"' in (project.path / "elsewhere/sglang/python/pyproject.toml").read_text()
    misspelt = example.replace("sglang_branch", "sglang_brach")
    for name, code in {"example": f"{example}\nreveal_type(setup)\n", "misspelt": misspelt}.items():
        (tmp_path / f"{name}.py").write_text(code)
    shutil.copytree(ROOT / "tasks", tmp_path / "tasks")
    options = ("--strict", "--config-file=", f"--cache-dir={tmp_path}/cache", "--follow-imports=silent")
    command = [sys.executable, "-m", "mypy", *options, "example.py", "misspelt.py"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    (error,) = re.findall(r"^\S+ error: .*", run.stdout, re.M)
    assert error.startswith("misspelt.py:") and 'Unexpected keyword argument "sglang_brach"' in error
    (revealed,) = re.findall(r'Revealed type is "(.*)"', run.stdout)
    assert revealed.startswith("def (c: invoke.context.Context") and "Any" not in revealed
    assert (ROOT / "tasks/py.typed").is_file()


def test_the_collection_is_a_part_of_another_projects_under_a_name_of_its_own(project: Project) -> None:
    shutil.move(project.path / "tasks", project.path / "sources")
    (project.path / "tasks.py").write_text(PART)
    (project.path / "invoke.yaml").write_text("sources: {directory: third_party}\n")
    assert "sources.setup" in project.invoke("--list").out
    assert project.invoke("hello").out == "hello\n"
    project.invoke("sources.clone", "--sglang-branch=v0.5.3")
    assert (project.path / "third_party/sglang/.git").is_dir()


def test_a_further_repository_says_whether_it_is_installed(project: Project, upstream: Upstream) -> None:
    project.environ["PATH"] += f":{sysconfig.get_path('scripts')}"  # where the tests' uv is
    upstream.add_commit("somebody/bench", "trunk", PACKAGE)
    upstream.add_commit("somebody/notes", "main", {"notes.txt": "notes\n"})
    entries = "notes: {url: %s/notes}, bench: {url: %s/bench, branch: trunk, install: true}"
    there = "https://github.com/somebody"
    (project.path / "invoke.yaml").write_text(f"sources: {{repositories: {{{entries % (there, there)}}}}}\n")
    found = json.loads(project.invoke("setup", "--no-deps", "--only=notes", "--only=bench", "--json").out)
    assert found["repositories"]["notes"]["path"] == str(project.tmp / "notes")
    assert found["packages"]["bench"] == {"version": "1.5", "editable": True, "location": str(project.tmp / "bench")}
    assert "notes" not in found["packages"]
    printed = project.environment.run("import bench; print(bench.__file__)")
    assert printed.out == f"{project.tmp}/bench/bench/__init__.py\n"
