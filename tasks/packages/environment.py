"""An environment that packages are installed into: its interpreter, and what is installed."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import packaging

from ..errors import UsageError
from ..models import PackageState
from . import facts

PACKAGING = Path(packaging.__file__).parent.parent


@dataclass(frozen=True)
class Distribution:
    """The metadata of an installed distribution (PEP 376 and 566).

    `name` is normalized. `url` is where it was installed from (PEP 610), empty for a package index, `location` the
    same as a path. `broken` is what is wrong with the metadata; empty if nothing is.
    """

    name: str
    version: str
    editable: bool = False
    location: Path | None = None
    requires: tuple[str, ...] = ()
    url: str = ""
    broken: str = ""


@dataclass(frozen=True)
class Environment:
    """An interpreter and its packages. `markers` are those of PEP 508, without `extra`.

    `externally_managed` is that of PEP 668. `paths` is the interpreter's sys.path, without the current directory.
    """

    python: Path
    prefix: Path
    version: str
    virtual: bool
    purelib: Path
    externally_managed: bool
    markers: Mapping[str, str]
    paths: tuple[Path, ...]

    @property
    def current(self) -> bool:
        """Whether this is the environment of the running program."""
        return self.prefix == Path(sys.prefix)

    def state(self, name: str) -> PackageState:
        """The distribution `name` as it is installed, if it is."""
        found = self.distribution(name)
        return PackageState(found.version, found.editable, found.location) if found else PackageState(None, False, None)

    def distribution(self, name: str) -> Distribution | None:
        """What is installed under `name` (any spelling), or None. No process is started."""
        from packaging.utils import canonicalize_name

        copies = list(importlib.metadata.Distribution.discover(name=name, path=[str(path) for path in self.paths]))
        copies = [copy for copy in copies if copy.locate_file("") == copies[0].locate_file("")]
        if not copies:
            return None
        try:
            headers = copies[0].metadata
            version, requires = (headers.get_all(key) or [] for key in ("Version", "Requires-Dist"))
        except (OSError, ValueError, TypeError, AttributeError):  # not UTF-8, or no such file
            version, requires = [], []
        editable, location, url, broken = _read_direct_url(copies[0])
        if not version:
            broken = "its metadata is missing or damaged"
        elif len(copies) > 1:
            broken = f"{len(copies)} versions of it are installed side by side"
        return Distribution(
            canonicalize_name(name), "".join(version[:1]), editable, location, tuple(requires), url, broken
        )

    def versions(self) -> dict[str, str]:
        """The versions of everything below the prefix, by normalized name; no metadata is read."""
        from packaging.utils import canonicalize_name

        stems = [info.name.removesuffix(".dist-info").rpartition("-") for info in self.metadata_directories()]
        return {canonicalize_name(name): version for name, _, version in stems}

    def metadata_directories(self) -> list[Path]:
        """The .dist-info directories below the prefix."""
        directories = {path.resolve() for path in self.paths if path.is_relative_to(self.prefix)}
        return [info for directory in directories for info in directory.glob("*.dist-info")]


def unreadable(info: Path) -> bool:
    """Whether no installer could read this .dist-info directory: an interrupted one left it incomplete."""
    distribution = importlib.metadata.Distribution.at(info)
    return not distribution.read_text("METADATA") or bool(_read_direct_url(distribution)[3])


def _read_direct_url(distribution: importlib.metadata.Distribution) -> tuple[bool, Path | None, str, str]:
    """Whether its direct_url.json (PEP 610) says editable, from which directory and URL, and what is wrong with it."""
    try:
        if (text := distribution.read_text("direct_url.json")) is None:
            return False, None, "", ""
        direct = json.loads(text)
        url, info = direct["url"], direct.get("dir_info") or {}
        location = Path(unquote(urlsplit(url).path)) if url.startswith("file:") else None
        return bool(info.get("editable")), location, url, ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return False, None, "", f"its direct_url.json is damaged: {str(error)[:200]}"


def probe(python: str | Path = "", timeout: float = 30) -> Environment:
    """The environment of an interpreter (a path, or a name on the PATH), or of a virtual environment's directory.

    The default is the running one, for which no process is started. Raises UsageError if `python` is not a Python
    interpreter of version 3.10 or newer, or does not answer within `timeout` seconds.
    """
    if "/" not in str(python) and not Path(python).exists():
        python = shutil.which(str(python)) or python
    path = Path(os.path.abspath(python or sys.executable))  # noqa: PTH100 - a venv's python is a symbolic link
    if path.is_dir():
        path = path / "bin" / "python"
    own = path == Path(os.path.abspath(sys.executable))  # noqa: PTH100
    known = facts.facts() if own else _ask(path, timeout)
    directories: dict[str, Any] = {key: Path(known.pop(key)) for key in ("prefix", "purelib")}
    return Environment(python=path, paths=tuple(map(Path, known.pop("paths"))), **directories, **known)


def _ask(python: Path, timeout: float) -> dict[str, Any]:
    """The facts about another interpreter. Raises UsageError."""
    hint = "--python takes a Python interpreter, such as .venv/bin/python or python3.12."
    why = "it does not answer"
    try:
        done = subprocess.run(
            [python, facts.__file__, PACKAGING], cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=timeout, check=False,
        )  # fmt: skip
        why = (done.stderr.strip().splitlines() or [why])[-1]
        known: dict[str, Any] = json.loads(done.stdout)
        version = known["version"]
    except subprocess.TimeoutExpired:
        raise UsageError(f"{python} is not a Python interpreter: not finished after {timeout:g} s", hint) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        why = f"{error.strerror}: {python}" if isinstance(error, OSError) else why
        raise UsageError(f"{python} is not a Python interpreter: {why}", hint) from None
    if "prefix" not in known:
        raise UsageError(f"{python} is Python {version}; 3.10 or newer is needed.", hint)
    return known
