"""A pytest plugin that reports on standard error which test begins, and records whether a test used the GPU.

The verified environment's pytest loads it, so it imports nothing of ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

GPU = "gpu_allocations"
tests = {"done": 0, "all": 0}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Count the tests."""
    tests["all"] = len(session.items)


def pytest_runtest_logstart(nodeid: str) -> None:
    """Report that a test begins, as `[DONE/ALL] NAME`: a test that crashes or hangs reports nothing itself."""
    os.write(2, f"\n[{tests['done']}/{tests['all']}] {nodeid.rpartition('::')[2]}\n".encode())
    tests["done"] += 1


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Record the test's GPU allocations as a property of it."""
    before = _allocations()
    yield
    item.user_properties.append((GPU, _allocations() - before))


def _allocations() -> int:
    """How many blocks of GPU memory torch has allocated since FlashInfer was imported, 0 without both."""
    torch = sys.modules.get("torch")
    if "flashinfer" not in sys.modules or not torch or not torch.cuda.is_initialized():
        return 0
    return int(torch.cuda.memory_stats().get("allocation.all.allocated", 0))
