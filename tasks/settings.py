"""The configuration tree `sources`: its defaults, the repositories known by name, and how it becomes `Settings`.

`invoke --list` waits for this module, so it loads nothing that is slow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.config import Config, DataProxy

from .errors import UsageError
from .names import check_ref, check_url, redact

if TYPE_CHECKING:
    from .models import Repository, Settings

REPOSITORIES: dict[str, dict[str, str]] = {
    "sglang": {"url": "https://github.com/sgl-project/sglang.git"},
    "flashinfer": {"url": "https://github.com/flashinfer-ai/flashinfer.git"},
    "sgl-cookbook": {"url": "https://github.com/sgl-project/sgl-cookbook.git"},
    "flashinfer-trace": {"url": "https://huggingface.co/datasets/flashinfer-ai/flashinfer-trace"},
}
INSTALLED = ("sglang", "flashinfer")  # always set up; the others only if they are configured
TRACE = "flashinfer-trace"  # its checkout has the trace data if the project has no directory of its own

# Invoke converts a variable to the type of the default, and fails with a traceback where it cannot: so numbers are
# text here, and lists None.
DEFAULTS: dict[str, Any] = {
    "directory": "tmp",
    "trace": "flashinfer_trace",
    "attempts": "5",
    "stall": "30",
    "indexes": None,
    "overrides": None,
    "repositories": {name: {**REPOSITORIES[name], "branch": "main"} for name in INSTALLED},
}
LISTS = ("indexes", "overrides")
REMOVED = {
    "cache": "there is no git cache any more; for a second worktree copy the checkouts with `cp -a`",
    "installer": "uv installs everything",
    "lfs": "files of Git LFS stay pointers; `git lfs pull` in the checkout downloads them",
}

PATH = r"(~(?=/|$)|[^~\s])[^\x00-\x1f\x7f]*"  # `~user` is not expanded
INDEX = r"(?i:https?|file)://((?!%[01]|%7[Ff])[^\s\\\x00-\x1f\x7f])+"
EXTRA = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"  # PEP 685
SHOWN = 200  # characters of a wrong value in a message

Given = Config | Mapping[str, Any]
Keys = Mapping[str, tuple[str, Any, str]]  # what a value must be in words, its type, the pattern of it or its items
SETTINGS: Keys = {
    "directory": ("the path of a directory", str, PATH),
    "trace": ("the path of a directory, or empty", str | None, f"({PATH})?"),
    "attempts": ("a whole number of at least 1", str | int, "[1-9][0-9]{0,17}"),
    "stall": ("a number of seconds above 0", str | int | float, r"(?=.*[1-9])[0-9]{1,6}(\.[0-9]+)?"),
    "indexes": ("a list of URLs, such as [https://flashinfer.ai/whl]", list | None, INDEX),
    "overrides": ("a list of requirements, such as ['torch==2.9.1+cu128']", list | None, r"[^\x00-\x1f\x7f]+"),
    "repositories": ("a table of repositories", Mapping, "(?s).*"),
}
REPOSITORY: Keys = {
    "url": ("a URL", str, "(?s).*"),
    "branch": ("a branch, tag or commit id (a number in quotes)", str, "(?s).*"),
    "install": ("true or false", bool, ".*"),
    "extras": ("a list of extras, such as [srt]", list, EXTRA),
}


def load(config: Given, root: Path) -> Settings:
    """The settings that Invoke's configuration holds under `sources`, over the defaults.

    `root` is the directory that relative paths start from. Keys that earlier versions knew become warnings. Raises
    UsageError, which names the key, for anything else that is not right.
    """
    from .models import Settings

    given = _plain(config.get("sources", {}))
    warnings = _check(("sources",), given, SETTINGS)
    tree = {**DEFAULTS, **given, "repositories": {**DEFAULTS["repositories"], **given.get("repositories", {})}}
    warnings += _check_variables(tree)
    directory = root / Path(tree["directory"]).expanduser()
    trace = root / Path(tree["trace"]).expanduser() if tree["trace"] else None
    checkout = directory / TRACE  # the default means this one if only this one exists or will be cloned
    if trace and tree["trace"] == DEFAULTS["trace"] and not trace.exists():
        trace = checkout if TRACE in tree["repositories"] or checkout.exists() else trace
    repositories: list[Repository] = []
    for name, entry in tree["repositories"].items():
        repository, removed = _repository(("sources", "repositories", name), entry, directory)
        repositories.append(repository)
        warnings += removed
    return Settings(
        root=root,
        directory=directory,
        trace=trace,
        attempts=int(tree["attempts"]),
        stall=float(tree["stall"]),
        indexes=tuple(tree["indexes"] or ()),
        overrides=tuple(tree["overrides"] or ()),
        repositories=tuple(repositories),
        warnings=tuple(warnings),
    )


def _repository(keys: tuple[str, ...], entry: Any, directory: Path) -> tuple[Repository, list[str]]:
    from .models import Repository

    name = keys[-1]
    if not isinstance(name, str) or not re.fullmatch(r"\w(?:[\w.+-]{0,98}[\w+-])?", name):
        hint = "Use letters, digits, `_`, `-` and `.`; begin with a letter or digit."
        raise UsageError(f"{_dotted(keys)} is not a valid directory name", hint)
    entry = {} if entry is None else entry
    warnings = _check(keys, entry, REPOSITORY)
    entry = {"branch": "main", "install": name in INSTALLED, "extras": (), **REPOSITORIES.get(name, {}), **entry}
    if "url" not in entry:
        raise UsageError(f"{_dotted(keys)}.url is missing", f"Only {', '.join(REPOSITORIES)} have a default URL.")
    url = check_url(entry["url"], f"{_dotted(keys)}.url", allow_local=True)
    try:
        branch = check_ref(entry["branch"])
    except UsageError as error:
        raise UsageError(f"{_dotted(keys)}.branch: {error.what}", error.hint) from None
    extras = tuple(dict.fromkeys(entry["extras"]))
    return Repository(name, url, branch, directory / name, entry["install"], extras), warnings


def _check(path: tuple[str, ...], table: Any, keys: Keys) -> list[str]:
    """Raise UsageError for the first key of the table that is unknown or has a wrong value; return warnings about keys
    that are not read any more."""
    if not isinstance(table, Mapping):
        raise UsageError(f"{_dotted(path)} must be a table of keys, got {_shown(table)}")
    removed = [key for key in table if key in REMOVED]
    for key in [key for key in table if key not in removed]:
        where, value = _dotted((*path, key)), table[key]
        if key not in keys:
            hint = f"{did_you_mean(str(key), keys)} Known keys: {', '.join(keys)}.".lstrip()
            raise UsageError(f"unknown key {where}", hint)
        expected, kind, pattern = keys[key]
        variable = f" (from {_variable((*path, key))})" if _variable((*path, key)) in os.environ else ""
        if isinstance(value, str) and variable and key in LISTS:
            raise UsageError(f"{where} is a list: set it in invoke.yaml{variable}")
        texts = value if isinstance(value, list) else ["" if value is None else str(value)]
        matches = value is None or all(isinstance(text, str) and re.fullmatch(pattern, text) for text in texts)
        if not isinstance(value, kind) or not matches:
            raise UsageError(f"{where} must be {expected}, got {_shown(value)}{variable}")
    return [f"{_dotted((*path, key))} is ignored: {REMOVED[key]}" for key in removed]


def _check_variables(tree: Mapping[str, Any]) -> list[str]:
    """Raise UsageError for what looks like one of the environment variables and is none; return warnings about those
    that are not read any more."""
    known, removed = _variables(("sources",), tree), {_variable(("sources", key)): key for key in REMOVED}
    for name in os.environ.keys() - known - removed.keys():
        near = did_you_mean(name, known, 0.9)
        if name.startswith("INVOKE_SOURCES_") or (name.startswith("INVOKE_") and near):
            raise UsageError(f"unknown environment variable {name}", near or "The file invoke.yaml can set all keys.")
    return [f"{name} is ignored: {REMOVED[key]}" for name, key in removed.items() if name in os.environ]


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A question that names the most similar known word; empty if none is similar."""
    from difflib import get_close_matches

    return "".join(f"Did you mean `{other}`?" for other in get_close_matches(word, [*known], 1, cutoff))


def _variable(keys: Iterable[str]) -> str:
    return f"INVOKE_{'_'.join(map(str, keys))}".upper()


def _variables(keys: tuple[str, ...], tree: Any) -> set[str]:
    """The environment variables that Invoke reads for a tree, one for each value."""
    if not isinstance(tree, Mapping):
        return {_variable(keys)}
    return {name for key, value in tree.items() for name in _variables((*keys, key), value)}


def _shown(value: Any) -> str:
    return redact(ascii(value))[:SHOWN]


def _dotted(keys: tuple[str, ...]) -> str:
    return redact(ascii(".".join(map(str, keys)))[1:-1])[:SHOWN]


def _plain(tree: Any) -> Any:
    return {key: _plain(value) for key, value in tree.items()} if isinstance(tree, Mapping | DataProxy) else tree
