"""The verdict of flashinfer-bench about trace data, where it is installed and can give one."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from ..errors import examples
from ..models import Check
from ..names import shell
from ..packages import Environment
from . import machine

NAME = "trace: flashinfer-bench"
CLI = "from flashinfer_bench.cli.main import cli; cli()"


def verdict(path: Path, environment: Environment) -> list[Check]:
    """Let `flashinfer-bench validate` check the trace data, solutions and traces included, without a GPU; no check
    where it is not installed, or has no such command (0.1.2)."""
    if not environment.distribution("flashinfer-bench"):
        return []
    options = ["validate", "--dataset", str(path), "--disable-gpu"]
    with tempfile.TemporaryDirectory() as directory:
        argv = [str(environment.python), "-c", CLI, *options, "--output-folder", directory, "--outputs", "json"]
        done = machine.run(argv, 300, cwd=directory, env=os.environ)
        if "invalid choice: 'validate'" in done.stderr:
            return []
        try:
            report = json.loads(next(Path(directory).glob("*.json")).read_bytes())
            definitions = report["definitions"].items()
            faults = {
                level: [f"{name}: {message['message']}" for name, kinds in definitions for kind in kinds.values()
                        if isinstance(kind, dict) for message in kind["messages"] if message["level"] == level]
                for level in ("error", "warning")
            }  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, StopIteration):
            reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            return [Check(NAME, "skip", f"it could not be asked: {reason}")]
    command = shell("flashinfer-bench", *options)
    if faults["error"]:
        return [Check(NAME, "fail", examples(faults["error"]), f"`{command}` shows all.")]
    if faults["warning"]:
        return [Check(NAME, "warn", examples(faults["warning"]), f"`{command}` shows all.")]
    return [Check(NAME, "pass", f"{len(definitions)} definitions without an error")]
