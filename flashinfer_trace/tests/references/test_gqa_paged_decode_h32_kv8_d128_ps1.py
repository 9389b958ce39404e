import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from trace_data import assert_close, inputs_of, load, workloads  # noqa: E402

NAME = "gqa_paged_decode_h32_kv8_d128_ps1"
DEFINITION = load(NAME)

# bfloat16 keeps 8 significant bits: rounding to nearest errs by at most 2^-8 of the value. The kernels multiply exactly
# and sum in float32, but they round the weights to bfloat16 before they mix the values, and some divide by the sum of
# the rounded weights: twice 2^-8 of the mix of the values' magnitudes. Both sides round their outputs, and may end on
# neighbouring values: 2^-7 of the value.
WEIGHTS, OUTPUT = 2**-7, 2**-7
# lse is the base-2 logarithm of that sum, in float32. What float32 and the hardware's exp2 add is near 1e-5; where the
# rounded weights are summed, the sum errs by 2^-8 of itself at most.
LSE, LSE_OF_ROUNDED = 1e-4, 2**-8 / math.log(2) + 1e-4
# The reference computes in float32 and rounds once.
REFERENCE = {"rtol": 2**-8, "atol": 1e-5}
# Two results that sum in different orders may round to neighbouring values, up to 2^-7 of the value apart.
NEIGHBOURS = {"rtol": 2**-7, "atol": 1e-5}


def independent(q, k_cache, v_cache, kv_indptr, kv_indices, sm_scale):
    """In float64, head by head, with softmax and logsumexp."""
    output, lse = torch.zeros(q.shape, dtype=torch.float64), torch.zeros(q.shape[:2], dtype=torch.float64)
    for b, pages in enumerate(torch.tensor_split(kv_indices.long(), kv_indptr[1:-1].long())):
        keys, values = k_cache[pages, 0].double(), v_cache[pages, 0].double()
        for head in range(32):
            logits = keys[:, head // 4] @ q[b, head].double() * sm_scale
            output[b, head] = torch.softmax(logits, dim=0) @ values[:, head // 4]
            lse[b, head] = torch.logsumexp(logits, dim=0) / math.log(2)
    return output, lse


def check_kernel(inputs, output, lse, tolerance):
    """`output` and `lse` of a kernel against the reference; `tolerance` is that of lse."""
    expected, expected_lse = DEFINITION.run(**inputs)
    magnitudes, _ = DEFINITION.run(**inputs | {"v_cache": inputs["v_cache"].abs()})
    assert_close(output, expected, rtol=OUTPUT, atol=WEIGHTS * magnitudes.double())
    assert_close(lse, expected_lse, rtol=0, atol=tolerance)


@pytest.mark.parametrize("workload", workloads(NAME, num_kv_indices=12000))
def test_reference_agrees_with_float64(workload):
    inputs = inputs_of(DEFINITION, workload, "cpu")
    output, lse = DEFINITION.run(**inputs)
    expected, expected_lse = independent(**inputs)
    assert (output.dtype, lse.dtype) == (torch.bfloat16, torch.float32)
    assert_close(output, expected, **REFERENCE)
    assert_close(lse, expected_lse, rtol=1e-6, atol=1e-5)


def sequences(*lengths):
    """Inputs of sequences of so many tokens, in pages that follow each other."""
    axes = {"batch_size": len(lengths), "num_pages": sum(lengths), "len_indptr": len(lengths) + 1}
    sources = {name: {"type": "random"} for name in ("q", "k_cache", "v_cache")}
    inputs = inputs_of(DEFINITION, {"axes": axes, "inputs": sources}, "cpu")
    indptr = torch.tensor([0, *lengths]).cumsum(0).int()
    return inputs | {"kv_indptr": indptr, "kv_indices": torch.arange(sum(lengths)).int(), "sm_scale": 128**-0.5}


def test_one_token_gives_its_value():
    inputs = sequences(1)
    output, lse = DEFINITION.run(**inputs)
    assert torch.equal(output[0], inputs["v_cache"][0, 0].repeat_interleave(4, dim=0))
    keys = inputs["k_cache"][0, 0].double().repeat_interleave(4, dim=0)
    assert_close(lse[0], (inputs["q"][0].double() * keys).sum(-1) * 128**-0.5 / math.log(2), rtol=1e-6, atol=1e-5)


def test_a_query_of_zeros_gives_the_mean_and_the_logarithm_of_the_length():
    inputs = sequences(8)
    output, lse = DEFINITION.run(**inputs | {"q": torch.zeros(1, 32, 128, dtype=torch.bfloat16)})
    mean = inputs["v_cache"][:, 0].double().mean(0).repeat_interleave(4, dim=0)
    assert_close(output[0], mean, **REFERENCE)
    assert_close(lse, torch.full((1, 32), 3.0), rtol=0, atol=1e-6)


def test_the_order_of_the_tokens_does_not_matter():
    inputs = sequences(40)
    shuffled = torch.randperm(40, generator=torch.Generator().manual_seed(1)).int()
    for one, other in zip(DEFINITION.run(**inputs), DEFINITION.run(**inputs | {"kv_indices": shuffled}), strict=True):
        assert_close(one, other, **NEIGHBOURS)


def test_parts_merge_by_their_lse():
    inputs = sequences(30, 50)
    inputs["q"] = inputs["q"][:1].repeat(2, 1, 1)
    parts, lse = DEFINITION.run(**inputs)
    whole = {"q": inputs["q"][:1], "kv_indptr": torch.tensor([0, 80], dtype=torch.int32)}
    output, total = DEFINITION.run(**inputs | whole)
    share = torch.exp2(lse.double() - total.double())
    assert_close(share.sum(0), torch.ones(32), rtol=1e-5, atol=0)
    assert_close((share[:, :, None] * parts.double()).sum(0), output[0], rtol=2**-7, atol=2**-8)


def test_a_sequence_without_tokens_gives_zeros():
    output, lse = DEFINITION.run(**sequences(3, 0))
    assert torch.count_nonzero(output[1]) == 0
    assert torch.equal(lse[1], torch.full((32,), -math.inf))


@pytest.mark.parametrize("tensor_cores", [False, True])
@pytest.mark.parametrize("workload", workloads(NAME))
def test_kernel_agrees_with_reference(flashinfer, workload, tensor_cores):
    i = inputs_of(DEFINITION, workload, "cuda")
    workspace = torch.zeros(128 << 20, dtype=torch.uint8, device="cuda")
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD", use_tensor_cores=tensor_cores)
    last_page_len = torch.ones(len(i["q"]), dtype=torch.int32, device="cuda")
    wrapper.plan(
        i["kv_indptr"],
        i["kv_indices"],
        last_page_len,
        num_qo_heads=32,
        num_kv_heads=8,
        head_dim=128,
        page_size=1,
        q_data_type=torch.bfloat16,
        kv_data_type=torch.bfloat16,
        sm_scale=i["sm_scale"],
    )
    output, lse = wrapper.run(i["q"], (i["k_cache"], i["v_cache"]), return_lse=True)
    check_kernel(i, output, lse, LSE_OF_ROUNDED if tensor_cores else LSE)
