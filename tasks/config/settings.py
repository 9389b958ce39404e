"""The keys of the tree `sources`, and how they become `Settings`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from invoke.config import Config, DataProxy

from ..errors import UsageError
from ..models import Repository, Settings
from ..names import check_ref, check_url, redact
from .defaults import DEFAULTS, INSTALLED, REPOSITORIES, TRACE
from .origin import check_spelling, did_you_mean, origin

SHOWN = 200  # characters of a wrong value in a message
PATH = r"(~(?=/|$)|[^~\s])[^\x00-\x1f\x7f]*"  # `~user` is not expanded
INDEX = r"(?i:https?|file)://((?!%[01]|%7[Ff])[^\s\\\x00-\x1f\x7f])+"
EXTRA = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"  # PEP 685

Given = Config | Mapping[str, Any]
Keys = Mapping[str, tuple[str, Any, str]]  # what a value must be in words, its type, the pattern of it or its items
SETTINGS: Keys = {
    "directory": ("the path of a directory", str, PATH),
    "trace": ("the path of a directory, or empty", str | None, f"({PATH})?"),
    "attempts": ("a whole number of at least 1", str | int, "[1-9][0-9]{0,17}"),
    "stall": ("a number of seconds above 0", str | int | float, r"(?=.*[1-9])[0-9]{1,6}(\.[0-9]+)?"),
    "installer": ("auto, uv or pip", str, "auto|uv|pip"),
    "indexes": ("a list of URLs, such as [https://flashinfer.ai/whl]", list, INDEX),
    "overrides": ("a list of requirements, such as ['torch==2.9.1+cu128']", list, r"[^\x00-\x1f\x7f]+"),
    "cache": ("auto, the path of a directory, or empty", str | None, f"({PATH})?"),
    "repositories": ("a table of repositories", Mapping, "(?s).*"),
}
REPOSITORY: Keys = {
    "url": ("a URL", str, "(?s).*"),
    "branch": ("a branch, tag or commit id (a number in quotes)", str, "(?s).*"),
    "install": ("true or false", bool, ".*"),
    "lfs": ("true or false", bool, ".*"),
    "extras": ("a list of extras, such as [srt]", list, EXTRA),
}


def read_settings(config: Given, root: Path) -> Settings:
    """What `tasks.config.load` returns, with the same errors."""
    given = _plain(config.get("sources", {}))
    _check(config, ("sources",), given, SETTINGS)
    tree = {**DEFAULTS, **given, "repositories": {**DEFAULTS["repositories"], **given.get("repositories", {})}}
    check_spelling(config, tree)
    directory, trace, cache = (
        root / Path(tree[key]).expanduser() if tree[key] else None for key in ("directory", "trace", "cache")
    )
    assert directory  # its pattern matches no empty text
    if tree["cache"] == "auto":
        from platformdirs import user_cache_path

        cache = user_cache_path("flashinfer-sources")
    checkout = directory / TRACE  # the default means this one if only this one exists or will be cloned
    if trace and tree["trace"] == DEFAULTS["trace"] and not trace.exists():
        trace = checkout if TRACE in tree["repositories"] or checkout.exists() else trace
    repositories: dict[str, Repository] = {}
    for name, entry in tree["repositories"].items():
        keys = ("sources", "repositories", name)
        if other := repositories.get(str(name).casefold()):  # a file system may ignore case
            raise _wrong(config, keys, f"and {other.name} would share a directory")
        repositories[str(name).casefold()] = _repository(config, keys, entry, directory)
    return Settings(
        root, directory, trace, int(tree["attempts"]), float(tree["stall"]), tree["installer"], tuple(tree["indexes"]),
        cache, tuple(repositories.values()), tuple(tree["overrides"]),
    )  # fmt: skip


def _repository(config: Given, keys: tuple[str, ...], entry: Any, directory: Path) -> Repository:
    name = keys[-1]
    if not isinstance(name, str) or not re.fullmatch(r"\w(?:[\w.+-]{0,98}[\w+-])?", name):
        hint = "Use letters, digits, `_`, `-` and `.`; begin with a letter or digit."
        raise _wrong(config, keys, "is not a valid directory name", hint)
    entry = {} if entry is None else entry
    _check(config, keys, entry, REPOSITORY)
    entry = {"branch": "main", "install": name in INSTALLED, "extras": (), **REPOSITORIES.get(name, {}), **entry}
    if "url" not in entry:
        hint = f"Only {', '.join(REPOSITORIES)} have a default URL."
        raise UsageError(f"{_dotted(keys)}.url is missing{origin(config, keys)}", hint)
    check_url(entry["url"], f"{_dotted(keys)}.url{origin(config, (*keys, 'url'))}", allow_local=True)
    try:
        check_ref(entry["branch"])
    except UsageError as error:
        place = f"{_dotted(keys)}.branch{origin(config, (*keys, 'branch'))}"
        raise UsageError(f"{place}: {error.what}", error.hint) from None
    return Repository(name=name, path=directory / name, **{**entry, "extras": tuple(dict.fromkeys(entry["extras"]))})


def _check(config: Given, path: tuple[str, ...], table: Any, keys: Keys) -> None:
    """Raise UsageError for the first key of the table that is unknown or has a wrong value."""
    if not isinstance(table, Mapping):
        raise _wrong(config, path, f"must be a table of keys, got {_shown(table)}")
    for key, value in table.items():
        where = (*path, key)
        if key not in keys:
            hint = f"{did_you_mean(str(key), keys)} Known keys: {', '.join(keys)}.".lstrip()
            raise UsageError(f"unknown key {_dotted(where)}{origin(config, where)}", hint)
        expected, kind, pattern = keys[key]
        texts = value if isinstance(value, list) else ["" if value is None else str(value)]
        right = all(isinstance(text, str) and re.fullmatch(pattern, text) for text in texts)
        if not isinstance(value, kind) or not right:
            raise _wrong(config, where, f"must be {expected}, got {_shown(value)}")


def _wrong(config: Given, keys: tuple[str, ...], problem: str, hint: str = "") -> UsageError:
    return UsageError(f"{_dotted(keys)} {problem}{origin(config, keys)}", hint)


def _shown(value: Any) -> str:
    return redact(ascii(value))[:SHOWN]


def _dotted(keys: tuple[str, ...]) -> str:
    return redact(ascii(".".join(map(str, keys)))[1:-1])[:SHOWN]


def _plain(tree: Any) -> Any:
    return {key: _plain(value) for key, value in tree.items()} if isinstance(tree, Mapping | DataProxy) else tree
