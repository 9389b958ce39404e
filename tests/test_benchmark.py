"""The benchmark runs on repositories that it generates, and writes what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmark import generate
from tests.upstream.store import git

ROOT = Path(__file__).resolve().parent.parent


def test_everybody_runs_and_the_results_are_written(tmp_path: Path) -> None:
    options = ["--scale=0.005", "--rounds=1", "--latency=0", "--no-peers", "--only=project|no submodules"]
    command = [sys.executable, "-m", "benchmark", *options, "--results", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    runs = json.loads((tmp_path / "benchmark.json").read_text())["runs"]
    kinds = {(run["contestant"], run["what"]) for run in runs}
    assert len(runs) == len(kinds) == 7
    assert all(run["seconds"] > 0 and run["requests"] > 0 and run["disk"] > 0 for run in runs)
    assert run.stdout.strip() == (tmp_path / "benchmark.md").read_text().strip()
    assert "| git clone, no submodules |" in run.stdout
    assert (tmp_path / "benchmark.svg").read_text().startswith("<svg ")
    assert not (tmp_path / "work").exists()


def test_the_generated_upstreams_are_the_same_each_time(tmp_path: Path) -> None:
    one, other = (generate.build(tmp_path / name, 0.001) for name in ("one", "other"))
    for name in ("sglang", "flashinfer", "cccl"):
        assert one.commit(name) == other.commit(name)
    links = git(one.path("flashinfer"), "ls-tree", "main", "3rdparty/")
    assert one.commit("cutlass", "main~1") in links and one.commit("cutlass") not in links
