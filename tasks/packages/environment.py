"""An environment that packages are installed into: what it is, what is installed in it, and what it imports."""

from __future__ import annotations

import email
import importlib.metadata
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from .. import processes
from ..errors import UsageError
from . import facts

_SAFE_PATH = "import sys; sys.path[:] = filter(None, sys.path)\n"  # what `python -P` does, for Pythons before 3.11


@dataclass(frozen=True)
class Distribution:
    """An installed distribution, as its metadata has it (PEP 376 and 566; `editable` and `location` by PEP 610).

    `name` is normalized. `broken` says why the metadata cannot be trusted; empty if it can.
    """

    name: str
    version: str
    editable: bool = False
    location: Path | None = None
    requires: tuple[str, ...] = ()
    broken: str = ""


@dataclass(frozen=True)
class Environment:
    """Facts about an interpreter and where it finds its packages. `markers` are those of PEP 508, without `extra`.

    `externally_managed` is the message of PEP 668, or None. `paths` is the interpreter's sys.path, without the
    directory it was started in.
    """

    python: Path
    prefix: Path
    version: str
    virtual: bool
    purelib: Path
    platlib: Path
    writable: bool
    externally_managed: str | None
    has_pip: bool
    markers: Mapping[str, str]
    paths: tuple[Path, ...]

    @property
    def current(self) -> bool:
        """Whether this is the environment of the running program."""
        return self.prefix == Path(sys.prefix)

    def distribution(self, name: str) -> Distribution | None:
        """What is installed under `name` (any spelling), or None. Nothing is started; a few milliseconds."""
        from packaging.utils import canonicalize_name

        if not (found := self._found(name)):
            return None
        text = _read(found[0], "METADATA", "PKG-INFO", "") or ""
        headers = email.message_from_string(text.partition("\n\n")[0])  # the description can be long
        version, requires = str(headers.get("Version", "")), tuple(map(str, headers.get_all("Requires-Dist", ())))
        editable, location, broken = read_direct_url(_read(found[0], "direct_url.json"))
        if not version:
            broken = "its metadata is missing or damaged"
        elif len(found) > 1:
            broken = f"{len(found)} versions of it are installed side by side"
        return Distribution(canonicalize_name(name), version, editable, location, requires, broken)

    @property
    def installer(self) -> str:
        """What installed SGLang or FlashInfer (the file INSTALLER, PEP 376): uv, pip or another; empty for neither."""
        found = [one for name in ("sglang", "flashinfer-python", "flashinfer") for one in self._found(name)]
        return next((text.strip() for one in found if (text := _read(one, "INSTALLER"))), "")

    def copies(self, name: str) -> int:
        """How many versions of it are in the same directory: more than one after an interrupted installation."""
        return len(self._found(name))

    def _found(self, name: str) -> list[importlib.metadata.Distribution]:
        found = list(importlib.metadata.Distribution.discover(name=name, path=[str(path) for path in self.paths]))
        return [one for one in found if one.locate_file("") == found[0].locate_file("")]


def _read(found: importlib.metadata.Distribution, *names: str) -> str | None:
    """The first of the files that is not empty; None where none exists, and "" where one cannot be read."""
    try:
        texts = [text for text in map(found.read_text, names) if text is not None]
        return next(filter(None, texts), "" if texts else None)
    except (OSError, ValueError):  # not UTF-8, for example
        return ""


def read_direct_url(text: str | None) -> tuple[bool, Path | None, str]:
    """Whether direct_url.json (PEP 610; None for no file) says editable, from which directory, and what is wrong."""
    from packaging.direct_url import DirectUrl, DirectUrlValidationError

    if text is None:
        return False, None, ""
    try:
        direct = DirectUrl.from_dict(json.loads(text))
        url = urlsplit(direct.url)
        path = unquote(url.path, errors="strict")
        if "\0" in path:
            raise ValueError("its URL holds a zero byte")
    except (ValueError, TypeError, AttributeError, RecursionError, DirectUrlValidationError) as error:
        return False, None, f"its direct_url.json is damaged: {str(error)[:200]}"
    return bool(direct.dir_info and direct.dir_info.editable), Path(path) if url.scheme == "file" else None, ""


def probe(python: Path | None = None, timeout: float = 30) -> Environment:
    """The environment of an interpreter, or of a virtual environment's directory; by default the running one, for
    which nothing is started.

    Raises UsageError if `python` is no Python, or does not answer within `timeout` seconds.
    """
    own = Path(os.path.abspath(sys.executable))  # noqa: PTH100 - not resolved: a venv's python is a symbolic link
    path = Path(os.path.abspath(python)) if python else own  # noqa: PTH100
    if path.is_dir():
        path = path / "bin" / "python"
    known = facts.facts() if path == own else _ask(path, timeout)
    try:
        places: dict[str, Any] = {key: Path(known.pop(key)) for key in ("prefix", "purelib", "platlib")}
        return Environment(python=path, paths=tuple(map(Path, known.pop("paths"))), **places, **known)
    except (KeyError, TypeError) as error:
        raise _no_python(path, f"its answer is not understood: {error}") from None


def _ask(python: Path, timeout: float) -> dict[str, Any]:
    token = secrets.token_hex(8)
    code = _SAFE_PATH + Path(facts.__file__).read_text(encoding="utf-8")
    try:
        done = processes.run([python, "-c", code, token], timeout=timeout)
    except OSError as error:
        raise _no_python(python, error.strerror or str(error)) from None
    output = done.output.decode(errors="replace")
    try:
        known = json.loads(output.rpartition(f"\n{token}")[2] if f"\n{token}" in output else "")
    except (ValueError, RecursionError):
        known = None
    if isinstance(known, dict):
        return known
    lines = (done.errors.decode(errors="replace") + output).strip().splitlines()
    raise _no_python(python, done.ended or (lines or ["no answer"])[-1][:200])


def _no_python(python: Path, why: str) -> UsageError:
    return UsageError(
        f"{python} is not a Python interpreter of version 3.8 or newer: {why}",
        "--python takes the path of a Python interpreter, such as .venv/bin/python",
    )


def import_check(environment: Environment, module: str, folder: Path, timeout: float = 300) -> tuple[bool, str]:
    """Import `module` in a fresh interpreter of the environment, and check that it came from within `folder`.

    The interpreter starts in an empty directory and does not search it, so a directory that happens to have the
    module's name is not taken for it. Returns whether all is well, and the version and file or what went wrong (the
    last line of the traceback). `timeout` is in seconds.
    """
    token = secrets.token_hex(8)
    code = (
        f"{_SAFE_PATH}import importlib, json, os; m = importlib.import_module(sys.argv[1]); "
        f"print('\\n{token}' + json.dumps([getattr(m, '__file__', None), str(getattr(m, '__version__', ''))])); "
        "sys.stdout.flush(); os._exit(0)"  # without the seconds that big libraries take to close down
    )
    try:
        with tempfile.TemporaryDirectory() as empty:
            done = processes.run([environment.python, "-c", code, module], cwd=Path(empty), timeout=timeout)
    except OSError as error:
        return False, f"{environment.python}: {error.strerror or error}"
    output = done.output.decode(errors="replace")
    if token in output:
        return _came_from(folder, *json.loads(output.rpartition(token)[2].partition("\n")[0]))
    if done.ended:
        return False, f"did not finish within {timeout:g} s"
    lines = done.errors.decode(errors="replace").split("\n") if done.status >= 0 else []
    words = [line.strip() for line in lines if line.strip()]
    return False, words[-1] if words else f"the interpreter ended with status {done.status}"


def _came_from(folder: Path, file: str | None, version: str) -> tuple[bool, str]:
    if file is None:
        return False, "imports only as a namespace package: a directory of that name without the package in it"
    if not Path(file).resolve().is_relative_to(folder.resolve()):
        return False, f"imported from {file}, which is not in {folder}"
    return True, f"{version} from {file}".strip()
