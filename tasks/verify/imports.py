"""Imports in fresh interpreters of the verified environment, and what a failure is due to."""

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
class Imported:
    """What came of an import: `detail`, and whether it `worked`. `missing` is a module that was not found;
    `replaceable` says that installing the package again makes a difference."""

    detail: str
    worked: bool = False
    missing: str = ""
    replaceable: bool = False


@dataclass(frozen=True)
class Import:
    """An import of `module`, which should come from within `folder` and be the installed `version`, where given."""

    environment: Environment
    module: str
    folder: Path | None = None
    version: str = ""

    def check(self, name: str, fix: str) -> tuple[Check, str]:
        """The check `name` of this import, and which other module is missing. A failure names the variable that causes
        it, or `fix`, the command that installs the package again, where that makes a difference."""
        imported = self.run(os.environ)
        if imported.worked:
            return Check(name, "pass", imported.detail), ""
        if command := self.cause():
            return Check(name, "fail", imported.detail, command=command), ""
        if imported.replaceable:
            return Check(name, "fail", imported.detail, command=fix), ""
        home = Path(os.environ.get("HOME") or "/")
        hint = f"`{shell(self.environment.python, '-c', f'import {self.module}')}` shows the traceback."
        if not os.access(home, os.W_OK | os.X_OK):
            hint = f"HOME ({home}) cannot be written: set it, or FLASHINFER_WORKSPACE_BASE, to a directory that can be."
        return Check(name, "fail", imported.detail, hint), imported.missing

    def cause(self) -> str:
        """The command that changes the variable without which the import works; empty where none is to blame."""
        suspects = sorted(name for name in os.environ if name == "PYTHONPATH" or name.startswith("FLASHINFER_"))
        changes = {shell("unset", name): {**os.environ, name: None} for name in suspects}
        if not self.environment.virtual:
            changes["export PYTHONNOUSERSITE=1"] = {**os.environ, "PYTHONNOUSERSITE": "1"}
        if not changes or not self.run({**os.environ, **dict.fromkeys(suspects), "PYTHONNOUSERSITE": "1"}).worked:
            return ""
        working = (command for command, environ in changes.items() if self.run(environ).worked)
        return next(working, shell("unset", *suspects))

    def run(self, environ: Mapping[str, str | None]) -> Imported:
        """Import with these variables (None: unset), in a directory where nothing has the name of a module."""
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, "answer.json")
            argv: list[str | Path] = [self.environment.python, "-c", CODE, self.module, file]
            variables = {name: text for name, text in environ.items() if text is not None}
            done = machine.run(argv, TIMEOUT, cwd=directory, env=variables)
            try:
                answer = json.loads(file.read_bytes())
            except (OSError, ValueError):
                last = done.stderr.strip().splitlines()[-1:]
                return Imported(": ".join([f"the interpreter ended with status {done.returncode}", *last]))
        if "error" in answer:
            first, *more = [line.strip() for line in answer["error"].splitlines() if line.strip()]
            symbols = [line for line in more if "undefined symbol" in line]
            missing = answer["missing"] or ""
            return Imported(" ".join([first, *(symbols or more)[:1]]), False, missing, missing == self.module)
        path, version = answer["file"], answer["version"]
        if path is None:
            problem = "imports only as a namespace package: a directory of that name without the package in it"
        elif self.folder and not Path(path).resolve().is_relative_to(self.folder.resolve()):
            problem = f"imported from {path}, which is not in {self.folder}"
        elif self.version and version and not _same(version, self.version):
            problem = f"imports as {version}, but {self.version} is installed"
        else:
            return Imported(f"{version} from {path}".strip(), worked=True)
        return Imported(problem, replaceable=True)


def _same(version: str, other: str) -> bool:
    """Whether two versions differ in their local parts at most (PEP 440)."""
    try:
        return Version(version).public == Version(other).public
    except InvalidVersion:
        return version == other
