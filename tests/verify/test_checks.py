"""`invoke verify` of a real set-up that has been damaged, and after the commands that it names."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tasks.models import Repository
from tasks.settings import DEFAULTS
from tasks.verify import checkouts
from tests.conftest import Project


def verify(project: Project, *options: str, check: int) -> dict[str, Any]:
    """The checks by name."""
    done = project.invoke("verify", *options, "--json", check=check)
    return {check["name"]: check for check in json.loads(done.out)["checks"]}


def faults(checks: dict[str, Any]) -> dict[str, str]:
    """The failed checks, each with its command."""
    return {name: check["command"] for name, check in checks.items() if check["status"] == "fail"}


def test_of_what_is_not_cloned_there_is_one_check(project: Project) -> None:
    checks = verify(project, "--only=sglang", check=1)
    assert [name for name in checks if name.startswith("sglang")] == ["sglang: repository"]
    assert faults(checks) == {"sglang: repository": "invoke clone"}


def test_damage_is_named_with_the_commands_that_repair_it(project: Project, surroundings: None) -> None:
    project.invoke("setup", "--flashinfer-branch=matching")
    cutlass, sglang = project.tmp / "flashinfer/3rdparty/cutlass", project.tmp / "sglang"

    project.git("flashinfer", "clean", "-qxdf")  # what the build generated
    for path in cutlass.iterdir():
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(sglang / "python/sglang/srt/models")
    project.git("sglang", "checkout", "-q", "--detach", "HEAD")
    checks = verify(project, check=1)
    assert checks["flashinfer: imports"]["detail"].startswith("imports as 0.0.0+unknown, but ")
    assert faults(checks) == {
        "flashinfer: submodules": f"git -C {cutlass} checkout-index --all --quiet",
        "flashinfer: imports": "invoke install --reinstall",
        "sglang: models": f"git -C {sglang} checkout HEAD -- python/sglang/srt/models",
        "sglang: ref": "invoke update",
    }
    for command in sorted(faults(checks).values()):  # git's first
        words = shlex.split(command)
        if words[0] == "invoke":
            project.invoke(*words[1:])
        else:
            subprocess.run(words, env=project.environ, check=True)
    assert faults(verify(project, check=0)) == {}

    project.git("sglang", "switch", "-q", "-c", "mine")
    assert in_process(sglang)["ref"].startswith("your branch mine (")
    pyproject = sglang / "python/pyproject.toml"
    text = pyproject.read_text()
    pyproject.write_text(f"{text}\n[project\n")
    assert [*in_process(sglang)] == ["metadata"]
    assert f"line {text.count(chr(10)) + 2}" in in_process(sglang)["metadata"]


def in_process(checkout: Path) -> dict[str, str]:
    """The details of the checks of a checkout of SGLang, by name."""
    found = checkouts.find(Repository("sglang", DEFAULTS["repositories"]["sglang"]["url"], "main", checkout))
    return {check.name: check.detail for check in checkouts.check_checkout(found)}
