"""Where things are in the upstream repositories, as one table, with what differs between their releases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

FLASHINFER = ("flashinfer", "flashinfer-python")  # its distribution had the first name up to v0.2.0
COMPANIONS = ("flashinfer-cubin", "flashinfer-jit-cache")


@dataclass(frozen=True)
class Layout:
    """Where things are in a checkout; paths are relative to it, with `/`.

    `folder` is what gets installed ("" is the root), `module` what is imported ("" if it is named like the
    distribution). `companions` (and distributions whose names begin like theirs) must have the package's own version.
    `directories` has the paths of each key directory in different releases, the newest first.
    """

    folder: str
    module: str = ""
    companions: tuple[str, ...] = ()
    directories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def find_directories(self, exists: Callable[[str], bool]) -> dict[str, str | None]:
        """The path of each key directory, or None. `exists` tells whether a path relative to the checkout exists."""
        return {name: next(filter(exists, paths), None) for name, paths in self.directories.items()}


LAYOUTS: Mapping[str, Layout] = {
    "sglang": Layout("python", "sglang", (), {
        "models": ("python/sglang/srt/models",),
        "layers": ("python/sglang/srt/layers",),
        "attention": ("python/sglang/srt/layers/attention",),
        "moe": ("python/sglang/srt/layers/moe", "python/sglang/srt/layers/fused_moe_triton"),  # the latter: v0.4.0
    }),
    "flashinfer": Layout("", "flashinfer", COMPANIONS, {
        "package": ("flashinfer", "python/flashinfer"),  # the latter: before v0.2.0
        "headers": ("include/flashinfer",),
        "sources": ("csrc", "python/csrc"),
        "tests": ("tests", "python/tests"),
    }),
}  # fmt: skip
