"""Records for each test whether it used the GPU, as the property `gpu_allocations`: `verify --kernels` counts those."""

import sys

import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    before = _allocations()
    yield
    item.user_properties.append(("gpu_allocations", _allocations() - before))


def _allocations():
    """How many blocks of GPU memory torch has allocated since FlashInfer was imported, 0 without both."""
    torch = sys.modules.get("torch")
    if "flashinfer" not in sys.modules or not torch or not torch.cuda.is_initialized():
        return 0
    return torch.cuda.memory_stats().get("allocation.all.allocated", 0)
