"""The configuration tree becomes settings, or an error that names the key; URLs are data and their passwords secret."""

import copy
import re
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from invoke.config import Config

from tasks.config import DEFAULTS, load
from tasks.errors import UsageError
from tasks.models import Settings
from tasks.names import check_url, redact, resolve_submodule_url

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")

ROOT = Path("/project")
PARENT = "https://host.example/org/parent.git"


def loaded(**changes: Any) -> Settings:
    return load({"sources": {**copy.deepcopy(DEFAULTS), **changes}}, ROOT)


def with_repository(name: str = "third", **entry: Any) -> Settings:
    return loaded(repositories={**DEFAULTS["repositories"], name: entry})


def refused(**changes: Any) -> str:
    with pytest.raises(UsageError) as error:
        loaded(**changes)
    return str(error.value)


def refused_repository(name: str = "third", **entry: Any) -> str:
    with pytest.raises(UsageError) as error:
        with_repository(name, **entry)
    return str(error.value)


def test_the_defaults_are_those_of_the_design() -> None:
    settings = loaded()
    assert (settings.directory, settings.trace) == (ROOT / "tmp", ROOT / "flashinfer_trace")
    assert (settings.attempts, settings.stall, settings.installer) == (5, 30, "auto")
    assert settings.cache and settings.cache.is_absolute() and settings.cache.name == "flashinfer-sources"
    assert [(each.name, each.branch, each.install, each.extras) for each in settings.repositories] == [
        ("sglang", "main", True, ()),
        ("flashinfer", "main", True, ()),
    ]
    assert settings.repositories[0].path == ROOT / "tmp" / "sglang"


def test_invokes_own_tree_is_read_with_a_file_and_the_environment_over_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "invoke.yaml").write_text("sources:\n  attempts: 2\n  repositories:\n    sglang: {branch: v0.4.0}\n")
    for name, value in {
        "DIRECTORY": "/data/src",
        "CACHE": "",
        "STALL": "2.5",
        "REPOSITORIES_SGLANG_URL": PARENT,
    }.items():
        monkeypatch.setenv(f"INVOKE_SOURCES_{name}", value)
    config = Config(defaults={"sources": copy.deepcopy(DEFAULTS)}, project_location=tmp_path)
    config.load_project()
    config.load_shell_env()
    settings = load(config, ROOT)
    assert (settings.attempts, settings.stall, settings.cache) == (2, 2.5, None)
    assert settings.repositories[0].path == Path("/data/src/sglang")
    assert (settings.repositories[0].url, settings.repositories[0].branch) == (PARENT, "v0.4.0")


def test_a_further_repository_is_not_installed_unless_it_says_so() -> None:
    assert with_repository(url=PARENT).repositories[-1].install is False
    fourth = with_repository(url=PARENT, branch="release/1", install=True, extras=["srt", "a_b", "srt"]).repositories[
        -1
    ]
    assert (fourth.branch, fourth.install, fourth.extras) == ("release/1", True, ("srt", "a_b"))


def test_the_other_repositories_of_the_workshop_are_known_by_name() -> None:
    settings = loaded(repositories={"sgl-cookbook": {}, "flashinfer-trace": None, "sglang": {"branch": "v0.4.0"}})
    found = {each.name: each for each in settings.repositories}
    assert list(found) == ["sglang", "flashinfer", "sgl-cookbook", "flashinfer-trace"]
    assert found["sglang"].branch == "v0.4.0"
    assert found["sgl-cookbook"].url == "https://github.com/sgl-project/sgl-cookbook.git"
    trace = found["flashinfer-trace"]
    assert trace.url == "https://huggingface.co/datasets/flashinfer-ai/flashinfer-trace"
    assert (trace.branch, trace.install, trace.lfs, trace.extras) == ("main", False, False, ())
    assert with_repository("flashinfer-trace", lfs=True, url=PARENT).repositories[-1].lfs


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


def test_package_indexes_are_urls() -> None:
    indexes = ["https://flashinfer.ai/whl", "https://user:p%40ss@host.example/simple", "file:///srv/wheels"]
    assert loaded(indexes=indexes).indexes == tuple(indexes)
    assert "S3cr3t" not in refused(indexes=["https://user:S3cr3t@host.example/a b"])


def invoke_config(project: Path, runtime: Path | None = None, overrides: dict[str, Any] | None = None) -> Config:
    """Invoke's configuration as a task gets it."""
    config = Config(
        defaults={"sources": copy.deepcopy(DEFAULTS)}, project_location=project, runtime_path=runtime,
        overrides=overrides,
    )  # fmt: skip
    config.load_project()
    config.load_runtime()
    config.load_shell_env()
    return config


def test_an_error_names_the_file_or_variable_that_holds_the_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, other = tmp_path / "invoke.yaml", tmp_path / "other.yaml"
    file.write_text("sources: {attempts: many, stall: 0, repositories: {third: {}}}\n")

    def error(**options: Any) -> str:
        with pytest.raises(UsageError) as raised:
            load(invoke_config(tmp_path, **options), tmp_path)
        return raised.value.what

    assert error() == f"sources.attempts must be a whole number of at least 1, got 'many' (in {file})"
    monkeypatch.setenv("INVOKE_SOURCES_ATTEMPTS", "none")
    assert error().endswith("got 'none' (from INVOKE_SOURCES_ATTEMPTS)")
    other.write_text("sources: {attempts: '0'}\n")
    assert error(runtime=other).endswith(f"got '0' (in {other})")
    assert error(overrides={"sources": {"attempts": "-1"}}).endswith("got '-1'")
    monkeypatch.setenv("INVOKE_SOURCES_ATTEMPTS", "3")
    assert error() == f"sources.stall must be a number of seconds above 0, got 0 (in {file})"
    other.write_text("sources: {stall: 1, repositories: {third: {url: 'https://host.example:99999/x'}}}\n")
    assert error(runtime=other) == (
        f"sources.repositories.third.url (in {other}) is not a URL that git can clone: 'https://host.example:99999/x'"
    )
    other.write_text(f"sources: {{stall: 1, repositories: {{third: {{url: /x, branch: {'a' * 64}}}}}}}\n")
    assert f"sources.repositories.third.branch (in {other}): aaaa" in error(runtime=other)
    other.write_text("sources: {stall: 1}\n")
    assert error(runtime=other) == f"sources.repositories.third.url is missing (in {file})"


@pytest.mark.parametrize("key", ["source", "sorces"])
def test_a_misspelt_key_beside_sources_is_noticed(key: str, tmp_path: Path) -> None:
    (tmp_path / "invoke.yaml").write_text(f"{key}: {{directory: src}}\n")
    with pytest.raises(UsageError) as raised:
        load(invoke_config(tmp_path), tmp_path)
    assert raised.value.what == f"unknown key {key} (in {tmp_path / 'invoke.yaml'})"
    assert "Did you mean `sources`?" in raised.value.hint


def test_keys_of_other_tasks_are_their_own(tmp_path: Path) -> None:
    (tmp_path / "invoke.yaml").write_text("source: {path: docs}\nresources: {directory: x}\nsource_url: x\n")
    assert load(invoke_config(tmp_path), tmp_path).attempts == 5


@pytest.mark.parametrize("name", ["INVOKE_SOURCES_DIRECTRY", "INVOKE_SOURCE_DIRECTORY"])
def test_a_misspelt_variable_is_noticed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVOKE_RUN_ECHO", "1")
    monkeypatch.setenv("INVOKE_SOURCES_REPOSITORIES_SGLANG_BRANCH", "v0.4.0")
    assert load(invoke_config(tmp_path), tmp_path).repositories[0].branch == "v0.4.0"
    monkeypatch.setenv(name, "/data")
    with pytest.raises(UsageError) as raised:
        load(invoke_config(tmp_path), tmp_path)
    assert str(raised.value) == f"unknown environment variable {name}\n  Did you mean `INVOKE_SOURCES_DIRECTORY`?"


def test_directories_may_be_absolute_or_in_the_home_or_below_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    settings = loaded(directory="~/src", trace="/data/trace", cache="own cache")
    assert settings.directory == Path("/home/somebody/src")
    assert settings.trace == Path("/data/trace")
    assert settings.cache == ROOT / "own cache"


@pytest.mark.parametrize("nothing", [None, ""])
def test_an_empty_cache_is_none(nothing: str | None) -> None:
    assert loaded(cache=nothing).cache is None


def test_an_unknown_key_is_named_with_the_nearest_known_one() -> None:
    message = refused(repositories={"foo": {"url": PARENT, "brnch": "main"}})
    assert message.startswith("unknown key sources.repositories.foo.brnch\n  Did you mean `branch`?")
    assert "unknown key sources.attemps\n  Did you mean `attempts`?" in refused(attemps=3)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("attempts", "many", "whole number"),
        ("attempts", 0, "whole number"),
        ("attempts", True, "whole number"),
        ("attempts", 1.5, "whole number"),
        ("attempts", "nan", "whole number"),
        ("attempts", 10**400, "whole number"),
        ("stall", 0, "seconds"),
        ("stall", "inf", "seconds"),
        ("stall", None, "seconds"),
        ("installer", "conda", "auto, uv or pip"),
        ("installer", ["uv"], "auto, uv or pip"),
        ("directory", "", "directory"),
        ("directory", 5, "directory"),
        ("directory", "a\nb", "directory"),
        ("directory", "~nobody-of-that-name/x", "directory"),
        ("cache", False, "directory"),
        ("stall", True, "seconds"),
        ("stall", float("nan"), "seconds"),
        ("repositories", ["sglang"], "table"),
        ("indexes", "https://host.example/whl", "list of URLs"),
        ("indexes", ["--index-url"], "list of URLs"),
        ("indexes", ["https://host.example/%0a"], "list of URLs"),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_what_was_expected(key: str, value: Any, expected: str) -> None:
    message = refused(**{key: value})
    assert message.startswith(f"sources.{key} must be ") and expected in message
    assert f", got {value!a}"[:30] in message


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ({}, "url"),
        ({"url": 5}, "url"),
        ({"url": "ext::sh -c id"}, "url"),
        ({"url": PARENT, "branch": 0.5}, "branch"),
        ({"url": PARENT, "branch": "--upload-pack=x"}, "branch"),
        ({"url": PARENT, "install": "no"}, "install"),
        ({"url": PARENT, "lfs": 1}, "lfs"),
        ({"url": PARENT, "extras": "srt"}, "extras"),
        ({"url": PARENT, "extras": ["a b"]}, "extras"),
        ({"url": PARENT, "extras": [1]}, "extras"),
    ],
)
def test_a_wrong_entry_of_a_repository_is_named(entry: dict[str, Any], key: str) -> None:
    assert f"sources.repositories.third.{key}" in re.split("[: ]", refused_repository(**entry))


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "a\\b", "-x", ".git", "a\nb", "a b", "a:b", "x" * 101, "end."])
def test_a_name_that_is_not_a_directory_name_is_refused(name: str) -> None:
    assert "is not a valid directory name" in refused_repository(name, url=PARENT)


def test_names_that_a_file_system_may_take_for_the_same_are_refused() -> None:
    assert "share a directory" in refused_repository("SGLang", url=PARENT)


def test_a_name_that_is_not_text_is_refused() -> None:
    assert "sources.repositories.1" in refused(repositories={1: {"url": PARENT}})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from([*DEFAULTS, "other"]) | st.text(max_size=8), JSON, max_size=3))
def test_whatever_the_configuration_holds_settings_or_a_usage_error_come_out(changes: dict[str, Any]) -> None:
    try:
        settings = load({"sources": changes}, ROOT)
    except UsageError as error:
        assert "sources" in error.what and error.what.isprintable()
    else:
        assert settings.attempts >= 1 and settings.stall > 0
        assert all(each.path.parent == settings.directory for each in settings.repositories)


@pytest.mark.parametrize(
    "url",
    [
        PARENT,
        "http://127.0.0.1:8080/x.git",
        "ssh://git@host.example:22/x.git",
        "git+ssh://git@host.example/x.git",
        "git://host.example/x",
        "git@host.example:org/x.git",
        "host.example:org/x.git",
        "git@[::1]:x.git",
        "https://[::1]:8080/x.git",
        "https://host.example:65535/x.git",
        "https://user:p%40ss@host.example/x.git",
    ],
)
def test_urls_of_networks_are_allowed_everywhere(url: str) -> None:
    assert check_url(url, "a URL", allow_local=False) == url


@pytest.mark.parametrize("url", ["/srv/git/x.git", "file:///srv/git/x.git", '/srv/it\'s a "path" with ü/x.git'])
def test_local_directories_are_allowed_only_where_configured(url: str) -> None:
    assert check_url(url, "a URL", allow_local=True) == url
    with pytest.raises(UsageError, match="not allowed here"):
        check_url(url, "a URL", allow_local=False)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "--upload-pack=id",
        "-oProxyCommand=id",
        "ext::sh -c id",
        "EXT::id",
        "fd::17",
        "a-b+c::x",
        "https://host.example/a\nb",
        "https://host.example/%0ahost=evil",
        "https://host.example/a b",
        "https://host.example/\x1b[31m",
        "https://host.example/" + "a" * 2000,
        "https://",
        "https:///path",
        "https://host.example",
        "https://host.example:port/x",
        "https://host.example:99999/x",
        "https://host.example:0/x",
        "https://host.example:\u0663/x",
        "https://[::1/x",
        "ssh://-oProxyCommand=id/x",
        "ssh://-l@host.example/x",
        "-host.example:x",
        "git@-host:x",
        "host.example:-x",
        "ftp://host.example/x",
        "javascript://host.example/x",
        "relative/path",
        "../up",
        "~/home",
        "C:\\folder",
    ],
)
def test_what_is_not_a_url_to_clone_from_is_refused_without_a_traceback(url: str) -> None:
    with pytest.raises(UsageError) as error:
        check_url(url, "sources.repositories.x.url", allow_local=True)
    assert "sources.repositories.x.url" in error.value.what and error.value.what.isprintable()


@given(st.text(max_size=60), st.booleans())
def test_an_accepted_url_is_never_an_option_a_command_or_two_lines(url: str, allow_local: bool) -> None:
    try:
        accepted = check_url(url, "a URL", allow_local)
    except UsageError:
        return
    assert (
        accepted == url and not accepted.startswith("-") and "::" not in accepted.partition("/")[0].replace("[::", "")
    )
    assert accepted.isprintable()
    assert allow_local or not accepted.startswith(("/", "file:"))


@pytest.mark.parametrize(
    ("url", "parent", "expected"),
    [
        ("../sub.git", PARENT, "https://host.example/org/sub.git"),
        ("../sub.git", PARENT + "/", "https://host.example/org/sub.git"),
        ("./sub.git", PARENT, "https://host.example/org/parent.git/sub.git"),
        ("../../other/sub", PARENT, "https://host.example/other/sub"),
        ("../sub", "git@host.example:org/parent", "git@host.example:org/sub"),
        ("../../sub", "git@host.example:org/parent", "git@host.example:sub"),
        ("../sub", "git@host.example:/srv/parent", "git@host.example:/srv/sub"),
        ("../sub", "git@[::1]:org/parent", "git@[::1]:org/sub"),
        ("../sub", "/srv/git/parent", "/srv/git/sub"),
        ("../sub", "file:///srv/parent", "file:///srv/sub"),
        ("/srv/sub", "/srv/git/parent", "/srv/sub"),
        ("https://other.example/sub", PARENT, "https://other.example/sub"),
    ],
)
def test_a_submodules_url_is_relative_to_its_parents(url: str, parent: str, expected: str) -> None:
    assert resolve_submodule_url(url, parent) == expected


@pytest.mark.parametrize(
    "url",
    [
        "/etc",
        "file:///etc",
        "ext::id",
        "--upload-pack=id",
        "../../../evil.example/x",
        "../a\nb",
        "../..",
        "../../..",
        "",
        "x/../y",
    ],
)
def test_a_hostile_submodule_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        resolve_submodule_url(url, PARENT)


SECRET = "S3cr3t"
PASSWORD = st.text(string.ascii_letters + string.digits + string.punctuation, max_size=12).map(
    lambda text: SECRET + text
)
PLAIN = st.text(max_size=20)


@given(
    PLAIN,
    st.sampled_from(["https", "HTTP", "ssh", "git+ssh"]),
    st.sampled_from(["user", "u.s-er", ""]),
    PASSWORD,
    PLAIN,
)
def test_no_password_survives(before: str, scheme: str, user: str, password: str, after: str) -> None:
    assume(SECRET not in before + after)
    shown = redact(f"{before}{scheme}://{user}:{password}@host.example/x.git{after}")
    assert SECRET not in shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://TOKEN@host.example/x", "https://***@host.example/x"),
        ("https://u:p%40ss@host.example/x", "https://***@host.example/x"),
        ("https://u:p@ss@host.example/x", "https://***@host.example/x"),
        ("https://u:p/a@host.example/x", "https://***@host.example/x"),
        ("ssh://git@host.example/x git@host.example:x", "ssh://git@host.example/x git@host.example:x"),
        ("ssh://git:pw@host.example/x", "ssh://***@host.example/x"),
        ("'https://a:b@h/1','https://c:d@h/2'", "'https://***@h/1','https://***@h/2'"),
        ("http://localhost:8080/x@v1 and mail@host.example", "http://localhost:8080/x@v1 and mail@host.example"),
        ("http://[::1]:8080/x@v1", "http://[::1]:8080/x@v1"),
    ],
)
def test_redaction_takes_the_user_and_password_and_nothing_else(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_long_text_that_looks_like_urls_is_redacted_in_bounded_time() -> None:
    assert redact("://a:b" * 5_000) == "://a:b" * 5_000
    assert redact("a." * 60_000) == "a." * 60_000


@given(PASSWORD)
def test_a_refused_url_does_not_show_its_password(password: str) -> None:
    with pytest.raises(UsageError) as error:
        check_url(f"https://user:{password} x@host.example/x", "a URL", allow_local=True)
    assert SECRET not in str(error.value)
