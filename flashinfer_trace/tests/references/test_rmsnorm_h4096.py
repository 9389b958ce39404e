import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from trace_data import assert_close, inputs_of, load, workloads  # noqa: E402

NAME = "rmsnorm_h4096"
DEFINITION = load(NAME)

# bfloat16 keeps 8 significant bits. Both sides compute in float32 or better (errors near 1e-6) and round once, to
# nearest; where the exact result lies near the middle of two bfloat16 values they may round to different ones, which
# lie at most 2^-7 of the value apart.
BFLOAT16 = {"rtol": 2**-7, "atol": 1e-6}


def independent(hidden_states, weight, eps):
    """In float64: each row divided by its Euclidean length over the square root of its size."""
    x = hidden_states.double()
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.sqrt(length**2 / x.shape[-1] + eps) * weight.double()


@pytest.mark.parametrize("workload", workloads(NAME, batch_size=1024))
def test_reference_agrees_with_float64(workload):
    inputs = inputs_of(DEFINITION, workload, "cpu")
    output = DEFINITION.run(**inputs)
    assert output.dtype == torch.bfloat16
    assert output.shape == inputs["hidden_states"].shape
    assert_close(output, independent(**inputs), **BFLOAT16)


def test_rows_have_mean_square_one_under_unit_weight():
    x = torch.randn(5, 4096, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    output = DEFINITION.run(x, torch.ones(4096, dtype=torch.bfloat16), 1e-6).double()
    assert_close((output**2).mean(dim=-1), torch.ones(5), rtol=2**-8, atol=0)


def test_a_power_of_two_in_the_input_changes_nothing_without_eps():
    x = torch.randn(5, 4096, generator=torch.Generator().manual_seed(2)).to(torch.bfloat16)
    weight = torch.randn(4096, generator=torch.Generator().manual_seed(3)).to(torch.bfloat16)
    assert torch.equal(DEFINITION.run(x, weight, 0.0), DEFINITION.run(x * 64, weight, 0.0))


def test_eps_keeps_a_row_of_zeros_at_zero():
    zeros = torch.zeros(2, 4096, dtype=torch.bfloat16)
    assert torch.equal(DEFINITION.run(zeros, torch.ones(4096, dtype=torch.bfloat16), 1e-5), zeros)


@pytest.mark.parametrize("workload", workloads(NAME))
def test_kernel_agrees_with_reference(flashinfer, workload):
    inputs = inputs_of(DEFINITION, workload, "cuda")
    output = flashinfer.norm.rmsnorm(inputs["hidden_states"], inputs["weight"], eps=inputs["eps"])
    assert_close(output, DEFINITION.run(**inputs), **BFLOAT16)
