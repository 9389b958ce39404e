import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from trace_data import assert_close, load, workloads  # noqa: E402

NAME = "moe_fp8_block_scale_ds_routing_topk8_ng8_kg4_e32_h7168_i2048"
DEFINITION = load(NAME)
EXPERTS, LOCAL, HIDDEN, INTERMEDIATE, BLOCK = 256, 32, 7168, 2048, 128

# The reference sums in float32 and rounds once to bfloat16: 2^-8 of the value. Where large terms cancel, what float32
# loses of them is left: 1e-5 of the largest.
REFERENCE = {"rtol": 2**-8, "atol": 1e-4}
NEIGHBOURS = {"rtol": 2**-7, "atol": 1e-4}  # both sides rounded
# Before the second product a kernel rounds what the activation gives to FP8, 4 significant bits: an error of up to 2^-4
# of each of the 2048 terms of a sum, 0.026 of it in the root of the mean square, of either sign. A sum of such terms
# errs by 0.026 of its own root mean square, nearly normally distributed; of tens of millions of elements none is then
# further off than 6 times that, 0.16. The root mean square of all errors is steady, so it is held closer.
FP8_MEAN, FP8_LARGEST = 0.035, 0.2
ROUTING = 1e-5
HOPPER = 9


def numbers(shape, generator):
    """Standard normal numbers in float8_e4m3fn, a sixth of the range that the format has."""
    return (
        (torch.randn(shape, generator=generator, device=generator.device) * 64).clamp(-448, 448).to(torch.float8_e4m3fn)
    )


def scales(shape, middle, generator):
    """Positive factors around `middle`, not powers of two."""
    return middle * (0.5 + torch.rand(shape, generator=generator, device=generator.device))


def experts(shape, generator):
    """A weight for each local expert: the same numbers, in another order of rows each."""
    one = numbers(shape, generator).view(torch.uint8)
    return torch.stack([one.roll(37 * expert, dims=0) for expert in range(LOCAL)]).view(torch.float8_e4m3fn)


def inputs_of(workload, device):
    """Inputs of the sizes that a real layer has: activations near 1, results near 1."""
    generator = torch.Generator(device).manual_seed(0)
    seq_len = workload["axes"]["seq_len"]
    hidden = numbers((seq_len, HIDDEN), generator)
    # A kernel that is given bfloat16 quantises it itself. It finds these same numbers, because each block holds the
    # largest number of the format, and the product with a power of two fits into bfloat16.
    hidden.view(torch.uint8)[:, ::BLOCK] = torch.tensor(448.0).to(torch.float8_e4m3fn).view(torch.uint8).item()
    exponent = torch.randint(-7, -4, (HIDDEN // BLOCK, seq_len), generator=generator, device=device)
    return {
        "routing_logits": torch.randn(seq_len, EXPERTS, generator=generator, device=device),
        "routing_bias": (0.1 * torch.randn(EXPERTS, generator=generator, device=device)).to(torch.bfloat16),
        "hidden_states": hidden,
        "hidden_states_scale": torch.exp2(exponent.float()),
        "gemm1_weights": experts((2 * INTERMEDIATE, HIDDEN), generator),
        "gemm1_weights_scale": scales((LOCAL, 32, 56), 1 / 64 / HIDDEN**0.5, generator),
        "gemm2_weights": experts((HIDDEN, INTERMEDIATE), generator),
        "gemm2_weights_scale": scales((LOCAL, 56, 16), 1 / 64 / INTERMEDIATE**0.5, generator),
        "local_expert_offset": workload["inputs"]["local_expert_offset"]["value"],
        "routed_scaling_factor": workload["inputs"]["routed_scaling_factor"]["value"],
    }


def dequantised(numbers, factors):
    """In float64, block by block: [rows, columns] numbers, a factor for each 128 x 128."""
    rows, columns = (size // BLOCK for size in numbers.shape)
    blocks = numbers.double().reshape(rows, BLOCK, columns, BLOCK) * factors.double()[:, None, :, None]
    return blocks.reshape(rows * BLOCK, columns * BLOCK)


def chosen_experts(logits, bias):
    """In float64, token by token, by sorting: the numbers of a token's experts and their share."""
    rows = []
    for row in torch.sigmoid(logits.double()):
        biased = row + bias.double()
        best_two = [sorted(biased[g * 32 : g * 32 + 32].tolist())[-2:] for g in range(8)]
        groups = sorted(range(8), key=lambda g: -sum(best_two[g]))[:4]
        members = sorted((e for g in groups for e in range(g * 32, g * 32 + 32)), key=lambda e: -float(biased[e]))[:8]
        rows.append({e: float(row[e]) / sum(float(row[m]) for m in members) for e in members})
    return rows


def independent(inputs):
    """In float64, token by token and expert by expert."""
    i = inputs
    seq_len = len(i["routing_logits"])
    output = torch.zeros(seq_len, HIDDEN, dtype=torch.float64)
    needed = {}
    for token, shares in enumerate(chosen_experts(i["routing_logits"], i["routing_bias"])):
        factors = i["hidden_states_scale"][:, token].double().repeat_interleave(BLOCK)
        x = i["hidden_states"][token].double() * factors
        for expert, share in shares.items():
            local = expert - i["local_expert_offset"]
            if not 0 <= local < LOCAL:
                continue
            if local not in needed:
                first = dequantised(i["gemm1_weights"][local], i["gemm1_weights_scale"][local])
                needed[local] = first, dequantised(i["gemm2_weights"][local], i["gemm2_weights_scale"][local])
            first, second = needed[local]
            up, gate = (first @ x).chunk(2)
            output[token] += share * i["routed_scaling_factor"] * (second @ (up * torch.nn.functional.silu(gate)))
    return output


@pytest.fixture(scope="module")
def small():
    """Inputs of 4 tokens."""
    return inputs_of({"axes": {"seq_len": 4}, "inputs": workloads(NAME)[0].values[0]["inputs"]}, "cpu")


@pytest.mark.parametrize("offset", [0, 64])
def test_reference_agrees_with_float64(small, offset):
    inputs = {
        name: value[:4] if name in ("routing_logits", "hidden_states") else value for name, value in small.items()
    }
    inputs |= {"hidden_states_scale": small["hidden_states_scale"][:, :4], "local_expert_offset": offset}
    output = DEFINITION.run(**inputs)
    assert output.dtype == torch.bfloat16
    expected = independent(inputs)
    assert torch.count_nonzero(expected) > 0
    assert_close(output, expected, **REFERENCE)


def test_tokens_without_a_local_expert_get_zeros(small):
    logits = small["routing_logits"].clone()
    logits[:, 128:] += 20  # the four groups of the last ranks
    assert torch.count_nonzero(DEFINITION.run(**small | {"routing_logits": logits})) == 0


def test_the_same_bias_for_all_changes_nothing(small):
    bias = torch.zeros(EXPERTS, dtype=torch.bfloat16)
    one, other = (DEFINITION.run(**small | {"routing_bias": bias + shift}) for shift in (0.0, 0.5))
    assert torch.equal(one, other)


def test_the_scaling_factor_is_a_factor(small):
    assert torch.equal(2 * DEFINITION.run(**small), DEFINITION.run(**small | {"routed_scaling_factor": 5.0}))


def test_the_shares_of_a_token_sum_to_the_scaling_factor(small):
    # With all experts alike and all chosen ones local, the mixture is one expert times the factor, whatever the logits.
    alike = {name: small[name][:1].expand_as(small[name]) for name in small if name.startswith("gemm")}
    logits = small["routing_logits"].clone()
    logits[:, :LOCAL] += 20
    inputs = small | alike | {"routing_logits": logits, "routing_bias": torch.zeros(EXPERTS, dtype=torch.bfloat16)}
    even = torch.full_like(logits, -20)
    even[:, :LOCAL] = 20
    assert_close(DEFINITION.run(**inputs), DEFINITION.run(**inputs | {"routing_logits": even}), **NEIGHBOURS)


def check_kernel(output, expected):
    error, size = (output.double() - expected.double()), expected.double()
    size = (
        size.square().mean(dim=1, keepdim=True).sqrt()
    )  # of each token, because they have more or fewer local experts
    assert not torch.isnan(output).any()
    assert torch.count_nonzero(error[size[:, 0] == 0]) == 0
    relative = (error / size)[size[:, 0] > 0]
    if len(relative):
        assert relative.square().mean().sqrt() < FP8_MEAN
        assert relative.abs().max() < FP8_LARGEST


def route(flashinfer, i):
    """The experts of each token and their weights, from FlashInfer's kernel."""
    from flashinfer.fused_moe import fused_topk_deepseek

    weights = torch.empty(len(i["routing_logits"]), 8, device="cuda")
    chosen = torch.empty(len(i["routing_logits"]), 8, dtype=torch.int32, device="cuda")
    bias = i["routing_bias"].float()
    fused_topk_deepseek(i["routing_logits"], bias, 8, 4, 8, i["routed_scaling_factor"], weights, chosen)
    return chosen, weights


def activations(i):
    """The activations in bfloat16, exactly."""
    factors = i["hidden_states_scale"].T.repeat_interleave(BLOCK, dim=1)
    return (i["hidden_states"].float() * factors).to(torch.bfloat16)


@pytest.mark.parametrize("workload", workloads(NAME, seq_len=256))
def test_routing_kernel_agrees_with_float64(flashinfer, workload):
    i = inputs_of(workload, "cuda")
    chosen, weights = route(flashinfer, i)
    expected = chosen_experts(i["routing_logits"].cpu(), i["routing_bias"].cpu())
    for numbers_of, shares, row in zip(chosen.tolist(), weights.tolist(), expected, strict=True):
        found = dict(zip(numbers_of, shares, strict=True))
        assert found.keys() == row.keys()
        # The kernel computes in float32, with the hardware's exp and division: a few units of 2^-22.
        assert all(abs(found[e] - row[e] * i["routed_scaling_factor"]) < ROUTING for e in row)


@pytest.mark.parametrize("workload", workloads(NAME))
def test_kernels_agree_with_reference(flashinfer, workload):
    """Routing, both block-scaled products and the activation by FlashInfer's kernels, expert by expert."""
    from flashinfer.gemm import fp8_blockscale_gemm_sm90

    if torch.cuda.get_device_capability()[0] != HOPPER:
        pytest.skip("this kernel is for Hopper GPUs")
    i = inputs_of(workload, "cuda")
    chosen, weights = route(flashinfer, i)
    x = activations(i)
    output = torch.zeros(x.shape, device="cuda")
    for local in range(LOCAL):
        token, place = torch.nonzero(chosen == i["local_expert_offset"] + local, as_tuple=True)
        if len(token):
            first, second = ((i[f"gemm{n}_weights"][local], i[f"gemm{n}_weights_scale"][local]) for n in (1, 2))
            projected = fp8_blockscale_gemm_sm90(x[token], first[0], None, first[1])
            activated = flashinfer.silu_and_mul(projected.roll(INTERMEDIATE, dims=1))  # it wants the gate first
            result = fp8_blockscale_gemm_sm90(activated, second[0], None, second[1])
            output.index_add_(0, token, result.float() * weights[token, place][:, None])
    check_kernel(output, DEFINITION.run(**i))


@pytest.mark.parametrize("workload", workloads(NAME))
def test_fused_kernel_agrees_with_reference(flashinfer, workload):
    """The whole layer by FlashInfer's fused kernel."""
    from flashinfer.fused_moe import cutlass_fused_moe
    from flashinfer.jit.fused_moe import gen_cutlass_fused_moe_sm90_module

    if torch.cuda.get_device_capability()[0] != HOPPER:
        pytest.skip("this kernel is for Hopper GPUs")
    module = gen_cutlass_fused_moe_sm90_module()
    if not (module.is_compiled or module.is_aot):
        pytest.skip("FlashInfer's fused_moe_90 is not built; with all its variants that takes hours of processor time")
    i = inputs_of(workload, "cuda")
    chosen, weights = route(flashinfer, i)
    output = cutlass_fused_moe(
        activations(i),
        chosen,
        weights,
        i["gemm1_weights"],
        i["gemm2_weights"],
        torch.bfloat16,
        quant_scales=[i["gemm1_weights_scale"], i["gemm2_weights_scale"]],
        use_deepseek_fp8_block_scale=True,
        ep_size=EXPERTS // LOCAL,
        ep_rank=i["local_expert_offset"] // LOCAL,
    )
    output = output[0] if isinstance(output, (list, tuple)) else output
    check_kernel(output, DEFINITION.run(**i))
