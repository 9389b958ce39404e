import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from trace_data import assert_close, inputs_of, load, workloads  # noqa: E402

NAME = "gqa_paged_decode_h32_kv8_d128_ps16"
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


def independent(q, k_cache, v_cache, kv_indptr, kv_indices, kv_last_page_len, sm_scale):
    """In float64, head by head, with softmax and logsumexp."""
    output, lse = torch.zeros(q.shape, dtype=torch.float64), torch.zeros(q.shape[:2], dtype=torch.float64)
    for b, pages in enumerate(torch.tensor_split(kv_indices.long(), kv_indptr[1:-1].long())):
        behind = 16 - int(kv_last_page_len[b])  # places in the last page that hold nothing
        keys, values = (cache[pages].double().flatten(0, 1)[: len(pages) * 16 - behind] for cache in (k_cache, v_cache))
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


@pytest.mark.parametrize("workload", workloads(NAME, num_kv_indices=1000))
def test_reference_agrees_with_float64(workload):
    inputs = inputs_of(DEFINITION, workload, "cpu")
    output, lse = DEFINITION.run(**inputs)
    expected, expected_lse = independent(**inputs)
    assert (output.dtype, lse.dtype) == (torch.bfloat16, torch.float32)
    assert_close(output, expected, **REFERENCE)
    assert_close(lse, expected_lse, rtol=1e-6, atol=1e-5)


def test_what_lies_behind_the_last_token_does_not_matter():
    (workload,) = (parameter.values[0] for parameter in workloads(NAME, batch_size=1))
    inputs = inputs_of(DEFINITION, workload, "cpu") | {"kv_last_page_len": torch.tensor([5], dtype=torch.int32)}
    changed = {name: inputs[name].clone() for name in ("k_cache", "v_cache")}
    for cache in changed.values():
        cache[inputs["kv_indices"].long(), 5:] = math.nan
    for one, other in zip(DEFINITION.run(**inputs), DEFINITION.run(**inputs | changed), strict=True):
        assert torch.equal(one, other)


def test_pages_of_one_token_give_the_same():
    workload = workloads(NAME, batch_size=7)[-1].values[0]
    inputs = inputs_of(DEFINITION, workload, "cpu")
    tokens, lengths = [], []
    for b, pages in enumerate(torch.tensor_split(inputs["kv_indices"].long(), inputs["kv_indptr"][1:-1].long())):
        lengths.append((len(pages) - 1) * 16 + int(inputs["kv_last_page_len"][b]))
        tokens.append((pages[:, None] * 16 + torch.arange(16)).flatten()[: lengths[-1]])
    single = {name: inputs[name].reshape(-1, 1, 8, 128) for name in ("k_cache", "v_cache")}
    single |= {"kv_indptr": torch.tensor([0, *lengths]).cumsum(0).int(), "kv_indices": torch.cat(tokens).int()}
    single |= {"q": inputs["q"], "sm_scale": inputs["sm_scale"]}
    other = load("gqa_paged_decode_h32_kv8_d128_ps1").run(**single)
    for one, two in zip(DEFINITION.run(**inputs), other, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("tensor_cores", [False, True])
@pytest.mark.parametrize("workload", workloads(NAME))
def test_kernel_agrees_with_reference(flashinfer, workload, tensor_cores):
    i = inputs_of(DEFINITION, workload, "cuda")
    workspace = torch.zeros(128 << 20, dtype=torch.uint8, device="cuda")
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD", use_tensor_cores=tensor_cores)
    last_page_len = i["kv_last_page_len"]
    wrapper.plan(
        i["kv_indptr"],
        i["kv_indices"],
        last_page_len,
        num_qo_heads=32,
        num_kv_heads=8,
        head_dim=128,
        page_size=16,
        q_data_type=torch.bfloat16,
        kv_data_type=torch.bfloat16,
        sm_scale=i["sm_scale"],
    )
    output, lse = wrapper.run(i["q"], (i["k_cache"], i["v_cache"]), return_lse=True)
    check_kernel(i, output, lse, LSE_OF_ROUNDED if tensor_cores else LSE)
