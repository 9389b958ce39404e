import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from trace_data import assert_allowed, assert_close, need_hopper  # noqa: E402

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
# The routing kernel computes in float32, with the hardware's exp and division: a few units of 2^-22.
ROUTING = 1e-5


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


def make_inputs(definition, workload, device):
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
def small(definition):
    """Inputs of 4 tokens."""
    scalars = {"local_expert_offset": {"value": 0}, "routed_scaling_factor": {"value": 2.5}}
    return make_inputs(definition, {"axes": {"seq_len": 4}, "inputs": scalars}, "cpu")


@pytest.mark.parametrize("offset", [0, 64])
def test_reference_agrees_with_float64(definition, small, offset):
    inputs = small | {"local_expert_offset": offset}
    output = definition.run(**inputs)
    assert output.dtype == torch.bfloat16
    expected = independent(inputs)
    assert torch.count_nonzero(expected) > 0
    assert_close(output, expected, **REFERENCE)


def test_tokens_without_a_local_expert_get_zeros(definition, small):
    logits = small["routing_logits"].clone()
    logits[:, 128:] += 20  # the four groups of the last ranks
    assert torch.count_nonzero(definition.run(**small | {"routing_logits": logits})) == 0


def test_the_same_bias_for_all_changes_nothing(definition, small):
    bias = torch.zeros(EXPERTS, dtype=torch.bfloat16)
    one, other = (definition.run(**small | {"routing_bias": bias + shift}) for shift in (0.0, 0.5))
    assert torch.equal(one, other)


def test_the_scaling_factor_is_a_factor(definition, small):
    assert torch.equal(2 * definition.run(**small), definition.run(**small | {"routed_scaling_factor": 5.0}))


def test_the_shares_of_a_token_sum_to_the_scaling_factor(definition, small):
    # With all experts alike and all chosen ones local, the mixture is one expert times the factor, whatever the logits.
    alike = {name: small[name][:1].expand_as(small[name]) for name in small if name.startswith("gemm")}
    logits = small["routing_logits"].clone()
    logits[:, :LOCAL] += 20
    inputs = small | alike | {"routing_logits": logits, "routing_bias": torch.zeros(EXPERTS, dtype=torch.bfloat16)}
    even = torch.full_like(logits, -20)
    even[:, :LOCAL] = 20
    assert_close(definition.run(**inputs), definition.run(**inputs | {"routing_logits": even}), **NEIGHBOURS)


def check_kernel(output, expected):
    error, expected = output.double() - expected.double(), expected.double()
    size = expected.square().mean(dim=1, keepdim=True).sqrt()  # of each token: they have more or fewer local experts
    assert not torch.isnan(output).any()
    assert torch.count_nonzero(error[size[:, 0] == 0]) == 0
    relative = (error / size)[size[:, 0] > 0]
    if len(relative):
        assert_allowed(float(relative.square().mean().sqrt()) / FP8_MEAN)
        assert_allowed(float(relative.abs().max()) / FP8_LARGEST)


@pytest.mark.at_most(seq_len=256)
def test_routing_kernel_agrees_with_float64(kernel, inputs):
    factor = inputs["routed_scaling_factor"]
    chosen, weights = kernel.route(inputs["routing_logits"], inputs["routing_bias"], factor)
    expected = chosen_experts(inputs["routing_logits"].cpu(), inputs["routing_bias"].cpu())
    for experts_of, weights_of, shares in zip(chosen.tolist(), weights.tolist(), expected, strict=True):
        found = dict(zip(experts_of, weights_of, strict=True))
        assert found.keys() == shares.keys()
        assert_allowed(max(abs(found[e] - shares[e] * factor) for e in shares) / ROUTING)


def test_kernels_agree_with_reference(kernel, definition, inputs):
    """Routing, both block-scaled products and the activation by FlashInfer's kernels, expert by expert."""
    need_hopper()
    check_kernel(kernel.run(**inputs), definition.run(**inputs))


def test_fused_kernel_agrees_with_reference(kernel, definition, inputs):
    """The whole layer by FlashInfer's fused kernel."""
    from flashinfer.jit.fused_moe import gen_cutlass_fused_moe_sm90_module

    need_hopper()
    module = gen_cutlass_fused_moe_sm90_module()
    if not (module.is_compiled or module.is_aot):
        pytest.skip("FlashInfer's fused_moe_90 is not built; with all its variants that takes hours of processor time")
    check_kernel(kernel.run(**inputs, fused=True), definition.run(**inputs))
