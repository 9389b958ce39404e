import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from trace_data import assert_close, inputs_of, load, workloads  # noqa: E402

NAME = "fused_add_rmsnorm_h4096"
DEFINITION = load(NAME)

# The sum is exact in float32 and rounded once to bfloat16, by both sides: the same value, bit for bit.
SUM = {"rtol": 0, "atol": 0}
# The sum is normalised before it is rounded. Both sides compute in float32 or better (errors near 1e-6) and round once,
# and may end on neighbouring values of 8 significant bits: at most 2^-7 of the value apart.
NORMALISED = {"rtol": 2**-7, "atol": 1e-6}


def independent(hidden_states, residual, weight, eps):
    """In float64: the sum, and each row of it divided by its Euclidean length over the square root of its size."""
    x = hidden_states.double() + residual.double()
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.sqrt(length**2 / x.shape[-1] + eps) * weight.double(), x


@pytest.mark.parametrize("workload", workloads(NAME, batch_size=256))
def test_reference_agrees_with_float64(workload):
    inputs = inputs_of(DEFINITION, workload, "cpu")
    output, new_residual = DEFINITION.run(**inputs)
    expected, total = independent(**inputs)
    assert output.dtype == new_residual.dtype == torch.bfloat16
    assert_close(output, expected, **NORMALISED)
    assert_close(new_residual, total, rtol=2**-8, atol=0)


def test_without_a_residual_it_is_the_plain_normalisation():
    x = torch.randn(5, 4096, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    output, new_residual = DEFINITION.run(x, torch.zeros_like(x), torch.ones(4096, dtype=torch.bfloat16), 1e-6)
    assert torch.equal(new_residual, x)
    assert_close((output.double() ** 2).mean(dim=-1), torch.ones(5), rtol=2**-8, atol=0)


def test_the_two_addends_may_change_places():
    generator = torch.Generator().manual_seed(2)
    a, b = (torch.randn(3, 4096, generator=generator).to(torch.bfloat16) for _ in range(2))
    weight = torch.randn(4096, generator=generator).to(torch.bfloat16)
    for one, other in zip(DEFINITION.run(a, b, weight, 1e-6), DEFINITION.run(b, a, weight, 1e-6), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("workload", workloads(NAME))
def test_kernel_agrees_with_reference(flashinfer, workload):
    inputs = inputs_of(DEFINITION, workload, "cuda")
    expected, total = DEFINITION.run(**inputs)
    output, new_residual = inputs["hidden_states"], inputs["residual"]  # the kernel writes over its inputs
    flashinfer.norm.fused_add_rmsnorm(output, new_residual, inputs["weight"], eps=inputs["eps"])
    assert_close(new_residual, total, **SUM)
    assert_close(output, expected, **NORMALISED)
