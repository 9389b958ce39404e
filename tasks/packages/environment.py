"""An environment that packages are installed into: what it is, what is installed there, and what it imports."""

from __future__ import annotations

import email
import importlib.metadata
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import UsageError
from . import facts

_ANSWER = 1_000_000  # bytes that an interpreter may say before it is none
_SAFE_PATH = "import sys; sys.path[:] = filter(None, sys.path)\n"  # what `python -P` does, from before it was there


@dataclass(frozen=True)
class Distribution:
    """An installed distribution, as its metadata has it (PEP 376 and 566; `editable` and `location` by PEP 610).

    `name` is normalized. `broken` says why what was found cannot be trusted: empty where it can.
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

    `externally_managed` is the message of PEP 668, or None. `paths` is the interpreter's sys.path, without the folder
    it was started in.
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
        broken = f"{len(found)} versions of it are installed side by side" if len(found) > 1 else ""
        try:
            text = next(filter(None, map(found[0].read_text, ("METADATA", "PKG-INFO", ""))), "")
        except (OSError, ValueError):
            text = ""
        headers = email.message_from_string(text.partition("\n\n")[0])  # what follows can be long, and is not needed
        version, requires = headers.get("Version", ""), tuple(headers.get_all("Requires-Dist", ()))
        broken = broken if version else "its metadata is missing or damaged"
        editable, location, note = _direct_url(found[0].read_text("direct_url.json"))
        return Distribution(canonicalize_name(name), version, editable, location, requires, broken or note)

    def copies(self, name: str) -> int:
        """How many versions of it lie in the same folder: more than one after an installation was broken off."""
        return len(self._found(name))

    def _found(self, name: str) -> list[importlib.metadata.Distribution]:
        found = list(importlib.metadata.Distribution.discover(name=name, path=[str(path) for path in self.paths]))
        return [one for one in found if one.locate_file("") == found[0].locate_file("")]


def _direct_url(text: str | None) -> tuple[bool, Path | None, str]:
    """Whether it is editable, the folder that was installed, and what is wrong with the file."""
    from packaging.direct_url import DirectUrl, DirectUrlValidationError

    if text is None:
        return False, None, ""
    try:
        direct = DirectUrl.from_dict(json.loads(text))
    except (ValueError, TypeError, AttributeError, RecursionError, DirectUrlValidationError) as error:
        return False, None, f"its direct_url.json is damaged: {str(error)[:200]}"
    url = urlsplit(direct.url)
    location = Path(unquote(url.path)) if url.scheme == "file" else None
    return bool(direct.dir_info and direct.dir_info.editable), location, ""


def probe(python: Path | None = None, timeout: float = 30) -> Environment:
    """The environment of an interpreter, or of a virtual environment's folder; of the running one, nothing is started.

    Raises UsageError where `python` is no Python, or does not answer within `timeout` seconds.
    """
    own = Path(os.path.abspath(sys.executable))  # noqa: PTH100 - not resolved: a venv's python is a symbolic link
    path = Path(os.path.abspath(python)) if python else own  # noqa: PTH100
    if path.is_dir():
        path = path / "bin" / "python"
    known = facts.facts() if path == own else _ask(path, timeout)
    places: dict[str, Any] = {key: Path(known.pop(key)) for key in ("prefix", "purelib", "platlib")}
    return Environment(python=path, paths=tuple(map(Path, known.pop("paths"))), **places, **known)


def _ask(python: Path, timeout: float) -> dict[str, Any]:
    token = secrets.token_hex(8)
    code = _SAFE_PATH + Path(facts.__file__).read_text(encoding="utf-8")
    fix = "--python takes the path of a Python interpreter, such as .venv/bin/python"
    try:
        process = subprocess.Popen(
            [python, "-c", code, token], start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except OSError as error:
        raise UsageError(f"{python}: {error.strerror or error}", fix) from None
    with process:
        assert process.stdout is not None
        timer = threading.Timer(timeout, lambda: os.killpg(process.pid, signal.SIGKILL))
        timer.start()
        said = process.stdout.read(_ANSWER).decode(errors="replace")
        timer.cancel()
        process.kill()
    if f"\n{token}" not in said:
        why = (said.strip().splitlines() or [f"no answer in {timeout:g} s"])[-1][:200]
        raise UsageError(f"{python} is not a Python interpreter of version 3.8 or newer: {why}", fix)
    return dict(json.loads(said.rpartition(f"\n{token}")[2]))


def import_check(environment: Environment, module: str, folder: Path, timeout: float = 300) -> tuple[bool, str]:
    """Import `module` for real, in a fresh interpreter of the environment, and see that it came from within `folder`.

    The interpreter starts in an empty folder and does not look there, so a folder that happens to bear the module's
    name is not taken for it. Returns whether all is well, and the version and file or what went wrong (the last line
    of the traceback). `timeout` is in seconds.
    """
    token = secrets.token_hex(8)
    code = (
        f"{_SAFE_PATH}import importlib, json, os; m = importlib.import_module(sys.argv[1]); "
        f"print('\\n{token}' + json.dumps([getattr(m, '__file__', None), str(getattr(m, '__version__', ''))])); "
        "sys.stdout.flush(); os._exit(0)"  # without the seconds that big libraries take to close down
    )
    try:
        with tempfile.TemporaryDirectory() as empty:
            done = subprocess.run(
                [environment.python, "-c", code, module],
                check=False, cwd=empty, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout,
            )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False, f"did not finish within {timeout:g} s"
    except OSError as error:
        return False, f"{environment.python}: {error.strerror or error}"
    said = done.stdout.decode(errors="replace")
    if token in said:
        return _came_from(folder, *json.loads(said.rpartition(token)[2]))
    lines = done.stderr.decode(errors="replace").split("\n") if done.returncode >= 0 else []
    words = [line.strip() for line in lines if line.strip()]
    return False, words[-1] if words else f"the interpreter ended with status {done.returncode}"


def _came_from(folder: Path, file: str | None, version: str) -> tuple[bool, str]:
    if file is None:
        return False, "imports only as a namespace package: a folder of that name without the package in it"
    if not Path(file).resolve().is_relative_to(folder.resolve()):
        return False, f"imported from {file}, which is not in {folder}"
    return True, f"{version} from {file}".strip()
