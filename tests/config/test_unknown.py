"""Misspelt names that Invoke itself ignores are noticed, with what was meant."""

from __future__ import annotations

from typing import Any

import pytest
from invoke.config import Config

from tasks.config.defaults import DEFAULTS
from tasks.config.unknown import unknown_names


def config(**tree: Any) -> Config:
    """Invoke's configuration with this tool's defaults and `tree`."""
    return Config(defaults={**Config.global_defaults(), "sources": DEFAULTS}, overrides=tree, lazy=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("INVOKE_SOURCES_DIRECTRY", "; did you mean INVOKE_SOURCES_DIRECTORY?"),
        ("INVOKE_SOURCE_DIRECTORY", "; did you mean INVOKE_SOURCES_DIRECTORY?"),
        ("INVOKE_SOURCES_REPOSITORIES_SGLANG_BRNCH", "; did you mean INVOKE_SOURCES_REPOSITORIES_SGLANG_BRANCH?"),
        ("INVOKE_SOURCES_QUUX", ""),
    ],
)
def test_a_misspelt_variable_is_noticed(name: str, said: str) -> None:
    assert unknown_names(config(), {name: "x", "HOME": "/"}) == [f"unknown variable {name}{said}"]


def test_what_invoke_and_others_read_is_not() -> None:
    names = ("INVOKE_SOURCES_DIRECTORY", "INVOKE_RUN_ECHO", "INVOKE_DEBUG", "INVOKE_RESOURCES", "SOURCES_DIRECTRY")
    assert unknown_names(config(), dict.fromkeys(names, "x")) == []


@pytest.mark.parametrize("key", ["source", "Sources", "soruces"])
def test_a_misspelt_key_beside_sources_is_noticed(key: str) -> None:
    assert unknown_names(config(**{key: {"directory": "x"}}), {}) == [f"unknown key {key}; did you mean sources?"]


def test_a_key_of_another_tool_is_not() -> None:
    assert unknown_names(config(resources={"cpu": 1}, source="x", docs={"directory": "x"}), {}) == []
