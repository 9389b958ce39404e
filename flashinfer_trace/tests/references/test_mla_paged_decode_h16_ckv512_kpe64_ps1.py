import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from trace_data import assert_close, inputs_of, load, workloads  # noqa: E402

NAME = "mla_paged_decode_h16_ckv512_kpe64_ps1"
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


def independent(q_nope, q_pe, ckv_cache, kpe_cache, kv_indptr, kv_indices, sm_scale):
    """In float64: plain attention whose keys are both parts side by side, with softmax and logsumexp."""
    query = torch.cat([q_nope, q_pe], dim=-1).double()
    cache = torch.cat([ckv_cache, kpe_cache], dim=-1).double()
    output, lse = torch.zeros(q_nope.shape, dtype=torch.float64), torch.zeros(q_nope.shape[:2], dtype=torch.float64)
    for b, pages in enumerate(torch.tensor_split(kv_indices.long(), kv_indptr[1:-1].long())):
        logits = torch.einsum("hd,ld->hl", query[b], cache[pages, 0]) * sm_scale
        output[b] = torch.softmax(logits, dim=1) @ cache[pages, 0, :512]
        lse[b] = torch.logsumexp(logits, dim=1) / math.log(2)
    return output, lse


def magnitudes(inputs):
    """What WEIGHTS is measured by: the same weights over the magnitudes of the latents."""
    mix = torch.zeros(inputs["q_nope"].shape, dtype=torch.float64)
    indices, ends = inputs["kv_indices"].long(), inputs["kv_indptr"].long()
    for b in range(len(mix)):
        pages = indices[ends[b] : ends[b + 1]]
        latents, rotary = inputs["ckv_cache"][pages, 0].float(), inputs["kpe_cache"][pages, 0].float()
        logits = inputs["q_nope"][b].float() @ latents.T + inputs["q_pe"][b].float() @ rotary.T
        mix[b] = (torch.softmax(logits * inputs["sm_scale"], dim=1) @ latents.abs()).double()
    return mix.to(indices.device)


@pytest.mark.parametrize("workload", workloads(NAME, num_kv_indices=12000))
def test_reference_agrees_with_float64(workload):
    inputs = inputs_of(DEFINITION, workload, "cpu")
    output, lse = DEFINITION.run(**inputs)
    expected, expected_lse = independent(**inputs)
    assert (output.dtype, lse.dtype) == (torch.bfloat16, torch.float32)
    assert_close(output, expected, **REFERENCE)
    # Logits of standard normal inputs reach 15 here, sums of 576 products: float32 keeps them to 1e-5.
    assert_close(lse, expected_lse, rtol=0, atol=1e-4)


def test_a_query_of_zeros_gives_the_mean_and_the_logarithm_of_the_length():
    latents = torch.randn(16, 1, 512, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    zeros = torch.zeros(1, 16, 576, dtype=torch.bfloat16)
    indptr, indices = torch.tensor([0, 16], dtype=torch.int32), torch.arange(16).int()
    output, lse = DEFINITION.run(
        zeros[..., :512], zeros[..., 512:], latents, torch.ones(16, 1, 64, dtype=torch.bfloat16), indptr, indices, 1.0
    )
    assert_close(output[0], latents.double().mean(0).expand(16, 512), **REFERENCE)
    assert_close(lse, torch.full((1, 16), 4.0), rtol=0, atol=1e-6)


def test_the_order_of_the_tokens_does_not_matter():
    inputs = inputs_of(DEFINITION, workloads(NAME, batch_size=3)[1].values[0], "cpu")
    shuffled = inputs["kv_indices"].clone()
    shuffled[int(inputs["kv_indptr"][2]) :] = shuffled[int(inputs["kv_indptr"][2]) :].flip(0)
    for one, other in zip(DEFINITION.run(**inputs), DEFINITION.run(**inputs | {"kv_indices": shuffled}), strict=True):
        assert_close(one, other, **NEIGHBOURS)


def test_the_rotary_part_takes_no_part_in_the_value():
    inputs = inputs_of(DEFINITION, workloads(NAME, batch_size=1)[0].values[0], "cpu")
    output, _ = DEFINITION.run(**inputs)  # of a single token
    assert torch.equal(output[0], inputs["ckv_cache"][inputs["kv_indices"].long(), 0].expand(16, 512))


@pytest.mark.parametrize("backend", ["fa2", "fa3"])
@pytest.mark.parametrize("workload", workloads(NAME))
def test_kernel_agrees_with_reference(flashinfer, workload, backend):
    if backend == "fa3" and torch.cuda.get_device_capability()[0] != HOPPER:
        pytest.skip("this kernel is for Hopper GPUs")
    i = inputs_of(DEFINITION, workload, "cuda")
    workspace = torch.zeros(128 << 20, dtype=torch.uint8, device="cuda")
    wrapper = flashinfer.mla.BatchMLAPagedAttentionWrapper(workspace, backend=backend)
    wrapper.plan(
        qo_indptr=torch.arange(len(i["q_nope"]) + 1, dtype=torch.int32, device="cuda"),
        kv_indptr=i["kv_indptr"],
        kv_indices=i["kv_indices"],
        kv_len_arr=i["kv_indptr"].diff(),
        num_heads=16,
        head_dim_ckv=512,
        head_dim_kpe=64,
        page_size=1,
        causal=False,
        sm_scale=i["sm_scale"],
        q_data_type=torch.bfloat16,
        kv_data_type=torch.bfloat16,
    )
    caches = {"ckv_cache": i["ckv_cache"], "kpe_cache": i["kpe_cache"]}
    output, lse = wrapper.run(q_nope=i["q_nope"], q_pe=i["q_pe"], **caches, return_lse=True)
    expected, expected_lse = DEFINITION.run(**i)
    assert_close(output, expected, rtol=OUTPUT, atol=WEIGHTS * magnitudes(i))
    assert_close(lse, expected_lse, rtol=0, atol=LSE if backend == "fa3" else LSE_OF_ROUNDED)
