"""`invoke setup` as a whole: the steps in their order, and what a failure stops."""

from __future__ import annotations

import json
import sysconfig

from tests.conftest import Project
from tests.upstream.host import GitHost


def test_a_repository_that_cannot_be_cloned_does_not_stop_the_other_nor_comes_from_an_index(
    project: Project, host: GitHost
) -> None:
    project.environ["PATH"] += f":{sysconfig.get_path('scripts')}"  # where the tests' uv is
    host.fault("status", on="flashinfer", status=404, times=100)
    result = project.invoke("setup", check=3)
    assert "install: skipped (clone failed)" in result.out
    state = json.loads(project.invoke("verify", "--json", check=1).out)
    assert state["packages"]["sglang"]["editable"]
    there = project.environment.run("import importlib.util; print(importlib.util.find_spec('flashinfer'))")
    assert there.out == "None\n"
