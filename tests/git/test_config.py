"""A repository's configuration is written as git would read it, and nothing of the user's in it is lost."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.git.config import read_config, write_config
from tests.upstream.store import git

VALUES = st.text(st.characters(codec="utf-8", min_codepoint=32, exclude_characters="\x7f"), max_size=30)


@pytest.fixture(scope="module")
def git_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("configured")
    git(path, "init", "-q")
    return path / ".git"


@given(name=VALUES.filter(bool), value=VALUES)
def test_what_is_written_is_what_git_reads(git_dir: Path, name: str, value: str) -> None:
    key = f"submodule.{name}.url"
    write_config(git_dir, read_config(git_dir), {key: value})
    assert git(git_dir, "config", "--null", "--get", key) == f"{value}\0"
    assert read_config(git_dir)[key][-1] == value


def test_what_is_there_is_kept_and_not_written_again(git_dir: Path) -> None:
    file = git_dir / "config"
    file.write_text("# mine\n[core]\n\tbare = false\n[user]\n\tname = Somebody")  # without a newline at its end
    file.chmod(0o600)
    wanted = {"core.worktree": "../..", "remote.origin.fetch": "+refs/heads/a:refs/remotes/origin/a"}
    write_config(git_dir, read_config(git_dir), wanted)
    text = file.read_text()
    assert text.startswith("# mine\n[core]\n\tbare = false\n[user]\n\tname = Somebody\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600, "it may hold what is nobody else's business"
    write_config(git_dir, read_config(git_dir), wanted)
    assert file.read_text() == text
    write_config(git_dir, read_config(git_dir), {"remote.origin.fetch": "+refs/heads/b:refs/remotes/origin/b"})
    assert len(read_config(git_dir)["remote.origin.fetch"]) == 2


def test_a_configuration_that_git_cannot_read_has_no_keys(git_dir: Path) -> None:
    (git_dir / "config").write_text("[core\n")
    assert read_config(git_dir) == {}
    (git_dir / "config").unlink()
    assert read_config(git_dir) == {}
