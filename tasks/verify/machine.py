"""What this machine has for kernels and their compilers: driver, GPUs, CUDA toolkit, memory."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import processes
from ..packages import Environment

GB = 1_000_000_000
JOB = 4 * GB  # memory assumed for a compile job; one nvcc takes 2 to 8 GB
DEFAULT_HOME = "/usr/local/cuda"
PROBE = Path(__file__).with_name("cuda_probe.py")


@dataclass(frozen=True)
class Toolkit:
    """The CUDA toolkit that FlashInfer would use, whether it exists or not. `source` says what it was chosen by,
    `release` is the version of its nvcc, empty if that cannot be run."""

    home: str
    nvcc: str
    source: str
    release: tuple[int, ...]


def activated(environment: Environment, environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` with the environment's programs first on the PATH, where FlashInfer looks for ninja."""
    return {**environ, "PATH": f"{environment.python.parent}{os.pathsep}{environ.get('PATH', os.defpath)}"}


def add_command(environment: Environment, package: str) -> str:
    """Return the command that installs `package` into the environment."""
    python = str(environment.python)
    start = [python, "-m", "pip", "install"] if environment.has_pip else ["uv", "pip", "install", "--python", python]
    return shlex.join([*start, package])


def ask_driver(environment: Environment, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what `cuda_probe.ask` returns; of a driver that crashes or hangs, that as its `error`."""
    asked = processes.run([environment.python, "-I", PROBE], env=environ, timeout=60)
    try:
        answer: dict[str, Any] = json.loads(asked.output)
    except ValueError:
        return {"cuda": [], "error": asked.ended or f"asking it ended with status {asked.status}", "gpus": []}
    return answer


def find_toolkit(environ: Mapping[str, str]) -> Toolkit:
    """Return the CUDA toolkit that FlashInfer would use: the first of `CUDA_HOME`, `CUDA_PATH`, that of the nvcc on the
    PATH, and /usr/local/cuda. `FLASHINFER_NVCC` replaces its nvcc."""
    home, source = DEFAULT_HOME, "the default"
    if on_path := shutil.which("nvcc", path=environ["PATH"]):
        home, source = str(Path(on_path).parent.parent), "nvcc on the PATH"
    for name in ("CUDA_PATH", "CUDA_HOME"):
        home, source = (environ[name], name) if environ.get(name) else (home, source)
    nvcc = f"{home}/bin/nvcc"
    if own := environ.get("FLASHINFER_NVCC"):
        nvcc, source = shutil.which(own, path=environ["PATH"]) or own, "FLASHINFER_NVCC"
    return Toolkit(home, nvcc, source, _release(nvcc))


def find_home(environ: Mapping[str, str], wrong: str) -> str:
    """Return a directory with a CUDA toolkit for use as CUDA_HOME instead of `wrong`, empty where there is none."""
    on_path = shutil.which("nvcc", path=environ["PATH"])
    beside = sorted(map(str, Path(DEFAULT_HOME).parent.glob("cuda-*")), reverse=True)
    homes = [wrong.strip(":"), *([str(Path(on_path).parent.parent)] if on_path else []), DEFAULT_HOME, *beside]
    return next((home for home in homes if shutil.which(f"{home}/bin/nvcc")), "")


def _release(nvcc: str) -> tuple[int, ...]:
    try:
        found = re.search(rb"release (\d+)\.(\d+)", processes.run([nvcc, "--version"], timeout=60).output)
    except OSError:
        return ()
    return (int(found[1]), int(found[2])) if found else ()


def wanted_jobs(environ: Mapping[str, str]) -> int:
    """Return how many compile jobs ninja would run at once: `MAX_JOBS`, or the number of processors plus two."""
    given = environ.get("MAX_JOBS", "")
    return int(given) if given.isdigit() else (os.cpu_count() or 1) + 2


def available_memory() -> int:
    """Return the bytes of memory that are available now, within a container's limit (cgroup v2)."""
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):
        return free
    return max(0, min(free, limit - used))


@contextmanager
def limited_jobs(environ: Mapping[str, str], jobs: int, at_once: int) -> Iterator[dict[str, str]]:
    """Yield the variables with which the ninjas of `at_once` processes run at most `jobs` compile jobs in total.

    From 1.13 on, ninja uses GNU make's jobserver: a FIFO with a token for each job beyond the first of each ninja.
    Older ninjas each get an equal share by `MAX_JOBS`, which leaves processors idle while the last kernels compile.
    """
    ninja = shutil.which("ninja", path=environ["PATH"])
    version = processes.run([ninja, "--version"], timeout=60).output.decode() if ninja else ""
    if [int(number) for number in re.findall(r"\d+", version)[:2]] < [1, 13]:
        yield {**environ, "MAX_JOBS": str(max(1, jobs // at_once))}
        return
    with tempfile.TemporaryDirectory() as directory:
        fifo = str(Path(directory, "jobs"))
        os.mkfifo(fifo)
        tokens = os.open(fifo, os.O_RDWR)
        try:
            os.write(tokens, b"+" * (jobs - at_once))
            yield {**environ, "MAX_JOBS": "", "MAKEFLAGS": f"-j{jobs} --jobserver-auth=fifo:{fifo}"}
        finally:
            os.close(tokens)
