import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from norm import BFLOAT16, normalised  # noqa: E402
from trace_data import assert_close, normal  # noqa: E402

ONES = torch.ones(4096, dtype=torch.bfloat16)


@pytest.mark.at_most(batch_size=1024)
def test_reference_agrees_with_float64(definition, inputs):
    output = definition.run(**inputs)
    assert output.dtype == torch.bfloat16
    assert_close(output, normalised(inputs["hidden_states"], inputs["weight"], inputs["eps"]), **BFLOAT16)


def test_rows_have_mean_square_one_under_unit_weight(definition):
    output = definition.run(normal(5, 4096), ONES, 1e-6).double()
    assert_close((output**2).mean(dim=-1), torch.ones(5), rtol=2**-8, atol=0)


def test_a_power_of_two_in_the_input_changes_nothing_without_eps(definition):
    x, weight = normal(6, 4096).split((5, 1))
    assert torch.equal(definition.run(x, weight[0], 0.0), definition.run(x * 64, weight[0], 0.0))


def test_eps_keeps_a_row_of_zeros_at_zero(definition):
    zeros = torch.zeros(2, 4096, dtype=torch.bfloat16)
    assert torch.equal(definition.run(zeros, ONES, 1e-5), zeros)


def test_kernel_agrees_with_reference(kernel, definition, inputs):
    assert_close(kernel.run(**inputs), definition.run(**inputs), **BFLOAT16)
