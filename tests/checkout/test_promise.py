"""Nothing of the user's is lost, whatever the order of a user's acts, upstream's moves and killed or interrupted runs.

A few sequences here; thousands by hand: the variable SEQUENCES is how many.
"""

from __future__ import annotations

import os
import shutil

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.reliability.promise import GIT, Promise, make_template

SEQUENCES = int(os.environ.get("SEQUENCES", "2"))
BATCH = 25  # sequences in one test: hypothesis begins with simple ones
SETTINGS = settings(
    max_examples=min(SEQUENCES, BATCH), stateful_step_count=14, deadline=None, database=None, print_blob=False,
    phases=(Phase.generate,), suppress_health_check=[*HealthCheck],
)  # fmt: skip


@pytest.fixture(scope="session")
def promise(tmp_path_factory: pytest.TempPathFactory) -> type[Promise]:
    """The state machine, with a template of its world."""
    home = tmp_path_factory.mktemp("promise")
    (home / "git").write_text(GIT)
    (home / "git").chmod(0o755)
    Promise.environ = {
        "PATH": f"{home}:{os.environ['PATH']}", "HOME": str(home), "LANG": "C.UTF-8", "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_REAL": shutil.which("git") or "", "GIT_COUNT": os.devnull, "GIT_NUMBER": "0",
    }  # fmt: skip
    Promise.template = make_template(home / "template", Promise.environ)
    return Promise


@pytest.mark.parametrize("batch", range(-(-SEQUENCES // BATCH)))
def test_every_content_is_kept_in_a_random_sequence(batch: int, promise: type[Promise]) -> None:
    run_state_machine_as_test(promise, settings=SETTINGS)
