"""The defaults of the configuration tree `sources`; alone, as `invoke --list` has to wait for them."""

from __future__ import annotations

from typing import Any

# Numbers stand as text: Invoke casts an environment variable by its default's type, and a bare ValueError would come
# out of INVOKE_SOURCES_ATTEMPTS=many.
DEFAULTS: dict[str, Any] = {
    "directory": "tmp",
    "trace": "flashinfer_trace",
    "attempts": "5",
    "stall": "30",
    "installer": "auto",
    "cache": "auto",
    "repositories": {
        "sglang": {"url": "https://github.com/sgl-project/sglang.git", "branch": "main"},
        "flashinfer": {"url": "https://github.com/flashinfer-ai/flashinfer.git", "branch": "main"},
    },
}
