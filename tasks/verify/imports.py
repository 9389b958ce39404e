"""Imports packages in fresh interpreters of the verified environment, and finds out what a failure is due to."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.version import InvalidVersion, Version

from ..models import Check
from ..names import shell
from ..packages import Environment
from . import machine

TIMEOUT = 300.0  # seconds
REINSTALL = "invoke install --reinstall"
CODE = """
import importlib, json, os, sys
sys.path[:] = filter(None, sys.path)  # as `python -P` does from Python 3.11 on
try:
    module = importlib.import_module(sys.argv[1])
    answer = {"file": getattr(module, "__file__", None), "version": str(getattr(module, "__version__", ""))}
except BaseException as error:
    missing = error.name if isinstance(error, ModuleNotFoundError) else ""
    answer = {"error": f"{type(error).__name__}: {error}", "missing": missing}
with open(sys.argv[2], "w") as file:
    json.dump(answer, file)
os._exit(0)  # without the seconds that large libraries take to shut down
"""


@dataclass(frozen=True)
class Expected:
    """What an import should give: `module` from within `folder`, in the installed `version`; empty is not compared."""

    module: str
    folder: Path | None = None
    version: str = ""


@dataclass(frozen=True)
class Imported:
    """What came of it. `problem` is empty where it is as expected, `missing` names a module that was not found, and
    `replaceable` says that an installation of the package would make a difference."""

    detail: str
    problem: str = ""
    missing: str = ""
    replaceable: bool = False


def check_import(name: str, expected: Expected, environment: Environment, fix: str = REINSTALL) -> tuple[Check, str]:
    """Import a module, and on failure find the variable that causes it. Returns the check, and which module is missing.

    `fix` is the command that installs the package again, and is named only where that makes a difference.
    """
    imported = import_module(environment, expected, os.environ)
    if not imported.problem:
        return Check(name, "pass", imported.detail), ""
    if command := _cause(environment, expected):
        return Check(name, "fail", imported.problem, command=command), ""
    home = Path(os.environ.get("HOME") or "/")
    if not (home.is_dir() and os.access(home, os.W_OK)) and "Error" in imported.problem:
        hint = f"HOME ({home}) cannot be written: set it, or FLASHINFER_WORKSPACE_BASE, to a directory that can be."
        return Check(name, "fail", imported.problem, hint), imported.missing
    if imported.replaceable:
        return Check(name, "fail", imported.problem, command=fix), ""
    trace = shell(environment.python, "-c", f"import {expected.module}")
    return Check(name, "fail", imported.problem, f"`{trace}` shows the traceback."), imported.missing


def import_module(environment: Environment, expected: Expected, environ: Mapping[str, str]) -> Imported:
    """Import a module with these variables, in a directory where nothing has the name of a module."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "answer.json")
        argv = [environment.python, "-c", CODE, expected.module, file]
        done = machine.run(argv, TIMEOUT, cwd=directory, env=environ)
        try:
            answer = json.loads(file.read_bytes())
        except (OSError, ValueError):
            ended = done.stderr.strip().splitlines() or ["no message"]
            return Imported("", f"the interpreter ended with status {done.returncode}: {ended[-1]}")
    if "error" in answer:
        lines = [line.strip() for line in answer["error"].splitlines() if line.strip(" :")]
        symbol = [line for line in lines[1:] if "undefined symbol" in line]
        missing = answer["missing"] or ""
        return Imported("", " ".join([*lines[:2], *symbol[:1]][:3]), missing, missing == expected.module)
    path, version = answer["file"], answer["version"]
    if path is None:
        return Imported("", "imports only as a namespace package, without its files", "", True)
    if expected.folder and not Path(path).resolve().is_relative_to(expected.folder.resolve()):
        return Imported("", f"imported from {path}, which is not in {expected.folder}", "", True)
    if expected.version and version and not _same(version, expected.version):
        return Imported("", f"imports as {version}, but {expected.version} is installed", "", True)
    return Imported(f"{version} from {path}".strip())


def _cause(environment: Environment, expected: Expected) -> str:
    """The command that undoes the setting without which the import works; empty where none is to blame."""
    suspects = sorted(name for name in os.environ if name == "PYTHONPATH" or name.startswith("FLASHINFER_"))
    changes = {shell("unset", name): {key: text for key, text in os.environ.items() if key != name} for name in suspects}
    if not environment.virtual:
        changes["export PYTHONNOUSERSITE=1"] = {**os.environ, "PYTHONNOUSERSITE": "1"}
    clean = {name: text for name, text in os.environ.items() if name not in suspects} | {"PYTHONNOUSERSITE": "1"}
    if not changes or import_module(environment, expected, clean).problem:
        return ""
    working = (command for command, environ in changes.items() if not import_module(environment, expected, environ).problem)
    return next(working, shell("unset", *suspects))


def _same(version: str, other: str) -> bool:
    """Whether two versions differ in their local parts at most (PEP 440)."""
    try:
        return Version(version).public == Version(other).public
    except InvalidVersion:
        return version == other
