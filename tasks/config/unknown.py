"""Names that look like this tool's settings and are none: Invoke ignores them without a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from invoke.config import DataProxy

from .defaults import DEFAULTS

PREFIX = "INVOKE_SOURCES_"


def unknown_names(config: Any, environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each misspelt variable in `environ` and each misspelt key beside `sources` in `config`.

    `config` is Invoke's whole configuration with this tool's defaults. A variable counts if it begins with
    INVOKE_SOURCES_ or resembles one that does, a key if it resembles `sources` and holds keys of that tree.
    """
    known = list(_variables(config))
    found = []
    for name in sorted(environ):
        if name.startswith("INVOKE_") and name not in known:
            near = get_close_matches(name, [each for each in known if each.startswith(PREFIX)], 1, 0.85)
            if near or name.startswith(PREFIX):
                found.append(f"unknown variable {name}" + "".join(f"; did you mean {each}?" for each in near))
    for key, value in config.items():
        ours = isinstance(value, Mapping | DataProxy) and {*value} & {*DEFAULTS}
        if key != "sources" and ours and get_close_matches(str(key).lower(), ["sources"], 1, 0.7):
            found.append(f"unknown key {key}; did you mean sources?")
    return found


def _variables(tree: Any, path: str = "INVOKE") -> Iterator[str]:
    """The variables that Invoke reads: one for each value in the configuration."""
    for key, value in tree.items():
        name = f"{path}_{key}".upper()
        if isinstance(value, Mapping | DataProxy):
            yield from _variables(value, name)
        else:
            yield name
