"""The configuration tree becomes settings, or an error that names the key."""

import copy
from pathlib import Path
from typing import Any

import pytest
from invoke.config import Config

from tasks.errors import UsageError
from tasks.models import Settings
from tasks.settings import DEFAULTS, load

ROOT = Path("/project")
URL = "https://host.example/org/parent.git"


def loaded(**changes: Any) -> Settings:
    return load({"sources": {**copy.deepcopy(DEFAULTS), **changes}}, ROOT)


def refused(**changes: Any) -> str:
    with pytest.raises(UsageError) as error:
        loaded(**changes)
    return str(error.value)


def as_invoke_reads_it(project: Path) -> Settings:
    """The settings of a project with its invoke.yaml and the environment variables."""
    config = Config(defaults={"sources": copy.deepcopy(DEFAULTS)}, project_location=project)
    config.load_project()
    config.load_shell_env()
    return load(config, project)


def test_the_defaults_are_those_of_the_design() -> None:
    found = loaded()
    assert (found.directory, found.trace) == (ROOT / "tmp", ROOT / "flashinfer_trace")
    assert (found.attempts, found.stall, found.indexes, found.overrides) == (5, 30, (), ())
    assert [(one.name, one.branch, one.install, one.extras) for one in found.repositories] == [
        ("sglang", "main", True, ()),
        ("flashinfer", "main", True, ()),
    ]
    assert found.repositories[0].path == ROOT / "tmp" / "sglang"


def test_variables_override_the_file_and_the_file_overrides_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "invoke.yaml").write_text("sources:\n  attempts: 2\n  repositories:\n    sglang: {branch: v0.4.0}\n")
    for name, value in {"DIRECTORY": "~/src", "STALL": "2.5", "REPOSITORIES_SGLANG_URL": URL}.items():
        monkeypatch.setenv(f"INVOKE_SOURCES_{name}", value)
    monkeypatch.setenv("HOME", "/home/somebody")
    found = as_invoke_reads_it(tmp_path)
    assert (found.attempts, found.stall) == (2, 2.5)
    assert found.repositories[0].path == Path("/home/somebody/src/sglang")
    assert (found.repositories[0].url, found.repositories[0].branch) == (URL, "v0.4.0")


def test_further_repositories_are_known_by_name_or_have_a_url_and_are_installed_if_they_say_so() -> None:
    other = {"url": URL, "branch": "release/1", "install": True, "extras": ["srt", "a_b", "srt"]}
    found = loaded(repositories={"sgl-cookbook": {}, "flashinfer-trace": None, "other": other})
    by_name = {one.name: one for one in found.repositories}
    assert list(by_name) == ["sglang", "flashinfer", "sgl-cookbook", "flashinfer-trace", "other"]
    assert by_name["sgl-cookbook"].url == "https://github.com/sgl-project/sgl-cookbook.git"
    assert by_name["flashinfer-trace"].url == "https://huggingface.co/datasets/flashinfer-ai/flashinfer-trace"
    assert by_name["sgl-cookbook"].install is False
    assert (by_name["other"].branch, by_name["other"].install) == ("release/1", True)
    assert by_name["other"].extras == ("srt", "a_b")


def test_the_default_trace_data_are_the_checkout_where_only_that_exists(tmp_path: Path) -> None:
    def trace(**tree: Any) -> Path | None:
        return load({"sources": tree}, tmp_path).trace

    own, checkout, preset = tmp_path / "flashinfer_trace", tmp_path / "tmp/flashinfer-trace", {"flashinfer-trace": None}
    assert trace() == own
    assert trace(repositories=preset) == checkout  # `setup` is going to clone it
    checkout.mkdir(parents=True)
    assert trace() == checkout
    assert trace(trace="elsewhere") == tmp_path / "elsewhere"
    own.mkdir()
    assert trace() == trace(repositories=preset) == own
    assert trace(trace="") is trace(trace=None) is None


def test_lists_of_indexes_and_requirements_are_read_and_passwords_are_not_shown() -> None:
    indexes = ["https://flashinfer.ai/whl", "https://user:p%40ss@host.example/simple", "file:///srv/wheels"]
    found = loaded(indexes=indexes, overrides=["torch==2.9.1+cu128"])
    assert (found.indexes, found.overrides) == (tuple(indexes), ("torch==2.9.1+cu128",))
    assert "S3cr3t" not in refused(indexes=["https://user:S3cr3t@host.example/a b"])


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("INDEXES", URL, "sources.indexes must be a list of URLs in invoke.yaml, such as "),
        ("ATTEMPTS", "many",
         "sources.attempts must be a whole number of at least 1, got 'many' (from INVOKE_SOURCES_ATTEMPTS)"),
        ("DIRECTRY", "/data",
         "unknown environment variable INVOKE_SOURCES_DIRECTRY\n  Did you mean `INVOKE_SOURCES_DIRECTORY`?"),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_named(
    name: str, value: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVOKE_RUN_ECHO", "1")
    monkeypatch.setenv(f"INVOKE_SOURCES_{name}", value)
    with pytest.raises(UsageError) as raised:
        as_invoke_reads_it(tmp_path)
    assert str(raised.value).startswith(told)


def test_removed_keys_are_one_sentence_each_and_otherwise_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVOKE_SOURCES_CACHE", "/shared")
    (tmp_path / "invoke.yaml").write_text("sources: {installer: pip, repositories: {flashinfer-trace: {lfs: true}}}\n")
    assert sorted(text.partition(" is ignored: ")[0] for text in as_invoke_reads_it(tmp_path).warnings) == [
        "INVOKE_SOURCES_CACHE", "sources.installer", "sources.repositories.flashinfer-trace.lfs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("attempts", 0, "whole number"), ("attempts", True, "whole number"), ("attempts", 1.5, "whole number"),
        ("attempts", 10**400, "whole number"),
        ("stall", 0, "seconds"), ("stall", "inf", "seconds"), ("stall", None, "seconds"),
        ("directory", "", "directory"), ("directory", 5, "directory"), ("directory", "a\nb", "directory"),
        ("directory", "~nobody-of-that-name/x", "directory"),
        ("repositories", ["sglang"], "table"),
        ("indexes", "https://host.example/whl", "list of URLs"), ("indexes", ["--index-url"], "list of URLs"),
        ("indexes", ["https://host.example/%0a"], "list of URLs"),
        ("overrides", ["torch\n-e /"], "list of requirements"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_key_and_what_was_expected(key: str, value: Any, expected: str) -> None:
    message = refused(**{key: value})
    assert message.startswith(f"sources.{key} must be ") and expected in message
    assert f", got {value!a}"[:30] in message


@pytest.mark.parametrize(
    "entry",
    [
        {"url": 5}, {"url": "ext::sh -c id"}, {"branch": 0.5}, {"branch": "--upload-pack=x"}, {"install": "no"},
        {"extras": "srt"}, {"extras": ["a b"]},
    ],
)  # fmt: skip
def test_a_wrong_entry_of_a_repository_is_named(entry: dict[str, Any]) -> None:
    (key,) = entry
    assert f"sources.repositories.third.{key}" in refused(repositories={"third": {"url": URL, **entry}})
    assert "sources.repositories.third.url is missing" in refused(repositories={"third": {}})
    unknown = refused(repositories={"third": {"url": URL, "brnch": "main"}})
    assert unknown.startswith("unknown key sources.repositories.third.brnch\n  Did you mean `branch`?")


@pytest.mark.parametrize("name", ["..", "", "a/b", "-x", ".git", "a\nb", "a b", "a:b", "x" * 101, "end.", 1])
def test_a_name_that_is_not_a_directory_name_is_refused(name: Any) -> None:
    assert "is not a valid directory name" in refused(repositories={name: {"url": URL}})
