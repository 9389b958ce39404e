"""The configuration tree `sources`: its defaults, and how it becomes `Settings`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from invoke.config import DataProxy

from .errors import UsageError
from .model import Repository, Settings
from .urls import check_url, is_local, redact, resolve_submodule_url

__all__ = ["DEFAULTS", "check_url", "is_local", "load", "redact", "resolve_submodule_url"]

# Numbers stand as text: Invoke casts an environment variable by its default's type, and a bare ValueError would come
# out of INVOKE_SOURCES_ATTEMPTS=many.
DEFAULTS: dict[str, Any] = {
    "directory": "tmp",
    "trace": "flashinfer_trace",
    "attempts": "5",
    "stall": "30",
    "installer": "auto",
    "cache": "auto",
    "repositories": {
        "sglang": {"url": "https://github.com/sgl-project/sglang.git", "branch": "main"},
        "flashinfer": {"url": "https://github.com/flashinfer-ai/flashinfer.git", "branch": "main"},
    },
}
ENTRY = ("url", "branch", "install", "extras")
INSTALLED = ("sglang", "flashinfer")
INSTALLERS: tuple[Literal["auto", "uv", "pip"], ...] = ("auto", "uv", "pip")
LONGEST_NAME = 100
SHOWN = 200  # characters of a wrong value in a message


@dataclass(frozen=True)
class _Node:
    """One value of the tree, with its full key and the file that it came from."""

    value: Any
    key: str
    where: str

    def wrong(self, expected: str, fix: str = "") -> NoReturn:
        kind, shown = type(self.value).__name__, redact(ascii(self.value))[:SHOWN]
        variable = f" or INVOKE_{self.key.upper().replace('.', '_')}" if isinstance(self.value, str) else ""
        what = f"{self.key} is {shown} ({kind}), expected was {expected} (in {self.where}{variable})"
        raise UsageError(what, fix or f"Correct `{self.key}` in {self.where}.")

    def table(self, known: Collection[str] = ()) -> dict[str, _Node]:
        """Its entries; with `known`, no others than those."""
        if not isinstance(self.value, Mapping | DataProxy):
            self.wrong("a table of keys")
        keys: Iterable[Any] = self.value
        children = {}
        for key in keys:
            name = redact(str(key)[:SHOWN].encode("unicode_escape").decode())
            if not isinstance(key, str) or (known and key not in known):
                raise UsageError(f"{self.key}.{name} is no known key (in {self.where})", _nearest(name, known))
            children[key] = _Node(self.value[key], f"{self.key}.{name}", self.where)
        return children

    def text(self, expected: str = "text") -> str:
        if not isinstance(self.value, str) or not self.value.strip() or not self.value.isprintable():
            self.wrong(f"{expected} (put numbers in quotes)" if isinstance(self.value, int | float) else expected)
        return self.value

    def number(self, expected: str) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float | str):
            self.wrong(expected)
        try:
            return float(self.value)
        except (ValueError, OverflowError):
            self.wrong(expected)

    def folder(self, root: Path) -> Path:
        try:
            return root / Path(self.text("the path of a folder")).expanduser()
        except RuntimeError:  # ~somebody who does not exist here
            self.wrong("the path of a folder", "Write the whole path, without `~`.")


def load(config: Any, root: Path, where: str = "invoke.yaml") -> Settings:
    """The settings in the tree `sources` of Invoke's configuration.

    `config` is that tree (a mapping or Invoke's `DataProxy`), `root` the folder that relative paths start from, `where`
    the name of the file that a user would correct. Raises UsageError with the full key for whatever is wrong in it.
    """
    tree = _Node(config, "sources", where)
    known = tree.table(DEFAULTS)
    nodes = {key: known.get(key) or _Node(value, f"sources.{key}", where) for key, value in DEFAULTS.items()}
    attempts = nodes["attempts"].number("a whole number, 1 or more")
    if not (attempts >= 1 and attempts.is_integer()):
        nodes["attempts"].wrong("a whole number, 1 or more")
    stall = nodes["stall"].number("a number of seconds above 0")
    if not 0 < stall < float("inf"):
        nodes["stall"].wrong("a number of seconds above 0")
    installer = next((name for name in INSTALLERS if name == nodes["installer"].value), None)
    if installer is None:
        nodes["installer"].wrong("one of auto, uv and pip")
    directory = nodes["directory"].folder(root)
    return Settings(
        root=root,
        directory=directory,
        trace=nodes["trace"].folder(root),
        attempts=int(attempts),
        stall=stall,
        installer=installer,
        cache=_cache(nodes["cache"], root),
        repositories=_repositories(nodes["repositories"], directory),
    )


def _cache(node: _Node, root: Path) -> Path | None:
    if node.value is None or node.value == "":
        return None
    if node.value == "auto":
        from platformdirs import user_cache_path

        return user_cache_path("flashinfer-sources")
    return node.folder(root)


def _repositories(node: _Node, directory: Path) -> tuple[Repository, ...]:
    import unicodedata

    found: dict[str, Repository] = {}
    for name, entry in node.table().items():
        if not re.fullmatch(r"\w(?:[\w.+-]*[\w+-])?", name) or len(name) > LONGEST_NAME:
            what = f"{entry.key} is no name for a folder (in {node.where})"
            raise UsageError(what, "Name it with letters, digits, `_`, `-` and `.`, a letter or digit first.")
        folded = unicodedata.normalize("NFKC", name).casefold()  # as file systems that ignore case would
        if folded in found:
            raise UsageError(f"{entry.key} and {node.key}.{found[folded].name} would share a folder (in {node.where})")
        found[folded] = _repository(name, entry, directory / name)
    return tuple(found.values())


def _repository(name: str, entry: _Node, path: Path) -> Repository:
    from .refs import check_ref

    given = entry.table(ENTRY)
    if "url" not in given:
        raise UsageError(f"{entry.key}.url is missing (in {entry.where})", f"Add `url:` below `{entry.key}`.")
    url = check_url(given["url"].text("a URL"), f"{entry.key}.url in {entry.where}", allow_local=True)
    branch = given.get("branch") or _Node("main", "", "")
    try:
        check_ref(branch.text("a branch, tag or commit id"))
    except UsageError as error:
        raise error if branch.key in error.what else UsageError(f"{branch.key}: {error.what}", error.fix) from None
    install = given.get("install") or _Node(name in INSTALLED, "", "")
    if not isinstance(install.value, bool):
        install.wrong("true or false")
    extras = given.get("extras") or _Node([], "", "")
    if not isinstance(extras.value, list | tuple):
        extras.wrong("a list of extras, such as [srt]")
    for extra in extras.value:
        if not isinstance(extra, str) or not re.fullmatch(r"[A-Z0-9](?:[A-Z0-9._-]*[A-Z0-9])?", extra, re.I | re.A):
            extras.wrong("a list of extras by their names (PEP 685), such as [srt]")
    return Repository(name, url, branch.value, path, install.value, tuple(dict.fromkeys(extras.value)))


def _nearest(key: str, known: Collection[str]) -> str:
    from difflib import get_close_matches

    best = get_close_matches(key, known, n=1, cutoff=0.5)
    return (f"Did you mean `{best[0]}`? " if best else "") + f"Known here: {', '.join(known)}."
