"""Every layout that the upstream repositories have had is told from the others, and its key folders are found."""

import pytest

from tasks.errors import SourcesError
from tasks.packages.layouts import find_layout

LAYERS = "python/sglang/srt/layers"
ATTENTION = f"{LAYERS}/attention"
SGLANG = {"python/pyproject.toml", "python/sglang", "python/sglang/srt/models", LAYERS}
OLD_FLASHINFER = {"python", "python/setup.py", "python/flashinfer", "include/flashinfer", "version.txt"}
FLASHINFER = {"pyproject.toml", "setup.py", "flashinfer", "include/flashinfer", "csrc", "src", "tests", "version.txt"}


@pytest.mark.parametrize(
    ("name", "tree", "folder", "expected"),
    [
        ("sglang", {*SGLANG, ATTENTION, f"{LAYERS}/fused_moe_triton"}, "python", {"moe": f"{LAYERS}/fused_moe_triton"}),
        ("sglang", {*SGLANG, ATTENTION, f"{LAYERS}/moe"}, "python", {"layers": LAYERS, "moe": f"{LAYERS}/moe"}),
        ("flashinfer", OLD_FLASHINFER, "python", {}),
        ("flashinfer", FLASHINFER, "", {"package": "flashinfer", "sources": "csrc", "tests": "tests"}),
    ],
)
def test_layouts_of_the_releases(name: str, tree: set[str], folder: str, expected: dict[str, str]) -> None:
    layout = find_layout(name, tree.__contains__)
    found = layout.find_directories(tree.__contains__)
    assert (layout.folder, layout.module, layout.installable) == (folder, name, tree is not OLD_FLASHINFER)
    assert expected.items() <= found.items()
    assert None not in found.values()


def test_a_missing_key_directory_is_none() -> None:
    layout = find_layout("sglang", SGLANG.__contains__)
    assert layout.find_directories(SGLANG.__contains__)["attention"] is None


@pytest.mark.parametrize("name", ["sglang", "flashinfer"])
def test_an_unknown_layout_says_what_was_looked_for(name: str) -> None:
    with pytest.raises(SourcesError) as error:
        find_layout(name, {"README.md", "pyproject.toml"}.__contains__)
    assert name in error.value.what and f"python/{name}" in error.value.what and error.value.hint


@pytest.mark.parametrize(
    ("tree", "folder", "installable"),
    [
        ({"pyproject.toml", "python/pyproject.toml"}, "", True),
        ({"python/pyproject.toml"}, "python", True),
        ({"setup.py"}, "", False),
    ],
)
def test_any_other_repository_has_its_package_at_the_root_or_in_python_or_none(
    tree: set[str], folder: str, installable: bool
) -> None:
    layout = find_layout("third", tree.__contains__)
    assert (layout.folder, layout.installable, layout.companions) == (folder, installable, ())
