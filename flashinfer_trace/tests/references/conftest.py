"""What the reference tests need of the machine. Each test is skipped, with the reason, where it is missing."""

import pytest


@pytest.fixture(scope="session")
def flashinfer():
    """FlashInfer, on a machine with a GPU that it can use."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    return pytest.importorskip("flashinfer", reason="FlashInfer is not installed")
