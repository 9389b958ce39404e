"""A package's metadata is read from its files, without running them; `matching` finds the release that it requires."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tasks.errors import SourcesError, UsageError
from tasks.packages.package import LAYOUTS, Package, flashinfer_requirement, matching
from tests.packages.conftest import package_at

Make = Callable[..., Package]
TAGS = ["v0.1.6", "v0.2.0", "v0.4.0rc3", "v0.4.0", "v0.6.7", "v0.6.7.post3", "v0.6.17", "v0.6.18rc7", "nightly"]
ENDPOINT = "https://user:secret@host.example/flashinfer.git"
LAYERS = "python/sglang/srt/layers"


@pytest.mark.parametrize(
    ("name", "tree", "expected"),
    [
        ("sglang", [f"{LAYERS}/fused_moe_triton"], {"layers": LAYERS, "moe": f"{LAYERS}/fused_moe_triton"}),
        ("sglang", [f"{LAYERS}/fused_moe_triton", f"{LAYERS}/moe"], {"layers": LAYERS, "moe": f"{LAYERS}/moe"}),
        ("flashinfer", ["flashinfer", "python/csrc"], {"package": "flashinfer", "sources": "python/csrc"}),
        ("flashinfer", ["python/flashinfer", "csrc"], {"package": "python/flashinfer", "sources": "csrc"}),
    ],
)
def test_key_directories_of_the_releases(tmp_path: Path, name: str, tree: list[str], expected: dict[str, str]) -> None:
    for directory in tree:
        (tmp_path / directory).mkdir(parents=True)
    assert LAYOUTS[name].find_directories(tmp_path) == {role: tmp_path / path for role, path in expected.items()}


def test_any_other_repository_has_its_package_in_the_root_or_in_python(tmp_path: Path) -> None:
    folders = []
    for files in (["python"], ["python", ""]):
        for folder in files:
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / "pyproject.toml").write_text('[project]\nname = "third"\n')
        folders.append(package_at(tmp_path, "third").folder)
    assert folders == [tmp_path / "python", tmp_path]


def test_a_static_version_and_requirements_in_the_base(make_package: Make) -> None:
    package = make_package("sglang", "0.5.3", ["torch==2.8.0"], extras={"Test_1": ["pytest; os_name == 'posix'"]})
    assert (package.name, package.version, package.needs_rust) == ("sglang", "0.5.3", False)
    expected = ["torch==2.8.0", 'pytest; os_name == "posix" and extra == "test-1"']
    assert [str(requirement) for requirement in package.requires] == expected


def test_a_version_that_only_the_build_knows_is_that_of_the_tags(make_package: Make, tmp_path: Path) -> None:
    """Of several tags it is the one at the commit, else the highest."""
    build = ["setuptools>=61.0", "setuptools-rust>=1.10", "setuptools-scm>=8.0"]
    package = make_package("sglang", dynamic=True, build=build)
    assert (package.version, package.needs_rust, package.from_tags) == ("", True, True)
    tags = {"v0.5.3": "1" * 40, "v0.5.10.post1": "2" * 40, "nightly": "1" * 40}
    assert package_at(package.checkout.path, "sglang", tags=tags).version == "0.5.3"
    assert package_at(package.checkout.path, "sglang", head="3" * 40, tags=tags).version == "0.5.10.post1"
    (tmp_path / "version.txt").write_text("0.1.6\n")
    old = package_at(tmp_path, "flashinfer")
    assert (old.name, old.version, old.installable) == ("flashinfer", "0.1.6", False)


@pytest.mark.parametrize(
    "content",
    [
        b"[project\nname = 1", b"\xff\xfe", b"a = " + b"[" * 50_000, b"project = 5", b"[project]\nname = 5",
        b'[project]\nname = "x"\ndependencies = [5]', b'[project]\nname = "x"\ndependencies = ["==1"]',
        b'[project]\nname = "x"\noptional-dependencies = {a = 1}', b'[build-system]\nrequires = [""]',
    ],
)  # fmt: skip
def test_a_file_that_is_not_valid_is_named(make_package: Make, content: bytes) -> None:
    package = make_package("sglang")
    (package.folder / "pyproject.toml").write_bytes(content)
    with pytest.raises(SourcesError, match=r"^python/pyproject\.toml is not valid") as error:
        package_at(package.checkout.path, "sglang")
    assert len(error.value.what) < 300


@pytest.mark.parametrize(
    ("requires", "extras", "chosen", "expected"),
    [
        (["flashinfer_python[cu13]==0.7.2"], {}, (), "flashinfer_python[cu13]==0.7.2"),
        (["FlashInfer.Python>=0.2"], {}, (), "FlashInfer.Python>=0.2"),
        ([], {"common": ["x"], "srt": ["sglang[common]", "flashinfer>=0.1.6"]}, (), "flashinfer>=0.1.6"),
        ([], {"all": ["sglang[srt_x]"], "srt_x": ["flashinfer==0.2"]}, (), "flashinfer==0.2"),
        ([], {"srt": ["flashinfer==0.1"], "new": ["flashinfer==0.3"]}, ("new",), "flashinfer==0.3"),
        (["flashinfer>=0.2", "flashinfer-python!=0.3; sys_platform == 'linux'"], {}, (), "flashinfer!=0.3,>=0.2"),
        (["flashinfer==0.2; sys_platform == 'win32'"], {}, (), None),
        (["flashinfer_cubin==0.2", "flashinfer-jit-cache==0.2", "my-flashinfer==1"], {}, (), None),
        ([], {"srt": ["sglang[srt]", "sglang[all]"], "all": ["sglang[srt]"]}, (), None),
    ],
)
def test_all_forms_of_the_requirement(
    make_package: Make, requires: Sequence[str], extras: Mapping[str, Sequence[str]], chosen: tuple[str, ...],
    expected: str | None,
) -> None:  # fmt: skip
    package = make_package("sglang", "0.5.3", requires, extras=extras, chosen=chosen)
    assert flashinfer_requirement(package) == (Requirement(expected) if expected else None)


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
def test_matching_is_the_tag_of_the_pin_or_the_lower_end_of_the_range(
    make_package: Make, requirement: str, tag: str
) -> None:
    assert matching(make_package("sglang", "1", [requirement]), TAGS, ENDPOINT) == tag


@pytest.mark.parametrize(
    ("requirement", "shown"),
    [
        ("flashinfer==0.6.16", "sglang 0.5.23 requires `flashinfer==0.6.16`; https://***@host.example"),
        ("flashinfer @ git+https://me:secret@host.example/x.git@v1", "requires `flashinfer@ git+https://***@host"),
        ("torch", "sglang 0.5.23 requires no FlashInfer"),
    ],
)
def test_a_requirement_without_a_tag_is_named(make_package: Make, requirement: str, shown: str) -> None:
    with pytest.raises(UsageError) as error:
        matching(make_package("sglang", "0.5.23", [requirement]), TAGS, ENDPOINT)
    assert shown in error.value.what.replace("flashinfer @", "flashinfer@")
    assert "secret" not in str(error.value)
