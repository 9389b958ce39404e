"""What every reference test gets: its definition, and the workloads, inputs and kernels that it asks for.

`test_{name}.py` tests the definition `name`. A test with the argument `workload` runs once for each workload. One with
the argument `kernel` runs on the GPU, and is skipped, with the reason, where there is none or FlashInfer is missing.
"""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest.register_assert_rewrite("attention", "norm", "trace_data")


def pytest_configure(config):
    config.addinivalue_line("markers", "at_most(AXIS=SIZE): only the workloads with at most this size of an axis")


def pytest_generate_tests(metafunc):
    if "workload" in metafunc.fixturenames:
        name, marker = name_of(metafunc.module), metafunc.definition.get_closest_marker("at_most")
        (path,) = ROOT.glob(f"workloads/*/{name}.jsonl")
        rows = [json.loads(line)["workload"] for line in path.read_text("utf-8").splitlines()]
        limits = marker.kwargs if marker else {}
        rows = [row for row in rows if all(row["axes"][axis] <= limit for axis, limit in limits.items())]
        names = [",".join(f"{axis}={size}" for axis, size in row["axes"].items()) for row in rows]
        metafunc.parametrize("workload", rows, ids=names)


def name_of(module):
    return module.__name__.removeprefix("test_")


@pytest.fixture(scope="module")
def definition(request):
    """The definition that this module tests."""
    from trace_data import load

    return load(name_of(request.module))


@pytest.fixture
def inputs(request, definition, workload):
    """The inputs of the workload, on the GPU for tests of kernels. A module may make its own, with `make_inputs`."""
    from trace_data import make_inputs

    device = "cuda" if "kernel" in request.fixturenames else "cpu"
    return getattr(request.module, "make_inputs", make_inputs)(definition, workload, device)


@pytest.fixture
def kernel(request):
    """The module of the definition's baseline solution: FlashInfer's kernel, behind `run`.

    The test's largest error, over the allowed one, is recorded as its property `error_ratio`.
    """
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    pytest.importorskip("flashinfer", reason="FlashInfer is not installed")
    import trace_data

    trace_data.properties = request.node.user_properties
    yield trace_data.load_baseline(name_of(request.module))
    trace_data.properties = None
