"""Small stand-ins for the other repositories of the workshop: the cookbook, and trace data with a Git LFS pointer."""

from __future__ import annotations

import json
from pathlib import Path

from .store import File, Importer

COOKBOOK = "sgl-project/sgl-cookbook"
TRACE = "flashinfer-ai/flashinfer-trace"
SITES = ("https://github.com/", "https://huggingface.co/datasets/")  # where the repositories are said to be
BLOB = "blob/workloads/scan/scan_h8/scan_h8_a.safetensors"
ATTRIBUTES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
DEFINITION = {
    "name": "scan_h8",
    "op_type": "scan",
    "description": "A prefix sum over rows of 8.",
    "axes": {
        "rows": {"type": "var", "description": "Rows."},
        "h": {"type": "const", "value": 8, "description": "Width."},
    },
    "inputs": {"x": {"shape": ["rows", "h"], "dtype": "float32", "description": "What is summed."}},
    "outputs": {"y": {"shape": ["rows", "h"], "dtype": "float32", "description": "The sums."}},
    "reference": "import torch\n\ndef run(x):\n    return x.cumsum(0)\n",
}


def build(root: Path) -> None:
    """Write both repositories."""
    with Importer(root / f"{COOKBOOK}.git") as to:
        to.commit("main", {"README.md": "# Cookbook\n", "data/models/llama.yaml": "tp: 1\nep: 1\n"})
    with Importer(root / f"{TRACE}.git") as to:
        to.commit("main", _trace_files())


def _trace_files() -> dict[str, File]:
    x = {"type": "safetensors", "path": f"./{BLOB}", "tensor_key": "x"}
    workload = {"definition": "scan_h8", "workload": {"uuid": "a", "axes": {"rows": 4}, "inputs": {"x": x}}}
    return {
        ".gitattributes": ATTRIBUTES,
        "definitions/scan/scan_h8.json": f"{json.dumps(DEFINITION, indent=2)}\n",
        "workloads/scan/scan_h8.jsonl": f"{json.dumps(workload)}\n",
        "tests/references/test_scan_h8.py": "def test_nothing():\n    pass\n",
        BLOB: f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 256\n",
    }
