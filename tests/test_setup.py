"""`invoke setup` as a whole: the steps in their order, and what a failure stops."""

from __future__ import annotations

import json

from tests.conftest import Project
from tests.upstream.host import GitHost


def test_a_setup_from_nothing_verifies_and_a_second_one_asks_each_remote_one_question(
    project: Project, host: GitHost
) -> None:
    first = project.invoke("setup", "--flashinfer-branch=matching")
    assert "sglang" in first.out and "0.6.7.post3" in first.out
    before = {file: file.stat().st_mtime_ns for file in project.tmp.rglob("*") if not file.name.startswith(".lock")}
    host.reset()
    second = project.invoke("setup", "--flashinfer-branch=matching")
    assert second.out.count("already installed") == 2
    assert [str(request).rpartition(" ")[2] for request in host.requests if request.method == "POST"] == ["ls-refs"] * 2
    after = {file: file.stat().st_mtime_ns for file in project.tmp.rglob("*") if not file.name.startswith(".lock")}
    files = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
    assert [path for path in files if not path.is_dir() and "__pycache__" not in str(path)] == []


def test_a_repository_that_cannot_be_cloned_does_not_stop_the_other_nor_comes_from_an_index(
    project: Project, host: GitHost
) -> None:
    host.fault("status", on="flashinfer", status=404, times=100)
    result = project.invoke("setup", check=3)
    assert "install: skipped, clone failed" in result.out
    state = json.loads(project.invoke("verify", "--json", check=1).out)
    assert state["packages"]["sglang"]["editable"]
    there = project.environment.run("import importlib.util; print(importlib.util.find_spec('flashinfer'))")
    assert there.out == "None\n"
