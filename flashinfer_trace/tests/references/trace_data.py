"""What the reference tests share: the definitions' own functions, the workloads, and inputs made from them."""

import json
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).parents[2]


def load(name):
    """The definition `name`: its JSON fields as attributes, and `run`, the function of its reference."""
    (path,) = ROOT.glob(f"definitions/*/{name}.json")
    definition = SimpleNamespace(**json.loads(path.read_text("utf-8")))
    scope = {}
    exec(compile(definition.reference, f"{name}.reference", "exec"), scope)  # noqa: S102  this project's own data
    definition.run = scope["run"]
    return definition


def workloads(name, **most):
    """Each workload of `name` as a pytest parameter named for its axes, or those with at most so much of an axis."""
    (path,) = ROOT.glob(f"workloads/*/{name}.jsonl")
    rows = [json.loads(line)["workload"] for line in path.read_text("utf-8").splitlines()]
    return [
        pytest.param(row, id=",".join(f"{axis}={size}" for axis, size in row["axes"].items()))
        for row in rows
        if all(row["axes"][axis] <= limit for axis, limit in most.items())
    ]


def inputs_of(definition, workload, device, seed=0):
    """The inputs that `workload` names, by name. Random ones are standard normal, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {axis: about.get("value") for axis, about in definition.axes.items()} | workload["axes"]
    inputs = {}
    for name, source in workload["inputs"].items():
        tensor = definition.inputs[name]
        dtype = getattr(torch, tensor["dtype"])
        if source["type"] == "scalar":
            inputs[name] = source["value"]
        elif source["type"] == "safetensors":
            inputs[name] = _stored(ROOT / source["path"], source["tensor_key"]).to(device)
        else:
            shape = [sizes[axis] for axis in tensor["shape"]]
            inputs[name] = torch.randn(shape, generator=generator).to(dtype).to(device)
    return inputs


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
    excess = ((actual - expected).abs() - rtol * expected.abs() - atol)[
        actual != expected
    ]  # equal infinities are close
    assert excess.numel() == 0 or excess.max() <= 0, f"{int((excess > 0).sum())} of {actual.numel()} elements differ"
