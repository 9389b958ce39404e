"""Which directories of a submodule are checked out: what pyproject.toml declares, and what a sparse checkout holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.checkout.sparse import cone, shipped_directories
from tests.thing import Thing
from tests.upstream.store import git


def table(name: str, values: Mapping[str, Any]) -> str:
    """A table of pyproject.toml; JSON's strings, numbers and lists are TOML's, too."""
    return f"[{name}]\n" + "".join(f"{json.dumps(key)} = {json.dumps(value)}\n" for key, value in values.items())


def declaration(places: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    return table("tool.setuptools.package-dir", places) + table("tool.setuptools.package-data", data)


REAL = declaration(
    {
        "f.data": ".",
        "f.data.cutlass": "3rdparty/cutlass",
        "f.data.spdlog": "3rdparty/spdlog",
        "f.data.cccl": "3rdparty/cccl",
    },
    {
        "f": ["_build_meta.py"],
        "f.data": ["csrc/**", "include/**", "version.txt", "*.md"],
        "f.data.cutlass": ["include/**", "tools/util/include/**"],
        "f.data.spdlog": ["include/**"],
        "f.data.cccl": ["cub/cub/**", "libcudacxx/include/**", "thrust/thrust/**"],
        "f.backends": ["_libs/*.so*", "_libs/**"],
    },
)


@pytest.mark.parametrize(
    ("name", "directories"),
    [
        ("cutlass", ("include", "tools/util/include")),
        ("spdlog", ("include",)),
        ("cccl", ("cub/cub", "libcudacxx/include", "thrust/thrust")),
        ("nixl", None),
    ],
)
def test_the_directories_of_a_submodule_that_the_package_ships(name: str, directories: tuple[str, ...] | None) -> None:
    assert shipped_directories(REAL, f"3rdparty/{name}") == directories


@pytest.mark.parametrize(
    ("place", "patterns", "directories"),
    [
        ("3rdparty/x", ["**"], None),
        ("3rdparty/x", ["*/include/*.h"], None),
        ("3rdparty/x", ["**/*.h", "include/**"], None),
        ("3rdparty/x", ["LICENSE", "*.md"], None),
        ("3rdparty/x", ["include/**", "LICENSE"], ("include",)),
        ("3rdparty/x", ["_libs/*.so*"], ("_libs",)),
        ("3rdparty/x", ["a/b.h", "a/c/**", "d/[ab]/e"], ("a", "d")),
        ("./3rdparty//x/", ["./include/**"], ("include",)),
        ("3rdparty/x/sub", ["**"], ("sub",)),
        (".", ["3rdparty/x/include/**"], ("include",)),
        (".", ["**"], None),
        ("3rdparty/xy", ["include/**"], None),
        ("3rdparty/x", [], None),
        ("3rdparty/x", "include/**", None),
        ("3rdparty/x", [5, "include/**"], None),
        (5, ["include/**"], None),
        (
            "3rdparty/x",
            ["../../../etc/**", "/etc/**", "a/../../**", "a\nb/**", "-x/**", "!x/**", "#x/**", "a\\b/**"],
            None,
        ),
        ("/3rdparty/x", ["include/**"], None),
        ("3rdparty/x/../y", ["include/**"], None),
    ],
)
def test_shipped_directories_of_odd_and_hostile_declarations(
    place: Any, patterns: Any, directories: tuple[str, ...] | None
) -> None:
    assert shipped_directories(declaration({"x": place}, {"x": patterns}), "3rdparty/x") == directories


@pytest.mark.parametrize(
    "document",
    [
        "",
        "tool = 5",
        "tool.setuptools = []",
        declaration({}, {}),
        "tool.setuptools = {package-data = 5, package-dir = 5}",
        "[tool",
        "a = " + "[" * 5000,
    ],
)
def test_without_a_readable_declaration_it_is_the_complete_submodule(document: str) -> None:
    assert shipped_directories(document, "3rdparty/cutlass") is None


PATH = st.lists(
    st.sampled_from(["3rdparty", "x", "..", ".", "", "*", "**", "a b", "-", "\n", "é", "[a]", "\\", ".git"]), max_size=6
).map("/".join)


@given(
    st.dictionaries(st.sampled_from(["", "p", "p.q", "*"]), PATH),
    st.dictionaries(st.sampled_from(["p", "p.q", "p.q.r"]), st.lists(PATH)),
)
def test_no_declaration_leads_out_of_the_submodule(places: dict[str, str], data: dict[str, list[str]]) -> None:
    for directory in shipped_directories(declaration(places, data), "3rdparty/x") or ():
        parts = directory.split("/")
        assert directory.isprintable() and not {"", ".", ".."} & set(parts)
        assert not any(part.startswith(("-", "!", "#")) or set(part) & set("*?[\\\n") for part in parts)


def test_pyproject_toml_may_begin_with_a_byte_order_mark() -> None:
    assert shipped_directories(f"\ufeff{REAL}", "3rdparty/spdlog") == ("include",)


@pytest.mark.parametrize("directories", [("include",), ("tools/util/include", "include"), ("a/b", "a"), (), None])
def test_a_sparse_checkout_holds_what_git_checks_out(directories: tuple[str, ...] | None, tmp_path: Path) -> None:
    files = ["top", "include/x", "include/deep/y", "tools/z", "tools/util/w", "tools/util/include/v", "a/1", "a/b/2",
             "a/b/c/3", "ab/4", "includes/5"]  # fmt: skip
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    sparse = [("sparse-checkout", "set", "--cone", *directories)] if directories is not None else []
    for command in (("init", "-q"), ("add", "."), (*author, "commit", "-qm", "files"), *sparse):
        git(tmp_path, *command)
    assert [name for name in files if cone(directories)(name)] == [name for name in files if (tmp_path / name).exists()]


def test_the_users_patterns_are_kept(thing: Thing) -> None:
    thing.git("thing", "sparse-checkout", "set", "deep")
    new = thing.move_on()
    result = thing.sources("update")
    assert "your sparse-checkout patterns are kept" in result.out
    assert thing.sources.head("thing") == new
    assert thing.git("thing", "sparse-checkout", "list") == "deep"
    assert not (thing.top / "folder").exists()


@pytest.mark.parametrize("name", ["folder", "folder/new.txt", "new.txt", "new.txt/mine.txt", "new.log"])
def test_untracked_files_in_the_way_are_kept_where_sparse_checkout_is_on(name: str, thing: Thing) -> None:
    """git-switch(1) overwrites some of them then."""
    thing.git("thing", "sparse-checkout", "set", "deep")
    thing.write("thing", name)
    new = thing.move_on()
    result = thing.sources("update", check=5)
    assert thing.has()
    thing.sources.resolve(result=result)
    assert thing.sources.head("thing") == new
    assert thing.has()
