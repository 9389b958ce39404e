"""The host and the small upstreams that the other tests stand on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.upstream.store import Upstream

ROOT = Path(__file__).resolve().parent.parent


def test_a_command_runs_as_if_github_held_the_small_upstreams(environ: dict[str, str], built: Upstream) -> None:
    """It has an environment and a cache of its own; it gets Ctrl-C, and its status counts."""
    shell = """trap 'exit 7' INT
        git ls-remote https://github.com/sgl-project/sglang.git main
        python -c 'import sys, invoke; print(sys.prefix, invoke.__file__)'; echo $UV_CACHE_DIR
        echo; while :; do sleep 0.1; done"""
    command = [sys.executable, "-m", "tests.upstream", "sh", "-c", shell]
    pipe = subprocess.PIPE
    run = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    assert run.stdout
    printed = "".join(iter(run.stdout.readline, "\n"))
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=120)
    assert (run.returncode, errors) == (7, "")
    commit, _, environment, module, cache = printed.split()
    assert commit == built.commit("sglang")
    assert environment != sys.prefix and module.startswith(environment)
    assert cache != environ["UV_CACHE_DIR"] and not Path(cache).exists() and not Path(environment).exists()
