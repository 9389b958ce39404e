"""What this machine has for kernels and their compilers: driver, GPUs, CUDA toolkits, memory."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..names import shell
from ..packages import Environment

GB = 1_000_000_000
JOB = 4 * GB  # memory assumed for a compile job; one nvcc takes 2 to 8 GB
DEFAULT_HOME = "/usr/local/cuda"
PROBE = Path(__file__).with_name("cuda_probe.py")


class Toolkit(NamedTuple):
    """A directory with a CUDA toolkit, whether it exists or not. `source` says what named it, `release` is the version
    of its nvcc, empty if that cannot be run."""

    home: str
    source: str
    release: tuple[int, ...]

    @property
    def nvcc(self) -> str:
        """Its compiler."""
        return f"{self.home}/bin/nvcc"


def run(argv: Sequence[str | Path], timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program and return what it printed; where it cannot be run to its end, why is in `stderr`."""
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout,
            check=False, **options,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(argv, -1, "", str(error))


def activated(environment: Environment, environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` with the environment's programs first on the PATH, where FlashInfer looks for ninja."""
    return {**environ, "PATH": f"{environment.python.parent}{os.pathsep}{environ.get('PATH', os.defpath)}"}


def add_command(environment: Environment, package: str) -> str:
    """Return the command that installs `package` into the environment."""
    return shell(sys.executable, "-m", "uv", "pip", "install", "--python", environment.python, package)


def ask_driver(environment: Environment, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what `cuda_probe.ask` returns; of a driver that crashes or hangs, that as its `error`."""
    asked = run([environment.python, "-I", PROBE], env=environ)
    try:
        answer: dict[str, Any] = json.loads(asked.stdout)
    except ValueError:
        return {"cuda": [], "error": f"asking it ended with status {asked.returncode}", "gpus": []}
    return answer


def toolkits(environ: Mapping[str, str]) -> list[Toolkit]:
    """Return the CUDA toolkits of `CUDA_HOME`, of the nvcc on the PATH and in /usr/local/cuda. FlashInfer uses the
    first; at least that is returned."""
    on_path = shutil.which("nvcc", path=environ["PATH"])
    homes = {
        "CUDA_HOME": environ.get("CUDA_HOME", ""),
        "nvcc on the PATH": str(Path(on_path).parent.parent) if on_path else "",
        "the default": DEFAULT_HOME,
    }
    return [Toolkit(home, source, _release(f"{home}/bin/nvcc")) for source, home in homes.items() if home]


def _release(nvcc: str) -> tuple[int, ...]:
    version = re.search(r"release (\d+)\.(\d+)", run([nvcc, "--version"]).stdout)
    return (int(version[1]), int(version[2])) if version else ()


def wanted_jobs(environ: Mapping[str, str]) -> int:
    """Return how many compile jobs ninja would run at once: `MAX_JOBS`, or the number of processors plus two."""
    given = environ.get("MAX_JOBS", "")
    return int(given) if given.isdigit() else (os.cpu_count() or 1) + 2


def available_memory() -> int:
    """Return the bytes of memory that are available now, within a container's limit (cgroup v2)."""
    free = int(re.findall(r"MemAvailable: *(\d+)", Path("/proc/meminfo").read_text())[0]) * 1024
    try:
        limit, used, stat = (Path(f"/sys/fs/cgroup/memory.{name}").read_text() for name in ("max", "current", "stat"))
        cached = sum(map(int, re.findall(r"^(?:in)?active_file (\d+)", stat, re.M)))
        return max(0, min(free, int(limit) - int(used) + cached))
    except (OSError, ValueError):  # no such limit
        return free
