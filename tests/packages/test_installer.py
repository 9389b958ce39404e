"""Which installer is used, what of its output is shown, and how its failures are explained."""

from __future__ import annotations

import os
import pty
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from invoke.config import Config
from invoke.context import Context

from tasks.errors import InstallError, NetworkError, SourcesError
from tasks.packages.environment import Environment
from tasks.packages.installer import Installer
from tasks.packages.output import explain
from tasks.packages.package import Package
from tests.packages.conftest import Heard, errors, hide_uv, install, log_of

pytestmark = pytest.mark.usefixtures("user")


def test_uv_is_taken_from_beside_the_interpreter(
    empty: Environment, make_package: Callable[..., Package], heard: Heard, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    hide_uv(tmp_path, monkeypatch)
    install([make_package("sglang")], empty, reporter=heard)
    assert all("uv pip install --python" in command for command in heard.commands)


def test_where_no_uv_runs_pip_is_used_and_installed_where_it_is_missing(
    empty: Environment, make_package: Callable[..., Package], heard: Heard, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    hide_uv(tmp_path, monkeypatch)
    (tmp_path / "bin/uv").write_text("no program for this kind of machine")
    (tmp_path / "bin/uv").chmod(0o755)
    monkeypatch.setattr("uv.find_uv_bin", lambda: str(tmp_path / "bin/uv"))
    assert errors(install([make_package("sglang")], empty, reporter=heard)) == []
    assert "-m ensurepip" in heard.commands[0]
    assert all("-m pip install" in command for command in heard.commands[1:])


def test_asking_for_an_absent_uv_is_an_error(
    empty: Environment,
    make_package: Callable[..., Package],
    heard: Heard,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hide_uv(tmp_path, monkeypatch)
    monkeypatch.setitem(sys.modules, "uv", None)  # nor is the package
    with pytest.raises(InstallError, match="uv"):
        install([make_package("sglang")], empty, installer="uv", reporter=heard)


@pytest.mark.parametrize(
    ("lines", "kind", "sentence"),
    [
        (
            ["error: failed to get `bytes` as a dependency of package `grpc`", "Caused by:", "  failed to download",
             "  [6] Could not resolve hostname (Could not resolve host: index.crates.io)"],
            NetworkError, "crates.io, where Rust packages come from, could not be reached",
        ),
        (["error: Unable to update registry `crates-io`"], NetworkError, "crates.io"),
        (["error: Failed to fetch: `https://host.example/simple/torch/`"], NetworkError, "https://host.example"),
        (
            ["Looking in indexes: https://a.example/simple, https://b.example/whl",
             "WARNING: Retrying after connection broken by 'NewConnectionError('<x>: Failed')': /torch/"],
            NetworkError, "https://a.example/simple, https://b.example/whl",
        ),
        (["WARNING: Retrying after connection broken by 'ReadTimeoutError(Read timed out.)': /simple/torch/"],
         NetworkError, "the package index could not be reached"),
        (["error: could not compile `libc`", "ValueError: x"], InstallError, "ValueError: x"),
    ],
)  # fmt: skip
def test_the_reason_of_a_failure_is_read_from_the_output(
    lines: list[str], kind: type[SourcesError], sentence: str, tmp_path: Path
) -> None:
    error = explain("sglang", 1, lines, tmp_path / "log", "pip install x")
    assert type(error) is kind
    assert sentence in error.what.splitlines()[0]
    assert (error.command, f"{tmp_path}/log" in error.hint) == ("pip install x", True)


def test_a_killed_installer_is_reported_with_its_signal(empty: Environment, heard: Heard) -> None:
    tool = Installer(Context(), empty, log_of(empty), heard)
    with pytest.raises(InstallError, match=r"signal 9"):
        tool.run("sglang", "installing", ["sh", "-c", "kill -9 $$"])


def test_phases_are_shown_while_the_installer_works_and_everything_is_in_the_log(
    empty: Environment, heard: Heard, tmp_path: Path
) -> None:
    """The command ends only after its first line has been shown."""
    flag = tmp_path / "shown"

    class Answering(Heard):
        def output(self, who: str, line: str) -> None:
            super().output(who, line)
            flag.touch()

    shown = Answering()
    wait = f"while not pathlib.Path({str(flag)!r}).exists(): time.sleep(.01)"
    lines = ["Collecting b", "Requirement already satisfied: c", "Installing collected packages: " + 99 * "a, "]
    code = f"import pathlib, time\nprint('Collecting a')\n{wait}\nprint({chr(10).join(lines)!r})"
    Installer(Context(), empty, log_of(empty), shown).run("sglang", "installing", [sys.executable, "-c", code])
    assert [line[:29] for line in shown.lines] == ["sglang: Collecting a", "sglang: Installing collected "]
    assert all(len(line) < 140 for line in shown.lines)
    log = log_of(empty).read_text().splitlines()
    assert log[0].startswith("$ ")
    assert log[-4:] == ["Collecting a", *lines[:2], lines[2].strip()]


def test_a_silent_installer_is_reported_as_still_running(
    empty: Environment, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.packages.output.SILENCE", 0.1)
    code = "import time; print('Preparing x', flush=True); time.sleep(1)"
    tool = Installer(Context(), empty, log_of(empty), heard)
    tool.run("sglang", "installing requirements", [sys.executable, "-c", code])
    assert "sglang: still installing requirements, 0 s: Preparing x" in heard.lines


def test_on_a_terminal_the_installer_draws_its_own_progress(empty: Environment, tmp_path: Path) -> None:
    """It gets a terminal, what it draws arrives unchanged, and the log has its lines."""
    code = f"""if True:
        import sys; sys.path.insert(0, {str(Path(__file__).parent.parent.parent)!r})
        from invoke import Context
        from pathlib import Path
        from tasks.packages.installer import Installer
        from tasks.packages.environment import probe
        quiet = lambda *_: None
        reporter = type("Terminal", (), {{"command": quiet, "event": quiet, "terminal": lambda self: sys.stdout}})()
        draw = "import sys; print(sys.stdout.isatty(), '\\033[1mdrawn\\033[0m'); print('------ 1/2', end='')"
        tool = Installer(Context(), probe(), Path({str(tmp_path / "log")!r}), reporter)
        tool.run("x", "installing", [sys.executable, "-c", draw])
    """
    parts: list[bytes] = []

    def read(fd: int) -> bytes:
        parts.append(os.read(fd, 1024))
        return parts[-1]

    (tmp_path / "code.py").write_text(code)
    with (tmp_path / "seen").open("wb") as seen, pytest.MonkeyPatch.context() as patch:
        patch.setattr("pty.STDOUT_FILENO", seen.fileno())
        assert pty.spawn([sys.executable, str(tmp_path / "code.py")], read, lambda fd: b"") == 0
    assert b"True \x1b[1mdrawn\x1b[0m" in b"".join(parts)
    assert b"------ 1/2" in b"".join(parts)
    assert (tmp_path / "log").read_text().splitlines()[-1] == "True drawn"


def test_a_process_that_outlives_the_installer_is_not_waited_for(empty: Environment, heard: Heard) -> None:
    tool = Installer(Context(), empty, log_of(empty), heard)
    tool.run("sglang", "installing", ["sh", "-c", "sleep 600 & echo $!"])
    os.kill(int(log_of(empty).read_text().split()[-1]), signal.SIGKILL)


def test_invokes_own_time_limit_for_commands_holds(empty: Environment, heard: Heard) -> None:
    tool = Installer(Context(Config(overrides={"timeouts": {"command": 1}})), empty, log_of(empty), heard)
    with pytest.raises(InstallError, match="did not end within 1 s"):
        tool.run("sglang", "installing", ["sleep", "600"])
