"""The benchmark runs on the small stand-ins, and writes what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources import exhaustive

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(("tools", "count"), [("script", 3), *exhaustive([("project|script|all at once", 4 + 3 + 3)])])
def test_every_tool_runs_and_the_results_are_written(tools: str, count: int, tmp_path: Path) -> None:
    options = ["--rounds=1", "--latency=0", "--no-peers", f"--only={tools}", "--results", str(tmp_path)]
    command = [sys.executable, "-m", "benchmark", *options]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    runs = json.loads((tmp_path / "benchmark.json").read_text())["runs"]
    kinds = {(run["contestant"], run["what"]) for run in runs}
    assert len(runs) == len(kinds) == count
    assert all(run["seconds"] > 0 and run["requests"] > 0 and run["disk"] > 0 for run in runs)
    assert run.stdout.strip() == (tmp_path / "benchmark.md").read_text().strip()
    assert "| git, a script of 40 lines |" in run.stdout
    assert (tmp_path / "benchmark.svg").read_text().startswith("<svg ")
    assert not (tmp_path / "work").exists()
