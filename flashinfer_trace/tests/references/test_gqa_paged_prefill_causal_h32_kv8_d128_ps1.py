import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from trace_data import assert_close, inputs_of, load, workloads  # noqa: E402

NAME = "gqa_paged_prefill_causal_h32_kv8_d128_ps1"
DEFINITION = load(NAME)
HOPPER = 9  # the major number of its compute capability

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


def independent(q, k_cache, v_cache, qo_indptr, kv_indptr, kv_indices, sm_scale):
    """In float64, query by query, each over the tokens that it sees, with softmax and logsumexp."""
    output, lse = torch.zeros(q.shape, dtype=torch.float64), torch.zeros(q.shape[:2], dtype=torch.float64)
    for b, pages in enumerate(torch.tensor_split(kv_indices.long(), kv_indptr[1:-1].long())):
        for row in range(int(qo_indptr[b]), int(qo_indptr[b + 1])):
            seen = pages[: len(pages) - (int(qo_indptr[b + 1]) - 1 - row)]
            keys, values = (cache[seen, 0].double().repeat_interleave(4, dim=1) for cache in (k_cache, v_cache))
            logits = torch.einsum("lhd,hd->hl", keys, q[row].double()) * sm_scale
            output[row] = torch.einsum("hl,lhd->hd", torch.softmax(logits, dim=1), values)
            lse[row] = torch.logsumexp(logits, dim=1) / math.log(2)
    return output, lse


def check_kernel(inputs, output, lse, tolerance):
    """`output` and `lse` of a kernel against the reference; `tolerance` is that of lse."""
    expected, expected_lse = DEFINITION.run(**inputs)
    magnitudes, _ = DEFINITION.run(**inputs | {"v_cache": inputs["v_cache"].abs()})
    assert_close(output, expected, rtol=OUTPUT, atol=WEIGHTS * magnitudes.double())
    assert_close(lse, expected_lse, rtol=0, atol=tolerance)


SMALL = workloads(NAME, total_q=200)


@pytest.mark.parametrize("workload", SMALL)
def test_reference_agrees_with_float64(workload):
    inputs = inputs_of(DEFINITION, workload, "cpu")
    output, lse = DEFINITION.run(**inputs)
    expected, expected_lse = independent(**inputs)
    assert (output.dtype, lse.dtype) == (torch.bfloat16, torch.float32)
    assert_close(output, expected, **REFERENCE)
    assert_close(lse, expected_lse, rtol=1e-6, atol=1e-5)


def test_a_token_changes_no_query_before_it():
    inputs = inputs_of(DEFINITION, SMALL[1].values[0], "cpu")
    last = int(inputs["kv_indices"][int(inputs["kv_indptr"][1]) - 1])  # the last token of the first sequence
    changed = {name: inputs[name].clone() for name in ("k_cache", "v_cache")}
    for cache in changed.values():
        cache[last] = 100
    end = int(inputs["qo_indptr"][1]) - 1
    for one, other in zip(DEFINITION.run(**inputs), DEFINITION.run(**inputs | changed), strict=True):
        assert torch.equal(one[:end], other[:end])
        assert not torch.equal(one[end], other[end])


def test_the_last_query_of_each_sequence_is_a_decode_step():
    inputs = inputs_of(DEFINITION, SMALL[2].values[0], "cpu")
    ends = inputs.pop("qo_indptr")
    decode = load("gqa_paged_decode_h32_kv8_d128_ps1").run(**inputs | {"q": inputs["q"][ends[1:].long() - 1]})
    prefill = DEFINITION.run(**inputs, qo_indptr=ends)
    for one, other in zip(prefill, decode, strict=True):
        assert_close(one[ends[1:].long() - 1], other, **NEIGHBOURS)


@pytest.mark.parametrize("backend", ["fa2", "fa3"])
@pytest.mark.parametrize("workload", workloads(NAME))
def test_kernel_agrees_with_reference(flashinfer, workload, backend):
    if backend == "fa3" and torch.cuda.get_device_capability()[0] != HOPPER:
        pytest.skip("this kernel is for Hopper GPUs")
    i = inputs_of(DEFINITION, workload, "cuda")
    workspace = torch.zeros(128 << 20, dtype=torch.uint8, device="cuda")
    wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD", backend=backend)
    wrapper.plan(
        i["qo_indptr"],
        i["kv_indptr"],
        i["kv_indices"],
        torch.ones(len(i["kv_indptr"]) - 1, dtype=torch.int32, device="cuda"),
        num_qo_heads=32,
        num_kv_heads=8,
        head_dim_qk=128,
        page_size=1,
        causal=True,
        q_data_type=torch.bfloat16,
        kv_data_type=torch.bfloat16,
        sm_scale=i["sm_scale"],
    )
    output, lse = wrapper.run(i["q"], (i["k_cache"], i["v_cache"]), return_lse=True)
    check_kernel(i, output, lse, LSE if backend == "fa3" else LSE_OF_ROUNDED)
