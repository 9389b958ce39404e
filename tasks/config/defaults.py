"""The defaults of the configuration tree `sources`, and the repositories that are known by name."""

from __future__ import annotations

from typing import Any

REPOSITORIES: dict[str, dict[str, str]] = {
    "sglang": {"url": "https://github.com/sgl-project/sglang.git"},
    "flashinfer": {"url": "https://github.com/flashinfer-ai/flashinfer.git"},
    "sgl-cookbook": {"url": "https://github.com/sgl-project/sgl-cookbook.git"},
    "flashinfer-trace": {"url": "https://huggingface.co/datasets/flashinfer-ai/flashinfer-trace"},
}
INSTALLED = ("sglang", "flashinfer")  # always set up; the others only if they are configured
TRACE = "flashinfer-trace"  # its checkout has the trace data if the project has no directory of its own

# Numbers are text here: Invoke converts a variable to the type of the default, and INVOKE_SOURCES_ATTEMPTS=many would
# end in a bare ValueError.
DEFAULTS: dict[str, Any] = {
    "directory": "tmp",
    "trace": "flashinfer_trace",
    "attempts": "5",
    "stall": "30",
    "installer": "auto",
    "indexes": [],
    "overrides": [],
    "cache": "auto",
    "repositories": {name: {**REPOSITORIES[name], "branch": "main"} for name in INSTALLED},
}
