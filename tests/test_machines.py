"""The fabfile in docs/machines.md, run by Fabric against two SSH servers on loopback, each with its environment."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import Environment, Project
from tests.upstream.host import GitHost

PAGE = (Path(__file__).parent.parent / "docs/machines.md").read_text(encoding="utf-8")
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
CONFIGURATION = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
"""


@pytest.fixture(scope="session")
def fabric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Fabric and the Invoke 2 that it needs, from the index that pip is configured for."""
    folder = tmp_path_factory.mktemp("fabric")
    command = ["pip", "install", "-q", "--retries=0", "--timeout=20", f"--target={folder}", "fabric>=3.2"]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"Fabric cannot be installed here: {(done.stderr.splitlines() or ['?'])[-1]}")
    return folder


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[str]]:
    """Two running SSH servers, as `user@127.0.0.1:port`; `tmp_path/user_key` opens both."""
    if not SSHD:
        pytest.skip("there is no sshd here (Debian: openssh-server)")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd(8) wants it where it can change users
    for key in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / key], check=True)
    user = subprocess.check_output(["id", "-un"], text=True).strip()
    running, addresses = [], []
    try:
        for name in ("one", "two"):
            port, file = free_port(), tmp_path / f"sshd-{name}"
            file.write_text(CONFIGURATION.format(port=port, folder=tmp_path))
            running.append(subprocess.Popen([SSHD, "-D", "-e", "-f", file], stderr=subprocess.DEVNULL))
            addresses.append(f"{user}@127.0.0.1:{port}")
            for _ in range(200):
                with closing(socket.socket()) as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
        yield addresses
    finally:
        for process in running:
            process.terminate()
            process.wait()


def test_one_command_sets_up_every_host_each_with_its_own_environment_and_a_shared_cache(
    servers: list[str],
    fabric: Path,
    make_project: Callable[..., Project],
    make_environment: Callable[..., Environment],
    host: GitHost,
    tmp_path: Path,
) -> None:
    (fabfile,) = re.findall(r"as `fabfile.py`.*?```python\n(.*?)```", PAGE, re.S)
    (tmp_path / "fabfile.py").write_text(fabfile)
    projects = [make_project(f"home-{address.rpartition(':')[2]}/project") for address in servers]
    for project in projects:
        folder = f"{project.path.relative_to(tmp_path)}/.venv"
        environment = make_environment(folder)
        path = f"{project.environ['PATH']}:{sysconfig.get_path('scripts')}"  # where uv is
        variables = {**project.environ, "PATH": path}
        invoke = environment.path / "bin/invoke"
        exported = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
        invoke.write_text(f'#!/bin/sh\n{exported}exec {environment.python} -m invoke "$@" --no-deps\n')
        invoke.chmod(0o755)
    fab = [
        sys.executable, "-m", "fabric", "-i", str(tmp_path / "user_key"), "sources",
        f"--on={','.join(servers)}",
        f"--directory={tmp_path}/home-${{SSH_CONNECTION##* }}/project",  # each server's own home
        f"--cache={tmp_path}/shared",
    ]  # fmt: skip
    done = subprocess.run(
        fab, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(fabric), "HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for project in projects:
        assert project.git("sglang", "rev-parse", "HEAD") == project.git(
            "sglang", "rev-parse", "refs/remotes/origin/main"
        )
        python = project.path / ".venv/bin/python"
        code = "import flashinfer; print(flashinfer.__file__)"
        seen = subprocess.check_output([python, "-I", "-c", code], text=True)
        assert seen.startswith(str(project.path))
    assert any((tmp_path / "shared").iterdir())


def test_the_line_for_slurm_is_one_task_on_each_node() -> None:
    (line,) = re.findall(r"^srun (.*)$", PAGE, re.M)
    assert "--ntasks-per-node=1" in line
    assert line.endswith(".venv/bin/invoke setup")
