"""`invoke verify` of a real set-up that has been damaged, and after the command that it names."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from typing import Any

from tasks.packages import probe
from tests.conftest import Project


def verify(project: Project, *options: str, check: int | None = 0) -> dict[str, Any]:
    """The checks by name."""
    done = project.invoke("verify", *options, "--json", check=check)
    return {check["name"]: check for check in json.loads(done.out)["checks"]}


def faults(checks: dict[str, Any], group: str) -> dict[str, str]:
    """The failed checks of a group, each with its command."""
    return {
        name: check["command"]
        for name, check in checks.items()
        if check["status"] == "fail" and name.startswith(f"{group}: ")
    }


def follow(project: Project, command: str) -> None:
    """Run a command of `invoke` or `git`."""
    words = shlex.split(command)
    if words[0] == "invoke":
        project.invoke(*words[1:])
    else:
        subprocess.run(words, env=project.environ, check=True)


def test_of_what_is_not_cloned_there_is_one_check(project: Project) -> None:
    checks = verify(project, "--only=sglang", check=1)
    assert [name for name in checks if name.startswith("sglang")] == ["sglang: repository"]
    assert faults(checks, "sglang") == {"sglang: repository": "invoke clone"}


def test_damage_is_named_with_the_command_that_repairs_it(project: Project) -> None:
    project.invoke("setup", "--flashinfer-branch=matching")
    checkout = project.tmp / "flashinfer"

    project.git("flashinfer", "clean", "-qxdf")  # what the build generated
    checks = verify(project, check=1)
    assert faults(checks, "flashinfer") == {"flashinfer: imports": "invoke install --reinstall"}
    assert checks["flashinfer: imports"]["detail"].startswith("imports as 0.0.0+unknown, but ")
    follow(project, "invoke install --reinstall")
    assert faults(verify(project), "flashinfer") == {}

    submodule = checkout / "3rdparty/cutlass"
    for path in submodule.iterdir():
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (command,) = faults(verify(project, check=1), "flashinfer").values()
    follow(project, command)
    assert faults(verify(project, check=None), "flashinfer") == {}

    pyproject = project.tmp / "sglang/python/pyproject.toml"
    text = pyproject.read_text()
    pyproject.write_text(f"{text}\n[project\n")
    checks = verify(project, "--only=sglang", check=1)
    assert [*faults(checks, "sglang")] == ["sglang: metadata"]
    assert f"line {text.count(chr(10)) + 2}" in checks["sglang: metadata"]["detail"]
    pyproject.write_text(text)
    assert faults(verify(project, "--only=sglang", check=None), "sglang") == {}

    shutil.rmtree(project.tmp / "sglang/python/sglang/srt/models")
    (command,) = faults(verify(project, "--only=sglang", check=1), "sglang").values()
    follow(project, command)
    project.git("sglang", "checkout", "-q", "--detach", "HEAD")
    assert faults(verify(project, "--only=sglang", check=1), "sglang") == {"sglang: ref": "invoke update"}
    follow(project, "invoke update")
    shutil.rmtree(next(probe(project.environment.python).purelib.glob("sglang-*.dist-info")))
    assert faults(verify(project, "--only=sglang", check=1), "sglang") == {"sglang: installed": "invoke install"}
    follow(project, "invoke install")
    assert faults(verify(project), "sglang") == {}

    project.git("sglang", "switch", "-q", "-c", "mine")
    assert verify(project)["sglang: ref"]["detail"].startswith("your branch mine (")
