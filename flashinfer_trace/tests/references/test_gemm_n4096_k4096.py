import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from trace_data import assert_close, normal  # noqa: E402

# Products of bfloat16 values are exact in float32. A sum of K of them, in whatever order, errs by far less than
# rounding the result does: 2^-24 times a few dozen times the root of K = 64, about 1e-4 for standard normal inputs.
# Both sides round once to bfloat16 and may end on neighbouring values of 8 significant bits: 2^-7 of the value apart.
BFLOAT16 = {"rtol": 2**-7, "atol": 1e-3}


@pytest.mark.at_most(M=128)
def test_reference_agrees_with_float64(definition, inputs):
    output = definition.run(**inputs)
    assert output.dtype == torch.bfloat16
    assert_close(output, torch.einsum("mk,nk->mn", inputs["A"].double(), inputs["B"].double()), **BFLOAT16)


def test_the_identity_as_weight_gives_the_activations(definition):
    A = normal(3, 4096)
    assert torch.equal(definition.run(A, torch.eye(4096, dtype=torch.bfloat16)), A)


def test_a_row_of_the_weight_makes_a_column_of_the_result(definition):
    A, B = normal(3, 4096), torch.zeros(4096, 4096, dtype=torch.bfloat16)
    B[0] = 2 * A[1]
    output = definition.run(A, B)
    assert torch.count_nonzero(output[:, 1:]) == 0
    assert_close(output[1, 0], 2 * (A[1].double() ** 2).sum(), rtol=2**-8, atol=0)


def test_kernel_agrees_with_reference(kernel, definition, inputs):
    assert_close(kernel.run(**inputs), definition.run(**inputs), **BFLOAT16)


@pytest.mark.at_most(M=16)
def test_kernel_for_few_rows_agrees_with_reference(kernel, definition, inputs):
    assert_close(kernel.run(**inputs, backend="tinygemm"), definition.run(**inputs), **BFLOAT16)


def test_grouped_kernel_with_one_group_agrees_with_reference(kernel, definition, inputs):
    wrapper = kernel.flashinfer.gemm.SegmentGEMMWrapper(torch.zeros(32 << 20, dtype=torch.int8, device="cuda"))
    rows = torch.tensor([len(inputs["A"])], device="cuda")
    output = wrapper.run(inputs["A"], inputs["B"][None], 1, True, seg_lens=rows)
    assert_close(output, definition.run(**inputs), **BFLOAT16)
