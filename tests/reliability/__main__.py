"""Kill many runs at random moments, or play random sequences: `python -m tests.reliability --kills 200` or
`--sequences 2000`. The same seeds make the same kills, but for the moment in which the signal arrives."""

from __future__ import annotations

import argparse
import os
import sys

import pytest

KILLS = "tests/checkout/test_interruption.py::test_a_run_that_is_killed_at_any_moment_is_finished_by_the_next"
SEQUENCES = "tests/checkout/test_promise.py"
BATCH = 25  # sequences in one test: hypothesis begins with simple ones


def main() -> int:
    """Run them; the exit status is pytest's."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("--kills", type=int, default=0, help="how many kills (default: 200, or none with --sequences)")
    parser.add_argument("--sequences", type=int, default=0, help="how many sequences (default: none)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first kill's seed (default: 0)")
    parser.add_argument("--jobs", default="auto", help="how many at once (default: one for each core)")
    options = parser.parse_args()
    kills = options.kills or (0 if options.sequences else 200)
    os.environ |= {"KILLS": str(kills), "FIRST_KILL": str(options.first)}
    os.environ |= {"SEQUENCES": str(BATCH), "BATCHES": str(-(-options.sequences // BATCH))}
    chosen = [*([KILLS] if kills else []), *([SEQUENCES] if options.sequences else [])]
    return int(pytest.main([*chosen, "-q", f"-n{options.jobs}"]))


if __name__ == "__main__":
    sys.exit(main())
