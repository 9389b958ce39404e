"""What an environment says of itself and of what is installed in it."""

from __future__ import annotations

import json
import venv
from pathlib import Path

import pytest

from tasks.errors import SourcesError, UsageError
from tasks.packages.environment import Distribution, Environment, missing_requirements, probe
from tests.packages.conftest import put


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    venv.create(tmp_path / "venv", symlinks=True)
    return probe(tmp_path / "venv")


def find(environment: Environment, name: str) -> Distribution:
    found = environment.distribution(name)
    assert found is not None
    return found


def test_another_environment_is_known_by_its_directory_its_interpreter_or_a_name_on_the_path(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "platform", "sysconfig"):  # modules in the current directory are not imported
        (tmp_path / f"{name}.py").write_text("raise SystemExit('fooled')\n")
    monkeypatch.chdir(tmp_path)
    assert environment == probe(environment.python)
    assert environment.prefix == environment.python.parent.parent
    assert environment.purelib in environment.paths
    assert environment.virtual and not environment.current
    (environment.purelib / "noise.pth").write_text("import sys; print('hello')\n")
    (environment.python.parent / "my-python").symlink_to(environment.python)
    monkeypatch.setenv("PATH", str(environment.python.parent))
    assert probe("my-python").prefix == environment.prefix
    with pytest.raises(UsageError, match=r"nowhere .*: No such file") as caught:
        probe("nowhere")
    assert "--python" in caught.value.hint


OLD = '["/", "/", "/", "3.8.19", []]'


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("sleep 60", "does not answer"),
        ("exit 1", "does not answer"),
        ("echo '[1]'", "does not answer"),
        (f"echo '{OLD}'", r"is Python 3\.8\.19; 3\.10 or newer is needed"),
    ],
)
def test_what_is_no_python_interpreter_or_too_old_is_reported(tmp_path: Path, script: str, why: str) -> None:
    file = tmp_path / "python"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    with pytest.raises(UsageError, match=why):
        probe(file, timeout=1)


def test_a_distribution_is_found_under_any_spelling_of_its_name_with_its_directory(
    environment: Environment, tmp_path: Path
) -> None:
    folder = tmp_path / "a b'ü#%"
    direct = json.dumps({"url": folder.as_uri(), "dir_info": {"editable": True}})
    put(environment, "flashinfer_python", "0.6.18", ("torch",), direct_url_json=direct)
    found = find(environment, "FlashInfer.Python")
    assert (found.name, found.version, found.requires) == ("flashinfer-python", "0.6.18", ("torch",))
    assert (found.editable, found.location, found.broken) == (True, folder, "")
    assert environment.distribution("flashinfer") is None


def test_metadata_that_is_missing_or_damaged_or_there_twice_is_broken(environment: Environment) -> None:
    (put(environment, "bytes", "1") / "METADATA").write_bytes(b"Name: bytes\nVersion: \xff\n")
    (put(environment, "half", "1") / "METADATA").unlink()
    (environment.purelib / "file-1.dist-info").write_text("no directory")
    put(environment, "twice", "1")
    put(environment, "twice", "2")
    for name, why in {"bytes": "damaged", "half": "missing", "file": "missing", "twice": "side by side"}.items():
        assert why in find(environment, name).broken
    for number, text in enumerate(["", "no JSON", "[]", "{}", '{"url": 3}']):
        put(environment, f"direct{number}", "1", direct_url_json=text)
        assert "damaged" in find(environment, f"direct{number}").broken


def test_requirements_are_compared_with_what_is_installed(environment: Environment) -> None:
    for name, version in {"met": "1.5rc1", "old": "1.0", "odd": "no-version"}.items():
        put(environment, name, version)
    requires = (
        "met>=1.4", "old>=2", "absent", "odd>1", "elsewhere; sys_platform == 'never'", "past; python_version < '3'",
        "in-extra; extra == 'srt'", "sglang[srt]; extra == 'all'",
    )  # fmt: skip
    put(environment, "sglang", "1", requires)
    found = find(environment, "sglang")
    missing = missing_requirements(environment, found)
    unmet = [("old>=2", "1.0"), ("absent", ""), ("odd>1", "no-version")]
    assert [(str(one), version) for one, version in missing.items()] == unmet
    wanted = missing_requirements(environment, found, ["All"], ["absent; sys_platform == 'never'", "old<2"])
    assert [str(one) for one in wanted] == ["odd>1", "in-extra"]
    with pytest.raises(SourcesError, match=r"sources\.overrides: '=='"):
        missing_requirements(environment, found, (), ["=="])
