"""A package's metadata is read from its files, without running them; `matching` finds the release that it requires."""

import pytest
from packaging.requirements import Requirement

from tasks.errors import SourcesError, UsageError
from tasks.packages.layouts import find_layout
from tasks.packages.metadata import Metadata, read_metadata
from tasks.packages.requirements import flashinfer_requirement, has_release, matching

TAGS = ["v0.1.6", "v0.2.0", "v0.4.0rc3", "v0.4.0", "v0.6.7", "v0.6.7.post3", "v0.6.17", "v0.6.18rc7", "nightly"]
ENDPOINT = "https://user:secret@host.example/flashinfer.git"
LAYERS = "python/sglang/srt/layers"


def sglang(dependencies: list[str], **extras: list[str]) -> Metadata:
    listed = "".join(f"{name} = {values!r}\n" for name, values in extras.items())
    text = f'[project]\nname = "sglang"\nversion = "0.5.3"\ndependencies = {dependencies!r}\n'
    return read_metadata(f"{text}[project.optional-dependencies]\n{listed}".encode(), "pyproject.toml")


@pytest.mark.parametrize(
    ("name", "tree", "folder", "expected"),
    [
        ("sglang", {f"{LAYERS}/fused_moe_triton"}, "python", {"moe": f"{LAYERS}/fused_moe_triton", "layers": None}),
        ("sglang", {LAYERS, f"{LAYERS}/moe"}, "python", {"layers": LAYERS, "moe": f"{LAYERS}/moe"}),
        ("flashinfer", {"flashinfer", "csrc", "tests"}, "", {"package": "flashinfer", "sources": "csrc"}),
        ("flashinfer", {"python/flashinfer", "python/csrc"}, "", {"package": "python/flashinfer"}),
        ("third", {"pyproject.toml", "python/pyproject.toml"}, "", {}),
        ("third", {"python/pyproject.toml"}, "python", {}),
    ],
)
def test_layouts_of_the_releases(name: str, tree: set[str], folder: str, expected: dict[str, str | None]) -> None:
    layout = find_layout(name, tree.__contains__)
    assert layout.folder == folder
    assert expected.items() <= layout.find_directories(tree.__contains__).items()


def test_a_static_version_and_requirements_in_the_base() -> None:
    read = sglang(["torch==2.8.0", "flashinfer_python==0.4.0rc3"], test=["pytest"])
    assert (read.distribution, read.version, read.needs_rust) == ("sglang", "0.5.3", False)
    expected = ["torch==2.8.0", "flashinfer_python==0.4.0rc3", 'pytest; extra == "test"']
    assert [str(requirement) for requirement in read.requires] == expected


def test_a_version_that_only_the_build_knows_is_empty() -> None:
    text = b"""\xef\xbb\xbf
        [build-system]
        requires = ["setuptools>=61.0", "setuptools-rust>=1.10", "setuptools-scm>=8.0"]
        [project]
        name = "sglang"
        dynamic = ["version"]
    """
    read = read_metadata(text, "pyproject.toml")
    assert (read.version, read.needs_rust, read.from_tags) == ("", True, True)
    old = read_metadata(b"", "pyproject.toml", "0.1.6", "flashinfer")
    assert (old.distribution, old.version, old.from_tags) == ("flashinfer", "0.1.6", False)


@pytest.mark.parametrize(
    "content",
    [
        b"[project\nname = 1", b"\xff\xfe", b"a = " + b"[" * 50_000, b"project = 5", b"", b"[project]\nname = 5",
        b'[project]\nname = "x"\ndependencies = [5]', b'[project]\nname = "x"\ndependencies = ["==1"]',
        b'[project]\nname = "x"\noptional-dependencies = {a = 1}', b'[build-system]\nrequires = [""]',
    ],
)  # fmt: skip
def test_a_file_that_is_not_valid_is_named(content: bytes) -> None:
    with pytest.raises(SourcesError, match=r"^python/pyproject\.toml is not valid") as error:
        read_metadata(content, "python/pyproject.toml")
    assert len(error.value.what) < 300


@pytest.mark.parametrize(
    ("metadata", "extras", "expected"),
    [
        (sglang(["flashinfer_python[cu13]==0.7.2"]), (), "flashinfer_python[cu13]==0.7.2"),
        (sglang(["FlashInfer.Python>=0.2"]), (), "FlashInfer.Python>=0.2"),
        (sglang([], common=["x"], srt=["sglang[common]", "flashinfer>=0.1.6"]), (), "flashinfer>=0.1.6"),
        (sglang([], all=["sglang[srt_x]"], srt_x=["flashinfer==0.2"]), (), "flashinfer==0.2"),
        (sglang([], srt=["flashinfer==0.1"], blackwell=["flashinfer==0.3"]), ("blackwell",), "flashinfer==0.3"),
        (sglang(["flashinfer>=0.2", "flashinfer-python!=0.3; sys_platform == 'linux'"]), (), "flashinfer!=0.3,>=0.2"),
        (sglang(["flashinfer==0.2; sys_platform == 'win32'"]), (), None),
        (sglang(["flashinfer_cubin==0.2", "flashinfer-jit-cache==0.2", "my-flashinfer==1"]), (), None),
        (sglang([], srt=["sglang[srt]", "sglang[all]"], all=["sglang[srt]"]), (), None),
    ],
)
def test_all_forms_of_the_requirement(metadata: Metadata, extras: tuple[str, ...], expected: str | None) -> None:
    assert flashinfer_requirement(metadata, extras) == (Requirement(expected) if expected else None)


def test_a_marker_without_meaning_is_an_error_that_shows_it() -> None:
    with pytest.raises(SourcesError, match="platform_machine"):
        flashinfer_requirement(sglang(["flashinfer; platform_machine ~= 'x'"]), ())


@pytest.mark.parametrize(
    ("requirement", "tag"),
    [
        ("flashinfer_python==0.6.7.post3", "v0.6.7.post3"),
        ("flashinfer_python==0.4.0rc3", "v0.4.0rc3"),
        ("flashinfer>=0.1.6", "v0.1.6"),
        ("flashinfer>=0.1.7", "v0.2.0"),
        ("flashinfer>0.4.0", "v0.6.7"),
        ("flashinfer>=0.2,<0.5", "v0.2.0"),
        ("flashinfer~=0.6.7", "v0.6.7"),
        ("flashinfer==0.6.*", "v0.6.17"),
        ("flashinfer", "v0.6.17"),
    ],
)
def test_matching_is_the_tag_of_the_pin_or_the_lower_end_of_the_range(requirement: str, tag: str) -> None:
    assert matching(sglang([requirement]), (), TAGS, ENDPOINT) == tag


@pytest.mark.parametrize(
    ("requirement", "shown", "near"),
    [
        ("flashinfer==0.6.16", "sglang 0.5.23 requires `flashinfer==0.6.16`; https://***@host.example", "v0.6.17"),
        ("flashinfer @ git+https://me:secret@host.example/x.git@v1", "requires `flashinfer@ git+https://***@host", ""),
        ("torch", "sglang 0.5.23 requires no FlashInfer", ""),
    ],
)
def test_a_requirement_without_a_tag_is_named(requirement: str, shown: str, near: str) -> None:
    metadata = sglang([requirement])
    with pytest.raises(UsageError) as error:
        matching(metadata, (), TAGS, ENDPOINT, version="0.5.23")
    assert shown in error.value.what.replace("flashinfer @", "flashinfer@") and near in error.value.hint
    assert "secret" not in str(error.value)
    required = flashinfer_requirement(metadata, ())
    assert not required or not has_release(required, TAGS)
