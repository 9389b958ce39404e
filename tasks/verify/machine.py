"""What this machine and an environment offer to kernels and their compilers: driver, GPUs, memory, programs."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import processes
from ..packages.environment import Environment

GB = 1_000_000_000
JOB = 4 * GB  # memory that a compile job is counted with; one nvcc takes 2 to 8 GB
PROBE = Path(__file__).with_name("cuda_probe.py")


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver. `cuda` is the version it supports ((0, 0): there is no driver), `error` why it cannot be used;
    each of `gpus` is a name, bytes of memory and a compute capability."""

    cuda: tuple[int, ...]
    error: str
    gpus: tuple[tuple[str, int, tuple[int, ...]], ...] = ()


def activated(environment: Environment, environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` with the environment's programs first on the PATH, where FlashInfer looks for ninja."""
    return {**environ, "PATH": f"{environment.python.parent}{os.pathsep}{environ.get('PATH', os.defpath)}"}


def add_command(environment: Environment, package: str) -> str:
    """Return the command that installs `package` into the environment."""
    python = str(environment.python)
    start = [python, "-m", "pip", "install"] if environment.has_pip else ["uv", "pip", "install", "--python", python]
    return shlex.join([*start, package])


def ask_driver(environment: Environment, environ: Mapping[str, str]) -> Driver:
    """Return what NVIDIA's driver says of itself and its GPUs; one that crashes or hangs has an error."""
    asked = processes.run([environment.python, "-I", PROBE], env=environ, timeout=60)
    try:
        found = json.loads(asked.output)
    except ValueError:
        return Driver((), "no answer in 60 s" if asked.timed_out else f"asking it ended with status {asked.status}")
    gpus = tuple((name, memory, tuple(capability)) for name, memory, capability in found["gpus"])
    return Driver(tuple(found["cuda"]), found["error"], gpus)


def available_memory() -> int:
    """Return the bytes of memory that can be used now, within a container's limit (cgroup v2)."""
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):
        return free
    return max(0, min(free, limit - used))
