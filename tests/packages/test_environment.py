"""What an environment says of itself and of what is installed in it."""

from __future__ import annotations

import json
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.errors import SourcesError, UsageError
from tasks.packages.environment import Environment, probe
from tasks.packages.requirements import missing_requirements


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    venv.create(tmp_path / "venv", symlinks=True)
    return probe(tmp_path / "venv")


def put(environment: Environment, name: str, version: str, requires: tuple[str, ...] = (), **files: str) -> Path:
    """Put a distribution's metadata into the environment, as an installer would."""
    info = environment.purelib / f"{name}-{version}.dist-info"
    info.mkdir()
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {one}" for one in requires)]
    (info / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")
    for file, text in files.items():
        (info / file.replace("_json", ".json")).write_text(text)
    return info


def test_the_running_interpreter_is_asked_without_starting_a_process(started: Callable[[], list[str]]) -> None:
    own = probe()
    assert started() == []
    assert (own.python, own.prefix, own.current) == (Path(sys.executable), Path(sys.prefix), True)


def test_running_and_other_interpreters_answer_alike(tmp_path: Path) -> None:
    link = tmp_path / "python"  # another path, so another process
    link.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    link.chmod(0o755)
    own, other = probe(), probe(link)
    assert (other.markers, other.prefix, other.purelib) == (own.markers, own.prefix, own.purelib)
    assert other.current


def test_another_environment_is_known_by_its_interpreter_or_its_directory(environment: Environment) -> None:
    assert environment == probe(environment.python)
    assert environment.prefix == environment.python.parent.parent
    assert environment.purelib in environment.paths
    assert environment.virtual and not environment.externally_managed
    assert not environment.current


def test_modules_in_the_current_directory_do_not_change_the_answer(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "platform", "sysconfig"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('fooled')\n")
    monkeypatch.chdir(tmp_path)
    assert probe(environment.python) == environment


@pytest.mark.parametrize(
    "text",
    [
        "#!/bin/sh\nsleep 60\n", "#!/bin/sh\nexit 1\n", '#!/bin/sh\necho "$@"\n', "no program",
        "#!/bin/sh\necho '[1]'\n",
    ],
)  # fmt: skip
def test_what_is_not_a_python_interpreter_is_reported(tmp_path: Path, text: str) -> None:
    file = tmp_path / "python"
    file.write_text(text)
    file.chmod(0o755)
    with pytest.raises(UsageError, match="python") as caught:
        probe(file, timeout=1)
    assert "--python" in caught.value.hint


def test_a_missing_interpreter_is_named_and_a_name_is_found_on_the_path(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"nowhere .*: No such file"):
        probe("nowhere")
    (environment.python.parent / "my-python").symlink_to(environment.python)
    monkeypatch.setenv("PATH", str(environment.python.parent))
    assert probe("my-python").prefix == environment.prefix


def test_an_old_python_is_called_by_its_version(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text("""#!/bin/sh\necho '{"version": "3.8.19"}'\n""")
    old.chmod(0o755)
    with pytest.raises(UsageError, match=r"python is Python 3\.8\.19; 3\.10 or newer is needed"):
        probe(old)


def test_a_distribution_is_found_under_any_spelling_of_its_name(environment: Environment) -> None:
    put(environment, "flashinfer_python", "0.6.18", ("torch",))
    found = environment.distribution("FlashInfer.Python")
    assert found is not None
    assert (found.name, found.version, found.requires) == ("flashinfer-python", "0.6.18", ("torch",))
    assert (found.editable, found.location, found.broken) == (False, None, "")
    assert environment.distribution("flashinfer") is None


def test_an_editable_distribution_has_its_directory(environment: Environment, tmp_path: Path) -> None:
    folder = tmp_path / "a b'ü#%"
    direct = json.dumps({"url": folder.as_uri(), "dir_info": {"editable": True}})
    put(environment, "sglang", "0.5.3", direct_url_json=direct)
    found = environment.distribution("sglang")
    assert found is not None
    assert (found.editable, found.location) == (True, folder)


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"url": 3}'])
def test_a_damaged_direct_url_makes_it_not_editable(environment: Environment, text: str) -> None:
    put(environment, "sglang", "0.5.3", direct_url_json=text)
    found = environment.distribution("sglang")
    assert found is not None
    assert not found.editable
    assert "direct_url.json" in found.broken


def test_metadata_that_is_not_text_or_not_a_directory_is_broken(environment: Environment) -> None:
    (put(environment, "bytes", "1") / "METADATA").write_bytes(b"Name: bytes\nVersion: \xff\n")
    (environment.purelib / "file-1.dist-info").write_text("no directory")
    for name in ("bytes", "file"):
        found = environment.distribution(name)
        assert found is not None
        assert "damaged" in found.broken


def test_incomplete_installations_are_reported_as_broken(environment: Environment) -> None:
    (put(environment, "half", "1") / "METADATA").unlink()
    put(environment, "twice", "1")
    put(environment, "twice", "2")
    for name, why in {"half": "missing", "twice": "side by side"}.items():
        found = environment.distribution(name)
        assert found is not None
        assert why in found.broken


def test_requirements_are_compared_with_what_is_installed(environment: Environment) -> None:
    put(environment, "met", "1.5rc1")
    put(environment, "old", "1.0")
    put(environment, "odd", "no-version")
    put(
        environment, "sglang", "1",
        (
            "met>=1.4", "old>=2", "absent", "odd>1", "elsewhere; sys_platform == 'never'", "past; python_version < '3'",
            "in-extra; extra == 'srt'", "sglang[srt]; extra == 'all'",
        ),
    )  # fmt: skip
    found = environment.distribution("sglang")
    assert found is not None
    assert [(str(one.requirement), one.installed) for one in missing_requirements(environment, found)] == [
        ("old>=2", "1.0"), ("absent", ""), ("odd>1", "no-version"),
    ]  # fmt: skip
    asked = missing_requirements(environment, found, ["All"])
    assert [str(one.requirement) for one in asked] == ["old>=2", "absent", "odd>1", "in-extra"]


def test_a_requirement_that_cannot_be_read_is_named(environment: Environment) -> None:
    put(environment, "sglang", "1", ("??",))
    found = environment.distribution("sglang")
    assert found is not None
    with pytest.raises(SourcesError, match=r"sglang: '\?\?'"):
        missing_requirements(environment, found)


def test_an_interpreter_of_the_operating_system_says_so() -> None:
    if not list(Path("/usr/lib").glob("python3*/EXTERNALLY-MANAGED")):
        pytest.skip("no such interpreter is installed here")
    environment = probe("/usr/bin/python3")
    assert environment.externally_managed and not environment.virtual
