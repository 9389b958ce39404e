import pytest

pytest.importorskip("torch", reason="torch is not installed")

from norm import FusedAddRMSNorm


class TestFusedAddRMSNorm(FusedAddRMSNorm):
    hidden, eps = 4096, 1e-5
