"""A pytest plugin that reports every test as soon as it has ended: on standard error, a line of a token and JSON.

The verified environment's pytest loads it, so it imports nothing of ours. It lets the parent name a test that crashes
the interpreter or hangs, and keep what ended before.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

TOKEN = os.environ["KERNELS_TOKEN"]
GPU = "gpu_allocations"


def _say(**what: Any) -> None:
    os.write(2, f"\n{TOKEN}{json.dumps(what)}\n".encode())


def _allocations() -> int:
    """How many blocks of GPU memory torch has allocated since FlashInfer was imported, 0 without both."""
    torch = sys.modules.get("torch")
    if "flashinfer" not in sys.modules or not torch or not torch.cuda.is_initialized():
        return 0
    return int(torch.cuda.memory_stats().get("allocation.all.allocated", 0))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Report how many tests there are."""
    _say(total=len(session.items))


def pytest_runtest_logstart(nodeid: str) -> None:
    """Report that a test begins."""
    _say(started=nodeid)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Note whether the test uses the GPU."""
    before = _allocations()
    yield
    item.user_properties.append((GPU, _allocations() - before))


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Report a file that cannot be imported, or that skips all its tests."""
    if not report.passed:
        _outcome(report)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Report how a test ended, and its set-up and clean-up where they did not pass."""
    if report.when == "call" or not report.passed:
        _outcome(report)


def _outcome(report: pytest.CollectReport | pytest.TestReport) -> None:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    properties = getattr(report, "user_properties", [])
    _say(
        case=report.nodeid,
        outcome=report.outcome,
        reason=str(crash.message) if crash else _reason(text),
        ratio=max((float(value) for name, value in properties if name == "error_ratio"), default=None),
        on_gpu=any(value > 0 for name, value in properties if name == GPU),
    )


def _reason(text: str) -> str:
    """The reason of a skip, or the last error of a file that cannot be imported."""
    errors = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
    return errors[-1] if errors else text.removeprefix("Skipped: ")
