"""Paths of a commit's tree: the folders above them, and which of them a sparse checkout holds, as git sees it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.checkout.paths import cone, folders_of, parents
from tests.upstream.store import git

PATHS = st.lists(st.lists(st.sampled_from(["a", "b", "a.b", "c d"]), min_size=1, max_size=4).map("/".join), max_size=8)


@given(PATHS)
def test_the_folders_above_paths(paths: list[str]) -> None:
    above = [[str(parent) for parent in reversed(PurePosixPath(path).parents[:-1])] for path in paths]
    assert [parents(path) for path in paths] == above
    assert folders_of(paths) == {folder for folders in above for folder in folders}


@pytest.mark.parametrize("folders", [("include",), ("tools/util/include", "include"), ("a/b", "a"), (), None])
def test_a_cone_holds_what_git_checks_out(folders: tuple[str, ...] | None, tmp_path: Path) -> None:
    files = ["top", "include/x", "include/deep/y", "tools/z", "tools/util/w", "tools/util/include/v", "a/1", "a/b/2",
             "a/b/c/3", "ab/4", "includes/5"]  # fmt: skip
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    sparse = [("sparse-checkout", "set", "--cone", *folders)] if folders is not None else []
    for command in (("init", "-q"), ("add", "."), (*author, "commit", "-qm", "files"), *sparse):
        git(tmp_path, *command)
    assert [name for name in files if cone(folders)(name)] == [name for name in files if (tmp_path / name).exists()]
