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

REPOSITORIES = {
    "sglang": "https://github.com/sgl-project/sglang.git",
    "flashinfer": "https://github.com/flashinfer-ai/flashinfer.git",
    "sgl-cookbook": "https://github.com/sgl-project/sgl-cookbook.git",
    "flashinfer-trace": "https://huggingface.co/datasets/flashinfer-ai/flashinfer-trace",
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
    "repositories": {name: {"url": REPOSITORIES[name], "branch": "main"} for name in INSTALLED},
}
REMOVED = {
    "cache": "there is no git cache any more; for a second worktree copy the checkouts with `cp -a`",
    "installer": "uv installs everything",
    "lfs": "files of Git LFS stay pointers; `git lfs pull` in the checkout downloads them",
}

PATH = r"(~(?=/|$)|[^~\s])[^\x00-\x1f\x7f]*"  # `~user` is not expanded
INDEX = r"(?i:https?|file)://((?!%[01]|%7[Ff])[^\s\\\x00-\x1f\x7f])+"
EXTRA = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"  # PEP 685
SHOWN = 200  # characters of a wrong value in a message

Keys = Mapping[str, tuple[str, Any, str]]  # what a value must be in words, its type, the pattern of it or its items
SETTINGS: Keys = {
    "directory": ("the path of a directory", str, PATH),
    "trace": ("the path of a directory, or empty", str | None, f"({PATH})?"),
    "attempts": ("a whole number of at least 1", str | int, "[1-9][0-9]{0,17}"),
    "stall": ("a number of seconds above 0", str | int | float, r"(?=.*[1-9])[0-9]{1,6}(\.[0-9]+)?"),
    "indexes": ("a list of URLs in invoke.yaml, such as [https://flashinfer.ai/whl]", list | None, INDEX),
    "overrides": ("a list of requirements in invoke.yaml, such as [torch==2.9.1]", list | None, r"\w[^\x00-\x1f\x7f]*"),
    "repositories": ("a table of repositories", Mapping, "(?s).*"),
}
REPOSITORY: Keys = {
    "url": ("a URL", str, "(?s).*"),
    "branch": ("a branch, tag or commit id (a number in quotes)", str, "(?s).*"),
    "install": ("true or false", bool, ".*"),
    "extras": ("a list of extras, such as [srt]", list, EXTRA),
}


def load(config: Config | Mapping[str, Any], root: Path) -> Settings:
    """The settings that Invoke's configuration holds under `sources`, over the defaults.

    `root` is the directory that relative paths start from. Keys that earlier versions knew become warnings. Raises
    UsageError, which names the key, for anything else that is not right.
    """
    from .models import Settings

    given, warnings = _plain(config.get("sources", {})), list[str]()
    _check("sources", given, SETTINGS, warnings)
    tree = {**DEFAULTS, **given, "repositories": {**DEFAULTS["repositories"], **given.get("repositories", {})}}
    _check_variables(tree, warnings)
    directory = root / Path(tree["directory"]).expanduser()
    trace = root / Path(tree["trace"]).expanduser() if tree["trace"] else None
    if trace and tree["trace"] == DEFAULTS["trace"] and not trace.exists():
        checkout = directory / TRACE
        trace = checkout if TRACE in tree["repositories"] or checkout.exists() else trace
    repositories = [_repository(name, entry, directory, warnings) for name, entry in tree["repositories"].items()]
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


def _repository(name: Any, entry: Any, directory: Path, warnings: list[str]) -> Repository:
    from .models import Repository

    path = f"sources.repositories.{name}"
    if not isinstance(name, str) or not re.fullmatch(r"\w(?:[\w.+-]{0,98}[\w+-])?", name):
        hint = "Use letters, digits, `_`, `-` and `.`; begin with a letter or digit."
        raise UsageError(f"{_shown(path)[1:-1]} is not a valid directory name", hint)
    entry = {} if entry is None else entry
    _check(path, entry, REPOSITORY, warnings)
    if "url" not in entry and name not in REPOSITORIES:
        raise UsageError(f"{path}.url is missing", f"Only {', '.join(REPOSITORIES)} have a default URL.")
    url = check_url(entry.get("url", REPOSITORIES.get(name)), f"{path}.url", allow_local=True)
    branch = check_ref(entry.get("branch", "main"), f"{path}.branch")
    extras = tuple(dict.fromkeys(entry.get("extras", ())))
    return Repository(name, url, branch, directory / name, entry.get("install", name in INSTALLED), extras)


def _check(path: str, table: Any, keys: Keys, warnings: list[str]) -> None:
    """Raise UsageError for the first key of the table that is unknown or has a wrong value; add a warning about each
    that is not read any more."""
    if not isinstance(table, Mapping):
        raise UsageError(f"{path} must be a table of keys, got {_shown(table)}")
    for key, value in table.items():
        where = _shown(f"{path}.{key}")[1:-1]
        if key in REMOVED:
            warnings.append(f"{where} is ignored: {REMOVED[key]}")
            continue
        if key not in keys:
            raise UsageError(f"unknown key {where}", did_you_mean(str(key), keys))
        expected, kind, pattern = keys[key]
        texts = value if isinstance(value, list) else ["" if value is None else str(value)]
        matches = value is None or all(isinstance(text, str) and re.fullmatch(pattern, text) for text in texts)
        if not isinstance(value, kind) or not matches:
            (variable,) = _variables(where, None)
            source = f" (from {variable})" if variable in os.environ else ""
            raise UsageError(f"{where} must be {expected}, got {_shown(value)}{source}")


def _check_variables(tree: Mapping[str, Any], warnings: list[str]) -> None:
    """Raise UsageError for a variable `INVOKE_SOURCES_…` that is unknown; add a warning about each that is not read any
    more."""
    known, removed = _variables("sources", tree), {f"INVOKE_SOURCES_{key.upper()}": why for key, why in REMOVED.items()}
    for name in sorted(os.environ):
        if name in removed:
            warnings.append(f"{name} is ignored: {removed[name]}")
        elif name.startswith("INVOKE_SOURCES_") and name not in known:
            raise UsageError(f"unknown environment variable {name}", did_you_mean(name, known))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The most similar known word, as a question, and all of them."""
    from difflib import get_close_matches

    similar = "".join(f"Did you mean `{other}`? " for other in get_close_matches(word, [*known], 1))
    return f"{similar}Known: {', '.join(known)}."


def _variables(path: str, tree: Any) -> list[str]:
    """The environment variables that Invoke reads for a tree, one for each value."""
    if isinstance(tree, Mapping):
        return [name for key, value in tree.items() for name in _variables(f"{path}.{key}", value)]
    return [f"INVOKE_{path}".replace(".", "_").upper()]


def _shown(value: Any) -> str:
    """The value, which may be anything, on one line of ASCII and without passwords."""
    return redact(ascii(value))[:SHOWN]


def _plain(tree: Any) -> Any:
    return {key: _plain(value) for key, value in tree.items()} if isinstance(tree, Mapping | DataProxy) else tree
