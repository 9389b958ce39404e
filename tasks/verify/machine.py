"""Runs programs of this machine, and asks its NVIDIA driver."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..packages import Environment

PROBE = Path(__file__).with_name("cuda_probe.py")


def run(argv: Sequence[str | Path], timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program and return what it printed; where it cannot be run to its end, why is in `stderr`."""
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout,
            check=False, **options,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(argv, -1, "", str(error))


def ask_driver(environment: Environment, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what `cuda_probe.ask` returns; of a driver that crashes or hangs, that as its `error`."""
    asked = run([environment.python, "-I", PROBE], env=environ)
    try:
        answer: dict[str, Any] = json.loads(asked.stdout)
    except ValueError:
        return {"cuda": [], "error": f"asking it ended with status {asked.returncode}", "gpus": []}
    return answer
