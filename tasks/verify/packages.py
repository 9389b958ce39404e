"""Checks of what is installed in an environment: whether it comes from the checkouts, and can be imported."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, canonicalize_version

from ..errors import SourcesError, examples
from ..models import Check
from ..names import redact, shell
from ..packages import Environment, Package, missing_requirements, names
from . import machine

MATCH = "invoke setup --flashinfer-branch=matching"
REINSTALL = "invoke install --reinstall"
TIMEOUT = 300.0  # seconds for an import
LONGEST = 300  # characters of an error
IMPORT = """
import importlib, json, os, sys
sys.path[:] = filter(None, sys.path)  # as `python -P` does from Python 3.11 on
module, error = None, ""
try:
    module = importlib.import_module(sys.argv[1])
except BaseException as raised:
    error = f"{type(raised).__name__}: {raised}"
answer = [error, getattr(module, "__file__", None), str(getattr(module, "__version__", ""))]
print("", json.dumps(answer), sep="\\n", flush=True)
os._exit(0)  # without the seconds that large libraries take to shut down
"""


def check_package(
    package: Package, packages: Sequence[Package], environment: Environment, overrides: Sequence[str], *, gpu: bool
) -> Iterator[Check]:
    """Check that the package is installed from its checkout, in its version and with its requirements, of which those
    in `overrides` replace others, and can be imported; where a `gpu` can be used, SGLang's compiled kernels, too, which
    `import sglang` does not load. `packages` are all that come from checkouts."""
    ours, installed = names(packages), environment.distribution(package.name)
    if not installed:
        missing = f"{package.name} is not installed in {environment.prefix}"
        yield Check("installed", "fail", missing, command="invoke install")
        return
    source = f"editable from {installed.location}" if installed.editable else "a release from an index, not editable"
    detail = installed.broken or f"{installed.version}, {source}"
    if not package.is_checkout(installed):
        detail += f"; the checkout is {package} in {package.folder}"
        yield Check("installed", "fail", detail, command="invoke install")
    elif installed.version.startswith("0.0.0"):
        hint = f"The checkout has no tag of a release: fetch upstream's, then run `{REINSTALL}`."
        yield Check("installed", "warn", detail, hint)
    else:
        yield Check("installed", "pass", detail)
    try:
        unmet = missing_requirements(environment, installed, package.repository.extras, overrides)
        pins = {one: version for one, version in unmet.items() if canonicalize_name(one.name) in ours}
        others = {one: version for one, version in unmet.items() if one not in pins}
        yield _unmet("requirements", others, "invoke install")
        yield _unmet("pins", pins, MATCH)
    except SourcesError as error:
        yield Check("requirements", "fail", error.what, error.hint, REINSTALL)
    if unfitting := package.unfitting(environment):
        detail = f"not of version {package.version}: {examples(unfitting)}"
        yield Check("companions", "fail", detail, command="invoke install")
    yield Import("imports", environment, package.module, package.folder, installed.version).check()
    if package.repository.name == "sglang" and gpu:
        if any((path / "sgl_kernel").is_dir() for path in environment.paths):
            yield Import("sgl_kernel", environment, "sgl_kernel").check()
        else:
            yield Check("sgl_kernel", "skip", "not installed")


def _unmet(name: str, unmet: Mapping[Requirement, str], command: str) -> Check:
    shown = [f"{redact(str(one))} (installed: {version or 'none'})" for one, version in unmet.items()]
    if shown:
        return Check(name, "warn", f"not met: {examples(shown)}", command=command)
    return Check(name, "pass", "all met")


@dataclass(frozen=True)
class Import:
    """The check `name`: whether `module` can be imported, from within `folder` and in the installed `version`, where
    these are given."""

    name: str
    environment: Environment
    module: str
    folder: Path | None = None
    version: str = ""

    def check(self) -> Check:
        """Import it. A failure names the variable without which the import works, or else what may help."""
        check = self.attempt(os.environ)
        if check.status == "pass":
            return check
        suspects = sorted(name for name in os.environ if name == "PYTHONPATH" or name.startswith("FLASHINFER_"))
        changes = {shell("unset", name): _without(name) for name in suspects}
        changes["export PYTHONNOUSERSITE=1"] = {**os.environ, "PYTHONNOUSERSITE": "1"}
        for command, environ in changes.items():
            if self.attempt(environ).status == "pass":
                return replace(check, hint="", command=command)
        return check

    def attempt(self, environ: Mapping[str, str]) -> Check:
        """Import it with these environment variables, in an interpreter of its own."""
        done = machine.run([self.environment.python, "-c", IMPORT, self.module], TIMEOUT, cwd="/", env=environ)
        try:
            error, file, version = json.loads(done.stdout.splitlines()[-1])
        except (IndexError, ValueError, TypeError):
            last = done.stderr.strip().splitlines()[-1:]
            return self.own_fault(": ".join([f"the interpreter ended with status {done.returncode}", *last]))
        if error:
            symbols = [line.strip() for line in error.splitlines() if "undefined symbol" in line]
            problem = (symbols or [" ".join(error.split())])[0][:LONGEST]
            if error != f"ModuleNotFoundError: No module named '{self.module}'":
                return self.own_fault(problem)
        elif file is None:
            problem = "imports only as a namespace package: a directory of that name without the package in it"
        elif self.folder and not Path(file).resolve().is_relative_to(self.folder.resolve()):
            problem = f"imported from {file}, which is not in {self.folder}"
        elif self.version and version and _without_local(version) != _without_local(self.version):
            problem = f"imports as {version}, but {self.version} is installed"
        else:
            return Check(self.name, "pass", f"{version} from {file}".strip())
        return Check(self.name, "fail", problem, command=REINSTALL) if self.folder else self.own_fault(problem)

    def own_fault(self, problem: str) -> Check:
        """The check where installing the package again changes nothing."""
        hint = f"`{shell(self.environment.python, '-c', f'import {self.module}')}` shows the traceback."
        home = Path(os.environ.get("HOME") or "/")
        if not os.access(home, os.W_OK | os.X_OK):
            hint = f"HOME ({home}) cannot be written: set it, or FLASHINFER_WORKSPACE_BASE, to a directory that can be."
        return Check(self.name, "fail", problem, hint)


def _without(variable: str) -> dict[str, str]:
    """The environment variables without one."""
    return {name: value for name, value in os.environ.items() if name != variable}


def _without_local(version: str) -> str:
    """A version without its local part (PEP 440)."""
    return canonicalize_version(version).partition("+")[0]
