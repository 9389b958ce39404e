import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from attention import LSE, LSE_OF_ROUNDED, NEIGHBOURS, check_kernel, check_reference  # noqa: E402
from trace_data import assert_close, load, need_hopper  # noqa: E402


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


@pytest.mark.at_most(total_q=200)
def test_reference_agrees_with_float64(definition, inputs):
    check_reference(definition, inputs, independent)


@pytest.mark.at_most(total_q=200)
def test_a_token_changes_no_query_before_it(definition, inputs):
    last = int(inputs["kv_indices"][int(inputs["kv_indptr"][1]) - 1])  # the last token of the first sequence
    changed = {name: inputs[name].clone() for name in ("k_cache", "v_cache")}
    for cache in changed.values():
        cache[last] = 100
    end = int(inputs["qo_indptr"][1]) - 1
    for one, other in zip(definition.run(**inputs), definition.run(**inputs | changed), strict=True):
        assert torch.equal(one[:end], other[:end])
        assert not torch.equal(one[end], other[end])


@pytest.mark.at_most(total_q=200)
def test_the_last_query_of_each_sequence_is_a_decode_step(definition, inputs):
    ends = inputs.pop("qo_indptr")
    prefill = definition.run(**inputs, qo_indptr=ends)
    decode = load("gqa_paged_decode_h32_kv8_d128_ps1").run(**inputs | {"q": inputs["q"][ends[1:].long() - 1]})
    for one, other in zip(prefill, decode, strict=True):
        assert_close(one[ends[1:].long() - 1], other, **NEIGHBOURS)


@pytest.mark.parametrize("backend", ["auto", "fa2", "fa3"])
def test_kernel_agrees_with_reference(kernel, definition, inputs, backend):
    if backend == "fa3":
        need_hopper()
    results = kernel.run(**inputs, backend=backend)
    check_kernel(definition, inputs, results, LSE if backend == "fa3" else LSE_OF_ROUNDED)
