"""What the reference tests share: the code and the inputs that the trace data holds, and how results are compared."""

import json
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).parents[2]
HOPPER = 9  # the major number of its compute capability
properties = None  # of the running test, where it compares a kernel


def load(name):
    """The definition `name`: its JSON fields as attributes, and `run`, the function of its reference."""
    (path,) = ROOT.glob(f"definitions/*/{name}.json")
    fields = json.loads(path.read_text("utf-8"))
    return SimpleNamespace(**fields, run=_module(fields["reference"], path).run)


def load_baseline(name):
    """The module of the baseline solution of the definition `name`."""
    (path,) = ROOT.glob(f"solutions/baseline/*/{name}/*.json")
    (source,) = json.loads(path.read_text("utf-8"))["sources"]
    return _module(source["content"], path)


def _module(source, path):
    scope = {}
    exec(compile(source, str(path), "exec"), scope)  # noqa: S102  this project's own data
    return SimpleNamespace(**scope)


def make_inputs(definition, workload, device, seed=0):
    """The inputs that `workload` names, by name. Random ones are standard normal, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {axis: about.get("value") for axis, about in definition.axes.items()} | workload["axes"]
    inputs = {}
    for name, source in workload["inputs"].items():
        tensor = definition.inputs[name]
        if source["type"] == "scalar":
            inputs[name] = source["value"]
        elif source["type"] == "safetensors":
            inputs[name] = _stored(ROOT / source["path"], source["tensor_key"]).to(device)
        else:
            random = torch.randn([sizes[axis] for axis in tensor["shape"]], generator=generator)
            inputs[name] = random.to(getattr(torch, tensor["dtype"])).to(device)
    return inputs


def normal(*shape):
    """Standard normal numbers in bfloat16, the same every time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)


def _stored(path, key):
    """One int32 tensor of a safetensors file: eight bytes of header size, a JSON header, the data."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    about = json.loads(data[8 : 8 + size])[key]
    assert about["dtype"] == "I32", about
    begin, end = (8 + size + offset for offset in about["data_offsets"])
    return torch.frombuffer(bytearray(data[begin:end]), dtype=torch.int32).reshape(about["shape"])


def assert_close(actual, expected, rtol, atol):
    """Every element within `atol + rtol * |expected|`, compared in float64. `atol` may be a tensor."""
    actual, expected = actual.double(), expected.double()
    assert actual.shape == expected.shape
    assert not torch.isnan(actual).any()
    error, allowed = (actual - expected).abs(), rtol * expected.abs() + atol
    ratio = torch.where(actual == expected, 0.0, error / allowed)  # equal infinities are close
    assert_allowed(float(ratio.max()) if ratio.numel() else 0.0)


def assert_allowed(ratio):
    """`ratio`, an error over the allowed one, is at most 1. The largest of a kernel is a property of its test."""
    if properties is not None:
        largest = max([ratio, *(value for name, value in properties if name == "error_ratio")])
        properties[:] = [each for each in properties if each[0] != "error_ratio"] + [("error_ratio", largest)]
    assert ratio <= 1, f"the largest error is {ratio:.3g} times the allowed one"


def need_hopper():
    """Skip the test on a GPU of another architecture."""
    if torch.cuda.get_device_capability()[0] != HOPPER:
        pytest.skip("this kernel is for Hopper GPUs")
