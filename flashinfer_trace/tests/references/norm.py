"""Root mean square normalisation in float64, and the tests that fused_add_rmsnorm has at every hidden size."""

import pytest
import torch
from trace_data import assert_close, normal

# Both sides compute in float32 or better (errors near 1e-6) and round once to bfloat16, to nearest; where the exact
# result lies near the middle of two values of 8 significant bits they may round to different ones, which lie at most
# 2^-7 of the value apart.
BFLOAT16 = {"rtol": 2**-7, "atol": 1e-6}
# The sum of two bfloat16 values is exact in float32 and rounded once, by both sides: the same value, bit for bit.
SUM = {"rtol": 0, "atol": 0}


def normalised(x, weight, eps):
    """In float64: each row divided by its Euclidean length over the square root of its size."""
    length = torch.linalg.vector_norm(x.double(), dim=-1, keepdim=True)
    return x.double() / torch.sqrt(length**2 / x.shape[-1] + eps) * weight.double()


class FusedAddRMSNorm:
    """The tests of one hidden size. The sum is normalised before it is rounded."""

    hidden, eps = 0, 0.0

    @pytest.mark.at_most(batch_size=256)
    def test_reference_agrees_with_float64(self, definition, inputs):
        output, new_residual = definition.run(**inputs)
        total = inputs["hidden_states"].double() + inputs["residual"].double()
        assert output.dtype == new_residual.dtype == torch.bfloat16
        assert_close(output, normalised(total, inputs["weight"], self.eps), **BFLOAT16)
        assert_close(new_residual, total, rtol=2**-8, atol=0)

    def test_without_a_residual_it_is_the_plain_normalisation(self, definition):
        x = normal(5, self.hidden)
        output, new_residual = definition.run(x, torch.zeros_like(x), torch.ones(self.hidden, dtype=torch.bfloat16))
        assert torch.equal(new_residual, x)
        assert_close((output.double() ** 2).mean(dim=-1), torch.ones(5), rtol=2**-8, atol=0)

    def test_the_two_addends_may_change_places(self, definition):
        a, b, weight = normal(7, self.hidden).split((3, 3, 1))
        for one, other in zip(definition.run(a, b, weight[0]), definition.run(b, a, weight[0]), strict=True):
            assert torch.equal(one, other)

    def test_kernel_agrees_with_reference(self, kernel, definition, inputs):
        output, new_residual = kernel.run(**inputs)
        expected, total = definition.run(**inputs)
        assert_close(new_residual, total, **SUM)
        assert_close(output, expected, **BFLOAT16)
