"""An environment that packages are installed into: its interpreter, what is installed, and what can be imported."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import packaging

from .. import processes
from ..errors import UsageError
from . import facts

PACKAGING = Path(packaging.__file__).parent.parent
# What other interpreters run: the first line does what `python -P` does from Python 3.11 on.
_BEFORE = "import json, os, sys; sys.path[:] = filter(None, sys.path)\n"
_AFTER = "\nwith open(sys.argv[2], 'w') as file: json.dump(answer, file)\nos._exit(0)"
_FACTS = Path(facts.__file__).read_text(encoding="utf-8") + "\nanswer = facts(sys.argv[1])"
_IMPORT = """import importlib
module = importlib.import_module(sys.argv[1])
answer = getattr(module, "__file__", None), str(getattr(module, "__version__", ""))"""


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
    has_pip: bool
    markers: Mapping[str, str]
    paths: tuple[Path, ...]

    @property
    def current(self) -> bool:
        """Whether this is the environment of the running program."""
        return self.prefix == Path(sys.prefix)

    def distribution(self, name: str) -> Distribution | None:
        """What is installed under `name` (any spelling), or None. No process is started."""
        from packaging.utils import canonicalize_name

        if not (found := self._found(name)):
            return None
        try:
            headers = found[0].metadata
            version, requires = (headers.get_all(key) or [] for key in ("Version", "Requires-Dist"))
        except (OSError, ValueError, TypeError, AttributeError):  # not UTF-8, or no such file
            version, requires = [], []
        editable, url, broken = _read_direct_url(found[0])
        location = Path(unquote(urlsplit(url).path)) if url.startswith("file:") else None
        if not version:
            broken = "its metadata is missing or damaged"
        elif len(found) > 1:
            broken = f"{len(found)} versions of it are installed side by side"
        return Distribution(
            canonicalize_name(name), "".join(version[:1]), editable, location, tuple(requires), url, broken
        )

    @property
    def installer(self) -> str:
        """What installed SGLang or FlashInfer (the file INSTALLER, PEP 376): uv, pip or another; empty for neither."""
        found = [one for name in ("sglang", "flashinfer-python", "flashinfer") for one in self._found(name)]
        return next((text.strip() for one in found if (text := one.read_text("INSTALLER"))), "")

    def copies(self, name: str) -> int:
        """How many versions of it are in one directory: several after an interrupted installation."""
        return len(self._found(name))

    def incomplete(self) -> list[Path]:
        """The .dist-info directories below the prefix that pip or uv has left incomplete."""
        directories = {path.resolve() for path in self.paths if path.is_relative_to(self.prefix)}
        return [info for each in directories for info in each.glob("*.dist-info") if _is_incomplete(info)]

    def _found(self, name: str) -> list[importlib.metadata.Distribution]:
        found = list(importlib.metadata.Distribution.discover(name=name, path=[str(path) for path in self.paths]))
        return [one for one in found if one.locate_file("") == found[0].locate_file("")]


def _is_incomplete(info: Path) -> bool:
    """Whether pip or uv installed it (PEP 376), and METADATA, RECORD or a readable direct_url.json is missing."""
    found = importlib.metadata.Distribution.at(info)
    if (found.read_text("INSTALLER") or "").strip() not in ("", "pip", "uv"):
        return False
    return not (found.read_text("METADATA") and found.read_text("RECORD")) or bool(_read_direct_url(found)[2])


def _read_direct_url(found: importlib.metadata.Distribution) -> tuple[bool, str, str]:
    """Whether its direct_url.json (PEP 610) says editable, from which URL, and what is wrong with it."""
    from packaging.direct_url import DirectUrl, DirectUrlValidationError

    try:
        if (text := found.read_text("direct_url.json")) is None:
            return False, "", ""
        direct = DirectUrl.from_dict(json.loads(text))
        if "\0" in unquote(urlsplit(direct.url).path, errors="strict"):
            raise ValueError("its URL contains a null character")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, DirectUrlValidationError) as error:
        return False, "", f"its direct_url.json is damaged: {str(error)[:200]}"
    return bool(direct.dir_info and direct.dir_info.editable), direct.url, ""


def probe(python: Path | None = None, timeout: float = 30) -> Environment:
    """The environment of an interpreter, or of a virtual environment's directory.

    The default is the running one, for which no process is started. Raises UsageError if `python` is not a Python
    interpreter, or does not answer within `timeout` seconds.
    """
    own = Path(os.path.abspath(sys.executable))  # noqa: PTH100 - not resolved: a venv's python is a symbolic link
    path = Path(os.path.abspath(python)) if python else own  # noqa: PTH100
    if path.is_dir():
        path = path / "bin" / "python"
    known, why = (facts.facts(), "") if path == own else _ask(path, _FACTS, str(PACKAGING), timeout)
    try:
        directories: dict[str, Any] = {key: Path(known.pop(key)) for key in ("prefix", "purelib")}
        return Environment(python=path, paths=tuple(map(Path, known.pop("paths"))), **directories, **known)
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} is not a Python interpreter of version 3.8 or newer: {why or f'unexpected answer: {error}'}",
            "--python takes the path of a Python interpreter, such as .venv/bin/python",
        ) from None


def import_check(environment: Environment, module: str, folder: Path, timeout: float = 300) -> tuple[bool, str]:
    """Import `module` in a fresh interpreter of the environment, and check that it came from within `folder`.

    Returns whether it did, and the version and file or what went wrong (the last line of the traceback). `timeout` is
    in seconds.
    """
    found, why = _ask(environment.python, _IMPORT, module, timeout)
    if why:
        return False, why
    file, version = found
    if file is None:
        return False, "imports only as a namespace package: a directory of that name without the package in it"
    if not Path(file).resolve().is_relative_to(folder.resolve()):
        return False, f"imported from {file}, which is not in {folder}"
    return True, f"{version} from {file}".strip()


def _ask(python: Path, code: str, argument: str, timeout: float) -> tuple[Any, str]:
    """Run code that computes an `answer` in another interpreter; return the answer, and why there is none.

    The interpreter starts in a directory of its own and does not search it, so a directory that happens to have the
    name of a module is not mistaken for it. It exits without the seconds that large libraries take to shut down.
    """
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "answer.json"
        argv: list[str | Path] = [python, "-c", f"{_BEFORE}{code}{_AFTER}", argument, file]
        try:
            done = processes.run(argv, cwd=Path(directory), timeout=timeout)
        except OSError as error:
            return None, f"{python}: {error.strerror or error}"
        with suppress(OSError, ValueError, RecursionError):  # the file is missing, or another program's
            return json.loads(file.read_bytes()), ""
    if done.ended:
        return None, done.ended
    lines = [line for line in done.errors.decode(errors="replace").split("\n") if line.strip()]
    if done.status < 0 or not lines:
        return None, f"the interpreter ended with status {done.status}"
    return None, lines[-1].strip()
