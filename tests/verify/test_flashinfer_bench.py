"""The project's trace data by upstream's judgement: flashinfer-bench itself loads, validates and applies it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

TRACE = ROOT / "flashinfer_trace"
torch = pytest.importorskip("torch", reason="torch is not installed")
bench = pytest.importorskip("flashinfer_bench", reason="flashinfer-bench is not installed")
flashinfer = pytest.importorskip("flashinfer", reason="FlashInfer is not installed")


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("FIB_CACHE_PATH", str(tmp_path))
    return import_module("flashinfer_bench.data").TraceSet.from_path(str(TRACE))


def test_it_loads_every_definition_with_workloads_and_one_baseline(traces: Any) -> None:
    names = {file.stem for file in TRACE.glob("definitions/*/*.json")}
    assert traces.definitions.keys() == traces.workloads.keys() == traces.solutions.keys() == names
    assert all([each.author for each in solutions] == ["baseline"] for solutions in traces.solutions.values())


def test_it_builds_every_baseline(traces: Any) -> None:
    registry = import_module("flashinfer_bench.compile").BuilderRegistry.get_instance()
    for name, (solution,) in traces.solutions.items():
        assert registry.build(traces.definitions[name], solution)


def test_its_validator_finds_no_error_and_nothing_to_warn_of(tmp_path: Path) -> None:
    reason = "this release of flashinfer-bench has no validator"
    validate = pytest.importorskip("flashinfer_bench.data.validate", reason=reason).validate_dataset
    report = validate(str(TRACE), disable_gpu=True, output_folder=str(tmp_path), outputs=["text"])
    messages = [
        (name, message.level, message.message)
        for name, checks in report.definitions.items()
        for _, check in checks
        for message in getattr(check, "messages", ())
    ]
    assert {name for name, _, _ in messages} == {file.stem for file in TRACE.glob("definitions/*/*.json")}
    without_runs = {name for name in report.definitions if not list(TRACE.glob(f"traces/baseline/*/{name}.jsonl"))}
    expected = [(name, "warning", "trace missing") for name in report.definitions if name in without_runs]
    assert [each for each in messages if each[1] != "info"] == expected


@pytest.fixture
def applied(traces: Any) -> Iterator[Any]:
    """The trace data with apply enabled, and the reference as the best solution of every workload."""
    data = import_module("flashinfer_bench.data")
    apply = import_module("flashinfer_bench.apply")
    spec = {"language": "python", "target_hardware": ["cpu"], "entry_point": "main.py::run"}
    passed = data.Evaluation(
        status="PASSED",
        environment=data.Environment(hardware="CPU"),
        timestamp="2026-11-24T00:00:00",
        correctness=data.Correctness(),
        performance=data.Performance(latency_ms=1.0, reference_latency_ms=1.0, speedup_factor=1.0),
    )
    for name, definition in traces.definitions.items():
        reference = data.Solution(
            name=f"reference_{name}",
            definition=name,
            author="reference",
            spec=data.BuildSpec(**spec, destination_passing_style=False),
            sources=[data.SourceFile(path="main.py", content=definition.reference)],
        )
        traces.solutions[name] = [reference]
        traces.traces[name] = [
            data.Trace(definition=name, workload=each.workload, solution=reference.name, evaluation=passed)
            for each in traces.workloads[name]
        ]
    runtime = apply.ApplyRuntime(
        data.TraceSet(TRACE, traces.definitions, traces.solutions, traces.workloads, traces.traces)
    )
    import_module("flashinfer_bench.integration.patch_manager").get_manager().unpatch_all()
    with runtime:
        yield traces


@pytest.fixture
def smallest(applied: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[Any, dict[str, Any]]]:
    """A function that returns a definition with the inputs of its first workload."""
    monkeypatch.syspath_prepend(str(TRACE / "tests" / "references"))
    trace_data = import_module("trace_data")

    def load(name: str) -> tuple[Any, dict[str, Any]]:
        definition = trace_data.load(name)
        workload = applied.workloads[name][0].workload.model_dump(mode="json")
        return definition, trace_data.make_inputs(definition, workload, "cpu")

    return load


def adapted(module: str, adapter: str, *originals: Callable[..., Any]) -> list[Callable[..., Any]]:
    """Upstream's adapter around functions with the signatures of `originals`; the last one must not be reached."""
    instance = getattr(import_module(f"flashinfer_bench.integration.flashinfer.adapters.{module}"), adapter)()

    def stand_in(original: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> None:
            assert original is not originals[-1], "apply fell back to FlashInfer"

        called.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
        return called

    pairs = zip(instance.targets(), originals, strict=True)
    return [instance.make_wrapper(target, stand_in(original)) for target, original in pairs]


def assert_same(found: Any, expected: Any) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


class Wrapper:
    """Stands for an instance of one of FlashInfer's wrapper classes."""


@pytest.mark.parametrize("name", ["fused_add_rmsnorm_h4096", "fused_add_rmsnorm_h7168"])
def test_fused_add_rmsnorm_is_applied(smallest: Any, name: str) -> None:
    definition, i = smallest(name)
    (norm,) = adapted("rmsnorm", "RMSNormAdapter", flashinfer.norm.fused_add_rmsnorm)
    assert_same(norm(i["hidden_states"], i["residual"], i["weight"], eps=1e-6), definition.run(**i))


def test_paged_decode_is_applied(smallest: Any) -> None:
    definition, i = smallest("gqa_paged_decode_h32_kv8_d128_ps1")
    wrapper, original = Wrapper(), flashinfer.BatchDecodeWithPagedKVCacheWrapper
    plan, run = adapted("gqa_paged_decode", "GQAPagedDecodeAdapter", original.plan, original.run)
    ones = torch.ones(len(i["q"]), dtype=torch.int32)
    plan(wrapper, i["kv_indptr"], i["kv_indices"], ones, 32, 8, 128, 1)
    assert_same(run(wrapper, i["q"], (i["k_cache"], i["v_cache"]), return_lse=True), definition.run(**i))


def test_paged_prefill_is_applied(smallest: Any) -> None:
    definition, i = smallest("gqa_paged_prefill_causal_h32_kv8_d128_ps1")
    wrapper, original = Wrapper(), flashinfer.BatchPrefillWithPagedKVCacheWrapper
    plan, run = adapted("gqa_paged_prefill", "GQAPagedPrefillAdapter", original.plan, original.run)
    ones = torch.ones(len(i["kv_indptr"]) - 1, dtype=torch.int32)
    plan(wrapper, i["qo_indptr"], i["kv_indptr"], i["kv_indices"], ones, 32, 8, 128, 1, causal=True)
    assert_same(run(wrapper, i["q"], (i["k_cache"], i["v_cache"]), return_lse=True), definition.run(**i))


def test_paged_latent_decode_is_applied(smallest: Any) -> None:
    definition, i = smallest("mla_paged_decode_h16_ckv512_kpe64_ps1")
    wrapper, original = Wrapper(), flashinfer.mla.BatchMLAPagedAttentionWrapper
    plan, run = adapted("mla_paged", "MLAPagedAdapter", original.plan, original.run)
    tables = {"qo_indptr": torch.arange(len(i["kv_indptr"])), "kv_indptr": i["kv_indptr"]}
    tables |= {"kv_indices": i["kv_indices"], "kv_len_arr": i["kv_indptr"].diff()}
    sizes = {"num_heads": 16, "head_dim_ckv": 512, "head_dim_kpe": 64, "page_size": 1}
    plan(wrapper, **tables, **sizes, causal=True, sm_scale=i["sm_scale"])
    tensors = {name: i[name] for name in ("q_nope", "q_pe", "ckv_cache", "kpe_cache")}
    assert_same(run(wrapper, **tensors, return_lse=True), definition.run(**i))


def test_a_linear_layer_is_applied(smallest: Any) -> None:
    definition, i = smallest("gemm_n4096_k4096")  # upstream's adapter handles tensors on the GPU alone
    assert_same([bench.apply("gemm_n4096_k4096", kwargs=i)], [definition.run(**i)])


def test_definitions_that_take_more_than_adapters_pass_have_names_that_none_resolves(traces: Any) -> None:
    module = import_module("flashinfer_bench.integration.flashinfer.adapters.gqa_paged_decode")
    q, cache = torch.empty(1, 32, 128), torch.empty(1, 16, 8, 128)
    assert module._def_name_resolver(q, cache, cache, None, None, None, 16) not in traces.definitions
