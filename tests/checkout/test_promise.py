"""Nothing of the user's is lost, whatever the order of a user's acts, upstream's moves and killed or interrupted runs.

A few sequences here; thousands by hand: `python -m tests.reliability --sequences 2000`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.reliability.promise import make_template, play

FIRST, SEQUENCES = int(os.environ.get("FIRST_SEQUENCE", "0")), int(os.environ.get("SEQUENCES", "3"))


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("promise") / "template", _environ(tmp_path_factory.getbasetemp()))


def _environ(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "TMPDIR")}
    return {**kept, "HOME": str(home), "LANG": "C.UTF-8", "GIT_CONFIG_NOSYSTEM": "1"}


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEQUENCES))
def test_every_content_is_kept_in_a_random_sequence(seed: int, template: Path, tmp_path: Path) -> None:
    play(tmp_path / "world", template, seed, _environ(tmp_path))
