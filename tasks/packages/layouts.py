"""Everything that differs between releases of the upstream repositories, as one table. A new layout is a new row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..errors import SourcesError

COMPANIONS = ("flashinfer-cubin", "flashinfer-jit-cache")


@dataclass(frozen=True)
class Layout:
    """Where things are in a checkout; paths are relative to it, with `/`.

    `folder` is what gets installed ("" is the root). A checkout has this layout if it has all `markers`. `module` is
    what is imported ("" if it is named like the distribution). `directories` has the paths of each key directory in
    different releases, the newest first. `companions` (and distributions whose names begin like theirs) must have the
    package's own version. What is not `installable` can be cloned and read.
    """

    folder: str
    markers: tuple[str, ...]
    module: str = ""
    companions: tuple[str, ...] = ()
    directories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    installable: bool = True

    @property
    def metadata_files(self) -> tuple[str, ...]:
        """The files that may have the name, the version and the requirements."""
        return (f"{self.folder}/pyproject.toml".lstrip("/"), "version.txt")

    def find_directories(self, exists: Callable[[str], bool]) -> dict[str, str | None]:
        """The path of each key directory, or None. `exists` tells whether a path relative to the checkout exists."""
        return {name: next(filter(exists, paths), None) for name, paths in self.directories.items()}


LAYOUTS: Mapping[str, tuple[Layout, ...]] = {
    "sglang": (
        Layout("python", ("python/pyproject.toml", "python/sglang"), "sglang", (), {
            "models": ("python/sglang/srt/models",),
            "layers": ("python/sglang/srt/layers",),
            "attention": ("python/sglang/srt/layers/attention",),
            "moe": ("python/sglang/srt/layers/moe", "python/sglang/srt/layers/fused_moe_triton"),
        }),
    ),
    "flashinfer": (
        Layout("", ("pyproject.toml", "flashinfer"), "flashinfer", COMPANIONS, {  # v0.2.0 and later
            "package": ("flashinfer",),
            "headers": ("include/flashinfer",),
            "sources": ("csrc",),
            "tests": ("tests",),
        }),
        Layout("python", ("python/setup.py", "python/flashinfer"), "flashinfer", COMPANIONS, {}, installable=False),
    ),
}  # fmt: skip
ANY: tuple[Layout, ...] = (
    Layout("", ("pyproject.toml",)),
    Layout("python", ("python/pyproject.toml",)),
    Layout("", (), installable=False),
)


def find_layout(name: str, exists: Callable[[str], bool]) -> Layout:
    """The layout of the repository configured as `name`.

    `exists` tells whether a path relative to the checkout exists, on disk or in a listing. Raises SourcesError, which
    names what was looked for, if SGLang or FlashInfer has none of its known layouts.
    """
    candidates = LAYOUTS.get(name, ANY)
    for layout in candidates:
        if all(map(exists, layout.markers)):
            return layout
    looked = ", then for ".join(" with ".join(layout.markers) for layout in candidates)
    raise SourcesError(
        f"{name}: the checkout has no known layout; looked for {looked}.",
        f"Check that sources.repositories.{name}.url and the REF are those of {name}.",
    )
