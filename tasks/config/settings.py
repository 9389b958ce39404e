"""How the configuration tree `sources` becomes `Settings`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.config import DataProxy

from ..errors import UsageError
from ..models import Repository, Settings
from ..names import check_ref, check_url, redact
from .defaults import DEFAULTS

if TYPE_CHECKING:
    from fastjsonschema import JsonSchemaValueException

INSTALLED = ("sglang", "flashinfer")
SHOWN = 200  # characters of a wrong value in a message
FOLDER = {"type": "string", "pattern": r"^(~(?=/|$)|[^~\s])[^\x00-\x1f\x7f]*$", "description": "the path of a folder"}
EXTRA = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
SCHEMA: dict[str, Any] = {  # JSON Schema (draft 7); a description ends the sentence "expected was ..."
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "directory": FOLDER,
        "trace": FOLDER,
        "attempts": {"pattern": "^[1-9][0-9]{0,3}$", "description": "a whole number, 1 or more"},
        "stall": {"pattern": r"^(?=.*[1-9])[0-9]{1,6}(\.[0-9]+)?$", "description": "a number of seconds above 0"},
        "installer": {"enum": ["auto", "uv", "pip"], "description": "one of auto, uv and pip"},
        "cache": {"anyOf": [FOLDER, {"enum": ["", None]}], "description": "the path of a folder, or empty"},
        "repositories": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["url"],
                "additionalProperties": False,
                "properties": {
                    "url": {"type": "string", "description": "a URL"},
                    "branch": {"type": "string", "description": "a branch, tag or commit id (numbers in quotes)"},
                    "install": {"type": "boolean", "description": "true or false"},
                    "extras": {
                        "type": "array",
                        "description": "a list of extras, such as [srt]",
                        "items": {"type": "string", "pattern": EXTRA, "description": "an extra's name (PEP 685)"},
                    },
                },
            },
        },
    },
}


def load(config: Any, root: Path, where: str = "invoke.yaml") -> Settings:
    """The settings in the tree `sources` of Invoke's configuration.

    `config` is that tree (a mapping or Invoke's `DataProxy`), `root` the folder that relative paths start from, `where`
    the name of the file that a user would correct. Raises UsageError with the full key for whatever is wrong in it.
    """
    import fastjsonschema

    given = _plain(config)
    tree = {**DEFAULTS, **given} if isinstance(given, dict) else given
    for key in {"attempts", "stall"}.intersection(tree):
        tree[key] = str(tree[key])
    try:
        fastjsonschema.compile(SCHEMA)(tree)
    except fastjsonschema.JsonSchemaValueException as error:
        raise _wrong(error, where) from None
    directory, trace, cache = (root / Path(tree[key] or "").expanduser() for key in ("directory", "trace", "cache"))
    if tree["cache"] == "auto":
        from platformdirs import user_cache_path

        cache = user_cache_path("flashinfer-sources")
    repositories: dict[str, Repository] = {}
    for name, entry in tree["repositories"].items():
        key = f"sources.repositories.{name}"
        if not isinstance(name, str) or not re.fullmatch(r"\w(?:[\w.+-]{0,98}[\w+-])?", name):
            what = f"{ascii(key)[1:-1]} is no name for a folder (in {where})"
            raise UsageError(what, "Name it with letters, digits, `_`, `-` and `.`, a letter or digit first.")
        if other := repositories.get(name.casefold()):  # a file system may ignore case
            raise UsageError(f"{key} and sources.repositories.{other.name} would share a folder (in {where})")
        check_url(entry["url"], f"{key}.url in {where}", allow_local=True)
        try:
            branch = check_ref(entry.get("branch", "main"))
        except UsageError as error:
            raise UsageError(f"{key}.branch in {where}: {error.what}", error.hint) from None
        install, extras = entry.get("install", name in INSTALLED), tuple(dict.fromkeys(entry.get("extras", ())))
        repositories[name.casefold()] = Repository(name, entry["url"], branch, directory / name, install, extras)
    return Settings(
        root=root,
        directory=directory,
        trace=trace,
        attempts=int(tree["attempts"]),
        stall=float(tree["stall"]),
        installer=tree["installer"],
        indexes=(),
        cache=cache if tree["cache"] else None,
        repositories=tuple(repositories.values()),
    )


def _plain(tree: Any) -> Any:
    return {key: _plain(value) for key, value in tree.items()} if isinstance(tree, Mapping | DataProxy) else tree


def _wrong(error: JsonSchemaValueException, where: str) -> UsageError:
    from difflib import get_close_matches

    key = redact(ascii((error.name or "").replace("data", "sources", 1))[1:-1])
    if error.rule == "additionalProperties":
        known = error.definition["properties"]
        name = next(str(name) for name in error.value if name not in known)
        near = "".join(f"Did you mean `{other}`? " for other in get_close_matches(str(name), known, 1))
        what = f"{key}.{redact(ascii(name)[1:-1])[:SHOWN]} is no known key (in {where})"
        return UsageError(what, f"{near}Known here: {', '.join(known)}.")
    if error.rule == "required":
        return UsageError(f"{key}.url is missing (in {where})", f"Add `url:` below `{key}`.")
    expected = error.definition.get("description", "a table of keys")
    variable = f" or INVOKE_{key.upper().replace('.', '_')}" if isinstance(error.value, str) else ""
    what = f"{key} is {redact(ascii(error.value))[:SHOWN]}, expected was {expected} (in {where}{variable})"
    return UsageError(what, f"Correct `{key}` in {where}.")
