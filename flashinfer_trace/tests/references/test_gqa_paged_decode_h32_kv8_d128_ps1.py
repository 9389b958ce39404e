import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from attention import LSE, LSE_OF_ROUNDED, NEIGHBOURS, REFERENCE, check_kernel, check_reference  # noqa: E402
from trace_data import assert_close, make_inputs  # noqa: E402


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


@pytest.fixture
def sequences(definition):
    """A function that makes inputs of sequences of so many tokens, in pages that follow each other."""

    def make(*lengths):
        axes = {"batch_size": len(lengths), "num_pages": sum(lengths), "len_indptr": len(lengths) + 1}
        sources = {name: {"type": "random"} for name in ("q", "k_cache", "v_cache")}
        inputs = make_inputs(definition, {"axes": axes, "inputs": sources}, "cpu")
        indptr = torch.tensor([0, *lengths]).cumsum(0).int()
        return inputs | {"kv_indptr": indptr, "kv_indices": torch.arange(sum(lengths)).int(), "sm_scale": 128**-0.5}

    return make


@pytest.mark.at_most(num_kv_indices=12000)
def test_reference_agrees_with_float64(definition, inputs):
    check_reference(definition, inputs, independent)


def test_one_token_gives_its_value(definition, sequences):
    inputs = sequences(1)
    output, lse = definition.run(**inputs)
    assert torch.equal(output[0], inputs["v_cache"][0, 0].repeat_interleave(4, dim=0))
    keys = inputs["k_cache"][0, 0].double().repeat_interleave(4, dim=0)
    assert_close(lse[0], (inputs["q"][0].double() * keys).sum(-1) * 128**-0.5 / math.log(2), rtol=1e-6, atol=1e-5)


def test_a_query_of_zeros_gives_the_mean_and_the_logarithm_of_the_length(definition, sequences):
    inputs = sequences(8)
    output, lse = definition.run(**inputs | {"q": torch.zeros(1, 32, 128, dtype=torch.bfloat16)})
    mean = inputs["v_cache"][:, 0].double().mean(0).repeat_interleave(4, dim=0)
    assert_close(output[0], mean, **REFERENCE)
    assert_close(lse, torch.full((1, 32), 3.0), rtol=0, atol=1e-6)


def test_the_order_of_the_tokens_does_not_matter(definition, sequences):
    inputs = sequences(40)
    shuffled = torch.randperm(40, generator=torch.Generator().manual_seed(1)).int()
    for one, other in zip(definition.run(**inputs), definition.run(**inputs | {"kv_indices": shuffled}), strict=True):
        assert_close(one, other, **NEIGHBOURS)


def test_parts_merge_by_their_lse(definition, sequences):
    inputs = sequences(30, 50)
    inputs["q"] = inputs["q"][:1].repeat(2, 1, 1)
    parts, lse = definition.run(**inputs)
    whole = {"q": inputs["q"][:1], "kv_indptr": torch.tensor([0, 80], dtype=torch.int32)}
    output, total = definition.run(**inputs | whole)
    share = torch.exp2(lse.double() - total.double())
    assert_close(share.sum(0), torch.ones(32), rtol=1e-5, atol=0)
    assert_close((share[:, :, None] * parts.double()).sum(0), output[0], rtol=2**-7, atol=2**-8)


def test_a_sequence_without_tokens_gives_zeros(definition, sequences):
    output, lse = definition.run(**sequences(3, 0))
    assert torch.count_nonzero(output[1]) == 0
    assert torch.equal(lse[1], torch.full((32,), -math.inf))


@pytest.mark.parametrize("tensor_cores", [False, True])
def test_kernel_agrees_with_reference(kernel, definition, inputs, tensor_cores):
    results = kernel.run(**inputs, use_tensor_cores=tensor_cores)
    check_kernel(definition, inputs, results, LSE_OF_ROUNDED if tensor_cores else LSE)
