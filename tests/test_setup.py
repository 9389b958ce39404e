"""`invoke setup` as a whole: what stops it early, the steps in their order, and what a failure stops."""

from __future__ import annotations

import json
import sysconfig
from typing import Any

import pytest

from tasks.errors import UsageError
from tasks.run import Options
from tests.conftest import Project
from tests.upstream.host import GitHost

FETCH = r"upload-pack\? fetch"
KNOWN = ("sglang", "flashinfer")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"flashinfer_branch": ""}, "--flashinfer-branch has an empty value."),
        ({"python": ""}, "--python has an empty value."),
        ({"only": [""]}, "--only has an empty value."),
        ({"only": ["sglng"]}, "unknown repository sglng in --only.\n  Did you mean `sglang`?"),
        ({"only": ["sglang"], "flashinfer_branch": "main"}, "--flashinfer-branch is given, but --only leaves out"),
        ({"junit": "x.xml"}, "--junit needs --kernels"),
        ({"sglang_branch": "a..b"}, "REF: 'a..b' is not valid"),
        ({"locked": True, "only": ["sglang"]}, "--locked takes every repository"),
    ],
)
def test_options_that_cannot_be_meant_are_usage_errors(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as error:
        Options(**options).check(KNOWN)
    assert str(error.value).startswith(told)


def test_options_that_go_together_are_accepted() -> None:
    Options(only=["sglang"], sglang_branch="v0.5.23", kernel=["rmsnorm"], junit="x.xml").check(KNOWN)
    Options(locked=True, strict=True, python="/usr/bin/python3").check(KNOWN)


def test_a_suggested_command_is_the_one_that_was_given_corrected() -> None:
    options = Options(sglang_branch="main", flashinfer_branch="v0.7.3", deps=False, only=["sglang", "my repo"])
    expected = "invoke setup --sglang-branch=main --flashinfer-branch=v0.7.4 --only=sglang '--only=my repo' --no-deps"
    assert options.command("setup", flashinfer_branch="v0.7.4") == expected


def test_a_wrong_ref_stops_everything_before_anything_is_downloaded(project: Project, host: GitHost) -> None:
    result = project.invoke("setup", "--sglang-branch=main", "--flashinfer-branch=v0.6.7.pst3", check=2)
    assert host.count(FETCH) == 0 and not (project.tmp / "sglang").exists()
    assert result.err.endswith("  invoke setup --sglang-branch=main --flashinfer-branch=v0.6.7.post3\n")


def test_a_configured_branch_that_does_not_exist_stops_setup_before_install(project: Project) -> None:
    (project.path / "invoke.yaml").write_text("sources: {repositories: {flashinfer: {branch: nothing-like-it}}}\n")
    found = json.loads(project.invoke("setup", "--json", check=2).out)
    assert [(step["task"], step["repository"], step["action"]) for step in found["steps"]] == [
        ("clone", "sglang", "cloned"), ("clone", "flashinfer", "failed"),
    ]  # fmt: skip


def test_a_repository_that_cannot_be_cloned_does_not_stop_the_other_nor_comes_from_an_index(
    project: Project, host: GitHost
) -> None:
    project.environ["PATH"] += f":{sysconfig.get_path('scripts')}"  # where the tests' uv is
    host.fault("status", on="flashinfer", status=404, times=100)
    assert json.loads(project.invoke("setup", "--json", check=3).out)["packages"]["sglang"]["editable"]
    there = project.environment.run("import importlib.util; print(importlib.util.find_spec('flashinfer'))")
    assert there.out == "None\n"
