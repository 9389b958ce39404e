"""Which file or environment variable a value of the configuration comes from.

Invoke keeps each level of its configuration (docs, "Configuration"), but publishes only the merged values.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from ..errors import UsageError
from .defaults import DEFAULTS

FILES = ("runtime", "project", "user", "system")
LEVELS = ("modifications", "overrides", "runtime", "env", "project", "user", "system")  # the first overrides the others


def origin(config: Any, keys: tuple[str, ...]) -> str:
    """Which file or variable the value of a key comes from, as the end of a sentence; empty if a program set it."""
    level = next((level for level in LEVELS if _holds(getattr(config, f"_{level}", None), keys)), "")
    if level == "env":
        return f" (from {_variable(keys)})"
    file = getattr(config, f"_{level}_path", None)
    return f" (in {file})" if file else ""


def check_spelling(config: Any, tree: Mapping[str, Any]) -> None:
    """Raise UsageError for what looks like `sources` or one of its environment variables and is neither."""
    for level in FILES:
        for key, value in (getattr(config, f"_{level}", None) or {}).items():
            near = did_you_mean(str(key).lower(), ["sources"], 0.9)
            if key != "sources" and near and isinstance(value, Mapping) and {*value} & {*DEFAULTS}:
                raise UsageError(f"unknown key {ascii(key)[1:-1]}{origin(config, (key,))}", near)
    known = _variables(("sources",), tree)
    for name in os.environ:
        near = did_you_mean(name, known, 0.9)
        if name not in known and (name.startswith("INVOKE_SOURCES_") or (name.startswith("INVOKE_") and near)):
            raise UsageError(f"unknown environment variable {name}", near or "The file invoke.yaml can set all keys.")


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A question that names the most similar known word; empty if none is similar."""
    return "".join(f"Did you mean `{other}`?" for other in get_close_matches(word, [*known], 1, cutoff))


def _holds(tree: Any, keys: tuple[str, ...]) -> bool:
    return not keys or (isinstance(tree, Mapping) and keys[0] in tree and _holds(tree[keys[0]], keys[1:]))


def _variable(keys: Iterable[str]) -> str:
    return f"INVOKE_{'_'.join(map(str, keys))}".upper()


def _variables(keys: tuple[str, ...], tree: Any) -> set[str]:
    """The environment variables that Invoke reads for a tree, one for each value."""
    if not isinstance(tree, Mapping):
        return {_variable(keys)}
    return {name for key, value in tree.items() for name in _variables((*keys, key), value)}
