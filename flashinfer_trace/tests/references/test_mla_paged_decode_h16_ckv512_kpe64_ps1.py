import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from attention import LSE, LSE_OF_ROUNDED, NEIGHBOURS, REFERENCE, check_kernel, check_reference  # noqa: E402
from trace_data import assert_close, need_hopper  # noqa: E402


def independent(q_nope, q_pe, ckv_cache, kpe_cache, kv_indptr, kv_indices, sm_scale, magnitude=False):
    """In float64: plain attention whose keys are both parts side by side, with softmax and logsumexp.

    With `magnitude` the values are the magnitudes of the latents.
    """
    query = torch.cat([q_nope, q_pe], dim=-1).double()
    cache = torch.cat([ckv_cache, kpe_cache], dim=-1)
    output, lse = torch.zeros_like(q_nope, dtype=torch.float64), torch.zeros_like(query[:, :, 0])
    for b, pages in enumerate(torch.tensor_split(kv_indices.long(), kv_indptr[1:-1].long().cpu())):
        keys = cache[pages, 0].double()
        logits = torch.einsum("hd,ld->hl", query[b], keys) * sm_scale
        values = keys[:, :512].abs() if magnitude else keys[:, :512]
        output[b] = torch.softmax(logits, dim=1) @ values
        lse[b] = torch.logsumexp(logits, dim=1) / math.log(2)
    return output, lse


@pytest.mark.at_most(num_kv_indices=12000)
def test_reference_agrees_with_float64(definition, inputs):
    # Logits of standard normal inputs reach 15 here, sums of 576 products: float32 keeps them to 1e-5.
    check_reference(definition, inputs, independent, lse=1e-4)


def test_a_query_of_zeros_gives_the_mean_and_the_logarithm_of_the_length(definition):
    latents = torch.randn(16, 1, 512, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    zeros = torch.zeros(1, 16, 576, dtype=torch.bfloat16)
    indptr, indices = torch.tensor([0, 16], dtype=torch.int32), torch.arange(16).int()
    output, lse = definition.run(
        zeros[..., :512], zeros[..., 512:], latents, torch.ones(16, 1, 64, dtype=torch.bfloat16), indptr, indices, 1.0
    )
    assert_close(output[0], latents.double().mean(0).expand(16, 512), **REFERENCE)
    assert_close(lse, torch.full((1, 16), 4.0), rtol=0, atol=1e-6)


@pytest.mark.at_most(batch_size=3)
def test_the_order_of_the_tokens_does_not_matter(definition, inputs):
    shuffled = inputs["kv_indices"].clone()
    shuffled[int(inputs["kv_indptr"][-2]) :] = shuffled[int(inputs["kv_indptr"][-2]) :].flip(0)
    for one, other in zip(definition.run(**inputs), definition.run(**inputs | {"kv_indices": shuffled}), strict=True):
        assert_close(one, other, **NEIGHBOURS)


@pytest.mark.at_most(num_kv_indices=1)
def test_the_rotary_part_takes_no_part_in_the_value(definition, inputs):
    output, _ = definition.run(**inputs)  # of a single token
    assert torch.equal(output[0], inputs["ckv_cache"][inputs["kv_indices"].long(), 0].expand(16, 512))


@pytest.mark.parametrize("backend", ["auto", "fa2", "fa3"])
def test_kernel_agrees_with_reference(kernel, definition, inputs, backend):
    if backend == "fa3":
        need_hopper()
    results = kernel.run(**inputs, backend=backend)
    magnitudes, _ = independent(**inputs, magnitude=True)
    check_kernel(definition, inputs, results, LSE if backend == "fa3" else LSE_OF_ROUNDED, magnitudes)
