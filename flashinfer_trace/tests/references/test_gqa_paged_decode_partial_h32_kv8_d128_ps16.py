import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from attention import LSE, LSE_OF_ROUNDED, check_kernel, check_reference  # noqa: E402
from trace_data import load  # noqa: E402


def independent(q, k_cache, v_cache, kv_indptr, kv_indices, kv_last_page_len, sm_scale):
    """In float64, head by head, with softmax and logsumexp."""
    output, lse = torch.zeros(q.shape, dtype=torch.float64), torch.zeros(q.shape[:2], dtype=torch.float64)
    for b, pages in enumerate(torch.tensor_split(kv_indices.long(), kv_indptr[1:-1].long())):
        unused = 16 - int(kv_last_page_len[b])  # places in the last page
        keys, values = (cache[pages].double().flatten(0, 1)[: len(pages) * 16 - unused] for cache in (k_cache, v_cache))
        for head in range(32):
            logits = keys[:, head // 4] @ q[b, head].double() * sm_scale
            output[b, head] = torch.softmax(logits, dim=0) @ values[:, head // 4]
            lse[b, head] = torch.logsumexp(logits, dim=0) / math.log(2)
    return output, lse


@pytest.mark.at_most(num_kv_indices=1000)
def test_reference_agrees_with_float64(definition, inputs):
    check_reference(definition, inputs, independent)


@pytest.mark.at_most(batch_size=1)
def test_what_lies_behind_the_last_token_does_not_matter(definition, inputs):
    inputs |= {"kv_last_page_len": torch.tensor([5], dtype=torch.int32)}
    changed = {name: inputs[name].clone() for name in ("k_cache", "v_cache")}
    for cache in changed.values():
        cache[inputs["kv_indices"].long(), 5:] = math.nan
    for one, other in zip(definition.run(**inputs), definition.run(**inputs | changed), strict=True):
        assert torch.equal(one, other)


@pytest.mark.at_most(batch_size=7)
def test_pages_of_one_token_give_the_same(definition, inputs):
    tokens, lengths = [], []
    for b, pages in enumerate(torch.tensor_split(inputs["kv_indices"].long(), inputs["kv_indptr"][1:-1].long())):
        lengths.append((len(pages) - 1) * 16 + int(inputs["kv_last_page_len"][b]))
        tokens.append((pages[:, None] * 16 + torch.arange(16)).flatten()[: lengths[-1]])
    single = {name: inputs[name].reshape(-1, 1, 8, 128) for name in ("k_cache", "v_cache")}
    single |= {"kv_indptr": torch.tensor([0, *lengths]).cumsum(0).int(), "kv_indices": torch.cat(tokens).int()}
    single |= {"q": inputs["q"], "sm_scale": inputs["sm_scale"]}
    other = load("gqa_paged_decode_h32_kv8_d128_ps1").run(**single)
    for one, two in zip(definition.run(**inputs), other, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("tensor_cores", [False, True])
def test_kernel_agrees_with_reference(kernel, definition, inputs, tensor_cores):
    results = kernel.run(**inputs, use_tensor_cores=tensor_cores)
    check_kernel(definition, inputs, results, LSE_OF_ROUNDED if tensor_cores else LSE)
