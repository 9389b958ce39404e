"""An environment that packages are installed into: its interpreter, and what is installed."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import packaging

from ..errors import UsageError
from . import facts

PACKAGING = Path(packaging.__file__).parent.parent
# What another interpreter runs: the first line does what `python -P` does from Python 3.11 on.
CODE = f"""import json, os, sys; sys.path[:] = filter(None, sys.path)
{Path(facts.__file__).read_text(encoding="utf-8")}
with open(sys.argv[2], "w") as file:
    json.dump(facts(sys.argv[1]), file)
"""


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
    writable: bool
    externally_managed: bool
    markers: Mapping[str, str]
    paths: tuple[Path, ...]

    @property
    def current(self) -> bool:
        """Whether this is the environment of the running program."""
        return self.prefix == Path(sys.prefix)

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
        editable, url, broken = _read_direct_url(copies[0])
        location = Path(unquote(urlsplit(url).path)) if url.startswith("file:") else None
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
    return not distribution.read_text("METADATA") or bool(_read_direct_url(distribution)[2])


def _read_direct_url(distribution: importlib.metadata.Distribution) -> tuple[bool, str, str]:
    """Whether its direct_url.json (PEP 610) says editable, from which URL, and what is wrong with it."""
    try:
        if (text := distribution.read_text("direct_url.json")) is None:
            return False, "", ""
        direct = json.loads(text)
        url, info = direct["url"], direct.get("dir_info") or {}
        if "\0" in unquote(urlsplit(url).path, errors="strict"):
            raise ValueError("its URL contains a null character")
        return bool(info.get("editable")), url, ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return False, "", f"its direct_url.json is damaged: {str(error)[:200]}"


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
    answer, why = (facts.facts(), "") if own else _ask(path, timeout)
    hint = "--python takes a Python interpreter, such as .venv/bin/python or python3.12."
    try:
        if "version" in answer and "prefix" not in answer:
            raise UsageError(f"{path} is Python {answer['version']}; 3.10 or newer is needed.", hint)
        directories: dict[str, Any] = {key: Path(answer.pop(key)) for key in ("prefix", "purelib")}
        return Environment(python=path, paths=tuple(map(Path, answer.pop("paths"))), **directories, **answer)
    except (KeyError, TypeError, AttributeError) as error:
        what = f"{path} is not a Python interpreter: {why or f'unexpected answer: {error}'}"
        raise UsageError(what, hint) from None


def _ask(python: Path, timeout: float) -> tuple[dict[str, Any], str]:
    """The facts about another interpreter, and why there are none.

    It starts in a directory of its own and does not search it, so a directory that happens to have the name of a module
    is not mistaken for it. Its output goes to files, so that a process which it leaves behind is not waited for.
    """
    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryFile() as errors:
        file = Path(directory) / "answer.json"
        try:
            subprocess.run(
                [python, "-c", CODE, str(PACKAGING), file], cwd=directory, timeout=timeout, check=False,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip
            return {**json.loads(file.read_bytes())}, ""
        except subprocess.TimeoutExpired:
            return {}, f"not finished after {timeout:g} s"
        except OSError as error:
            if error.filename != str(file):
                return {}, f"{python}: {error.strerror or error}"
        except (ValueError, TypeError, RecursionError):  # another program's
            pass
        errors.seek(0)
        lines = [line for line in errors.read().decode(errors="replace").split("\n") if line.strip()]
    return {}, lines[-1].strip() if lines else "it does not answer"
