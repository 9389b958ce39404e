"""Fixtures for odd surroundings: no right to write, an operating system's Python; and a count of started processes."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STARTS = ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty", "os.exec", "os.system")
_seen: list[str] = []
_hooked: list[bool] = []


@pytest.fixture
def started() -> Callable[[], list[str]]:
    """A function that tells what processes were started in this test so far."""
    if not _hooked:  # an audit hook (PEP 578) cannot be taken off again
        sys.addaudithook(lambda event, args: _seen.append(f"{event} {args}") if event in STARTS else None)
        _hooked.append(True)
    _seen.clear()
    return lambda: list(_seen)


def _drop_rights() -> None:
    """In a child of root: keep root from ignoring the rights of files (capabilities(7), CAP_DAC_*)."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):
        libc.prctl(24, capability, 0, 0, 0)


@pytest.fixture
def unprivileged() -> Callable[[str], str]:
    """A function that runs code like somebody who is not root, and returns what it prints."""

    def run(code: str) -> str:
        probe = "import os, tempfile; d = tempfile.mkdtemp(); os.chmod(d, 0o555); print(os.access(d, os.W_OK))"
        drop = _drop_rights if os.getuid() == 0 else None
        if subprocess.check_output([sys.executable, "-c", probe], preexec_fn=drop, text=True) != "False\n":
            pytest.skip("this root cannot give up its rights")
        done = subprocess.run(
            [sys.executable, "-c", code],
            preexec_fn=drop, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    return run


@pytest.fixture
def managed(tmp_path: Path) -> Path:
    """The interpreter of a Python that is no virtual environment, and is the operating system's to manage (PEP 668)."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    base, copy = Path(sys.base_prefix), tmp_path / "usr"
    (copy / "bin").mkdir(parents=True)
    (copy / "lib" / name / "site-packages").mkdir(parents=True)
    shutil.copy2(Path(sys._base_executable).resolve(), copy / "bin" / name)  # type: ignore[attr-defined]
    for entry in (base / "lib" / name).iterdir():
        if entry.name not in ("site-packages", "dist-packages", "EXTERNALLY-MANAGED"):
            (copy / "lib" / name / entry.name).symlink_to(entry)
    for library in (base / "lib").glob("libpython*"):
        (copy / "lib" / library.name).symlink_to(library)
    (copy / "lib" / name / "EXTERNALLY-MANAGED").write_text("[externally-managed]\nError=Use apt.\n")
    python = copy / "bin" / name
    prefix = subprocess.check_output([python, "-c", "import sys; print(sys.prefix)"], text=True).strip()
    if Path(prefix) != copy:
        pytest.skip("a copy of this Python does not stand on its own")
    return python
