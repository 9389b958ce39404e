"""Kill many runs at random moments: `python -m tests.reliability --kills 200`. The same seeds make the same kills."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

TEST = "tests/checkout/test_interruption.py::test_a_run_that_is_killed_at_any_moment_is_finished_by_the_next"


def main() -> int:
    """Run that many kills and count them by scenario; the exit status is pytest's."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed (default: 0)")
    parser.add_argument("--jobs", default="auto", help="how many at once (default: one for each core)")
    options = parser.parse_args()
    os.environ |= {"KILLS": str(options.kills), "FIRST_KILL": str(options.first)}
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder, "told.xml")
        status = pytest.main([TEST, "-q", f"-n{options.jobs}", f"--junitxml={told}"])
        cases = list(ElementTree.parse(told).iter("testcase"))
    kinds: Counter[str] = Counter()
    for case in cases:
        said = {each.get("name"): each.get("value", "") for each in case.iter("property")}
        broken = case.find("failure") is not None or case.find("error") is not None
        too_late = "too late" in (said.get("killed") or "")
        ending = "FAILED" if broken else "ended before the kill" if too_late else "survived"
        kinds[f"{said.get('scenario')}: {ending}"] += 1
    for kind, count in sorted(kinds.items()):
        print(f"{count:5} {kind}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
