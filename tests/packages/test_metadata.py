"""A package's metadata is read from its files, without running them; `matching` finds the release that it requires."""


import pytest
from packaging.requirements import Requirement

from tasks.errors import SourcesError, UsageError
from tasks.packages.matching import flashinfer_requirement, matching
from tasks.packages.metadata import Metadata, read_metadata, read_toml

TAGS = ["v0.1.6", "v0.2.0", "v0.4.0rc3", "v0.4.0", "v0.6.7", "v0.6.7.post3", "v0.6.17", "v0.6.18rc7", "nightly"]
ENDPOINT = "https://user:secret@host.example/flashinfer.git"


def sglang(dependencies: list[str], **extras: list[str]) -> Metadata:
    listed = "".join(f"{name} = {values!r}\n" for name, values in extras.items())
    text = f'[project]\nname = "sglang"\nversion = "0.5.3"\ndependencies = {dependencies!r}\n'
    return read_metadata(
        {"python/pyproject.toml": f"{text}[project.optional-dependencies]\n{listed}".encode()}, "python"
    )


def test_a_static_version_and_requirements_in_the_base() -> None:
    read = sglang(["torch==2.8.0", "flashinfer_python==0.4.0rc3"], test=["pytest"])
    assert (read.distribution, read.version, read.requires_python) == ("sglang", "0.5.3", "")
    assert [str(each) for each in read.requires] == [
        "torch==2.8.0", "flashinfer_python==0.4.0rc3", 'pytest; extra == "test"',
    ]  # fmt: skip
    assert read.extras == ("test",)
    assert not read.needs_rust


def test_a_version_that_only_the_build_knows_is_empty() -> None:
    text = b"""
        [build-system]
        requires = ["setuptools>=61.0", "setuptools-rust>=1.10", "setuptools-scm>=8.0"]
        [project]
        name = "sglang"
        dynamic = ["version"]
        requires-python = ">=3.11"
        [[tool.setuptools-rust.ext-modules]]
        target = "sglang.srt.grpc._core"
    """
    read = read_metadata({"python/pyproject.toml": text}, "python")
    assert (read.version, read.requires_python, read.needs_rust) == ("", ">=3.11", True)
    assert read.from_tags


def test_the_version_may_be_in_version_txt_and_the_name_that_of_the_layout() -> None:
    read = read_metadata({"version.txt": b"0.1.6\n"}, "python", "flashinfer")
    assert (read.distribution, read.version, read.requires_python) == ("flashinfer", "0.1.6", "")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[project\nname = 1", "line 1"),
        (b"\xff\xfe", "UTF-8"),
        (b"a = " + b"[" * 50_000, "is not valid TOML"),
        (b"project = 5", "`project` must be dict, got int"),
        (b'[project]\nname = "x"\ndependencies = "torch"', "`dependencies` must be list, got str"),
        (b'[project]\nname = "x"\ndependencies = [5]', "5"),
        (b'[project]\nname = "x"\ndependencies = ["==1"]', "==1"),
        (b'[project]\nname = "x"\nrequires-python = "three"', "three"),
        (b'[project]\nname = "x"\noptional-dependencies = {a = "b"}', "`a` must be list, got str"),
        (b'[project]\nname = "x"\n[build-system]\nrequires = 5', "`requires` must be list, got int"),
        (b"", "names no distribution"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_named_with_the_place(content: bytes, told: str) -> None:
    with pytest.raises(SourcesError) as error:
        read_metadata({"python/pyproject.toml": content}, "python")
    assert "python/pyproject.toml" in error.value.what and told in error.value.what and len(error.value.what) < 600


@pytest.mark.parametrize(
    ("metadata", "extras", "expected"),
    [
        (sglang(["flashinfer_python[cu13]==0.7.2"]), (), "flashinfer_python[cu13]==0.7.2"),
        (sglang(["FlashInfer.Python>=0.2"]), (), "FlashInfer.Python>=0.2"),
        (sglang([], common=["x"], srt=["sglang[common]", "flashinfer>=0.1.6"]), (), "flashinfer>=0.1.6"),
        (sglang([], all=["sglang[srt_x]"], srt_x=["flashinfer==0.2"]), (), "flashinfer==0.2"),
        (sglang([], srt=["flashinfer==0.1"], blackwell=["flashinfer==0.3"]), ("blackwell",), "flashinfer==0.3"),
        (sglang(["flashinfer>=0.2"], srt=["flashinfer==0.1"]), (), "flashinfer>=0.2"),
        (sglang(["flashinfer>=0.2", "flashinfer-python!=0.3; sys_platform == 'linux'"]), (), "flashinfer!=0.3,>=0.2"),
        (sglang(["flashinfer==0.2; sys_platform == 'win32'", "flashinfer==0.3"]), (), "flashinfer==0.3"),
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
        ("flashinfer==0.1.6+cu124torch2.4", "v0.1.6"),
        ("flashinfer>=0.2,<0.5", "v0.2.0"),
        ("flashinfer~=0.6.7", "v0.6.7"),
        ("flashinfer!=0.6.17", "v0.6.7.post3"),
        ("flashinfer>=0.2,!=0.2.0", "v0.4.0"),
        ("flashinfer==0.6.*", "v0.6.17"),
        ("flashinfer", "v0.6.17"),
    ],
)
def test_matching_is_the_tag_of_the_pin_or_the_lower_end_of_the_range(requirement: str, tag: str) -> None:
    assert matching(sglang([requirement]), (), TAGS, ENDPOINT) == tag


@pytest.mark.parametrize(
    "requirement", ["flashinfer_python[cu13]==0.7.2", "flashinfer>=1", "flashinfer==0.6.7,==0.6.17"]
)
def test_a_version_without_a_tag_names_the_requirement(requirement: str) -> None:
    with pytest.raises(UsageError) as error:
        matching(sglang([requirement]), (), TAGS, ENDPOINT)
    message = str(error.value)
    assert str(Requirement(requirement)) in message and "sglang 0.5.3" in message
    assert "secret" not in message and "host.example" in message


def test_an_unknown_release_names_sglangs_version_and_the_nearest_tags() -> None:
    with pytest.raises(UsageError, match=r"sglang 0\.5\.23 requires") as error:
        matching(sglang(["flashinfer==0.6.16"]), (), TAGS, ENDPOINT, version="0.5.23")
    assert "v0.6.7.post3" in error.value.hint


def test_no_requirement_or_an_address_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"sglang 0\.5\.3 requires no FlashInfer"):
        matching(sglang(["torch"]), (), TAGS, ENDPOINT)
    with pytest.raises(UsageError, match="git") as error:
        matching(sglang(["flashinfer @ git+https://me:secret@host.example/x.git@v1"]), (), TAGS, ENDPOINT)
    assert "secret" not in str(error.value)


def test_a_toml_file_may_begin_with_a_byte_order_mark() -> None:
    assert read_toml(b"\xef\xbb\xbfa = 1", "x.toml") == {"a": 1}
