"""The defaults of the configuration tree `sources`, and the repositories that are known by name."""

from __future__ import annotations

from typing import Any

REPOSITORIES: dict[str, dict[str, str]] = {
    "sglang": {"url": "https://github.com/sgl-project/sglang.git", "branch": "main"},
    "flashinfer": {"url": "https://github.com/flashinfer-ai/flashinfer.git", "branch": "main"},
    "sgl-cookbook": {"url": "https://github.com/sgl-project/sgl-cookbook.git", "branch": "main"},
    "flashinfer-trace": {"url": "https://huggingface.co/datasets/flashinfer-ai/flashinfer-trace", "branch": "main"},
}
INSTALLED = ("sglang", "flashinfer")  # always set up; the others only where they are configured
TRACE = "flashinfer-trace"  # its checkout is the trace data where the project has no directory of its own

# Numbers stand as text: Invoke casts an environment variable by its default's type, and INVOKE_SOURCES_ATTEMPTS=many
# would end in a bare ValueError.
DEFAULTS: dict[str, Any] = {
    "directory": "tmp",
    "trace": "flashinfer_trace",
    "attempts": "5",
    "stall": "30",
    "installer": "auto",
    "indexes": [],
    "cache": "auto",
    "repositories": {name: REPOSITORIES[name] for name in INSTALLED},
}
