"""Runs the reference tests of trace data against FlashInfer's kernels, with the verified environment's pytest."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from .. import processes
from ..errors import UsageError
from ..models import Check, Reporter
from ..packages import Environment
from .machine import JOB, activated, add_command, available_memory, limited_jobs, wanted_jobs

SILENCE = 1800.0  # seconds without a finished test, as the first one compiles its kernel
PLUGIN = Path(__file__).with_name("kernels_plugin.py")
NOTHING = "no test ran against a kernel of FlashInfer"
SHOWN = 200  # characters of a reason
NO_TESTS = 5  # pytest's exit status where none ran, as when the file skips them all
WRITTEN = (0, 1, 2, NO_TESTS)  # the exit statuses with which pytest has written its XML to the end


@dataclass
class Result:
    """How the tests of one definition ended. `cases` are those that kernels_plugin.py reported, `problem` is what went
    wrong beside them, `seconds` is wall time, `junit` what pytest wrote of them as XML, empty after a crash."""

    name: str
    total: int = 0
    running: str = ""
    problem: str = ""
    seconds: float = 0.0
    cases: dict[str, dict[str, Any]] = field(default_factory=dict)
    unread: bytes = b""
    junit: bytes = b""

    def of(self, outcome: str) -> list[dict[str, Any]]:
        """The cases that `passed`, `failed` or were `skipped`."""
        return [case for case in self.cases.values() if case["outcome"] == outcome]

    @property
    def on_gpu(self) -> int:
        """How many cases ran a kernel: they passed, and used GPU memory after FlashInfer was imported."""
        return sum(case["on_gpu"] for case in self.of("passed"))

    def read(self, token: bytes, block: bytes) -> None:
        """Take in what the plugin wrote."""
        *lines, self.unread = (self.unread + block).split(b"\n")
        for line in lines:
            if line.startswith(token):
                reported = json.loads(line[len(token) :])
                self.total = reported.get("total", self.total)
                self.running = reported.get("started", self.running).rpartition("::")[2]
                if "case" in reported:
                    self.cases[reported["case"]] = reported

    def check(self, command: str) -> Check:
        """The check of this definition; `command` runs its tests alone."""
        counts = [f"{len(self.of(how))} {how}" for how in ("passed", "failed", "skipped") if self.of(how)]
        if skips := Counter(case["reason"] for case in self.of("skipped")):
            counts[-1] += f" ({_short(skips.most_common(1)[0][0])})"
        ratios = [case["ratio"] for case in self.cases.values() if case["ratio"] is not None]
        error = [f"largest error {max(ratios):.2f} of what is allowed"] if ratios else []
        figures = ", ".join([*counts, f"{self.seconds:.0f} s", *error])
        failed = [f"{case['case'].rpartition('::')[2]}: {_short(case['reason'])}" for case in self.of("failed")][:1]
        name = f"kernels: {self.name}"
        if self.problem or failed:
            return Check(name, "fail", "; ".join(filter(None, (figures, self.problem, *failed))), command=command)
        if not self.on_gpu:
            return Check(name, "skip", f"{NOTHING}: {figures}")
        return Check(name, "pass", figures)


def run_kernels(
    trace: Path, environment: Environment, reporter: Reporter, *, only: Sequence[str] = (), jobs: int | None = None,
    junit: Path | None = None, silence: float = SILENCE,
) -> list[Check]:  # fmt: skip
    """Run the reference test of each definition in `trace`, each in its own process, several at once.

    `only` names definitions or op types; `*` and `?` match as in a shell. `jobs` limits the compile jobs at a time; the
    default is what fits into memory, at most `MAX_JOBS`. `junit` is a file to write, in JUnit's XML. A process that
    reports no test for `silence` seconds is ended.

    Returns `kernels: NAME` for each definition, and `kernels: total`, which fails where no test ran a kernel. Raises
    UsageError where `only` names nothing, and OSError where `junit` cannot be written.
    """
    trace, began = trace.absolute(), time.monotonic()
    names = _select(trace, only)
    if not environment.distribution("pytest"):
        missing = f"pytest is not installed in {environment.prefix}"
        return [Check("kernels: total", "fail", missing, command=add_command(environment, "pytest"))]
    if junit:
        junit.parent.mkdir(parents=True, exist_ok=True)
        junit.touch()
    jobs = jobs or max(1, min(available_memory() // JOB, wanted_jobs(os.environ)))
    at_once = max(1, min(jobs, len(names)))
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // at_once))}  # torch's, of each process
    usual = {**threads, **activated(environment, os.environ)}
    with limited_jobs(usual, jobs, at_once) as environ, ThreadPoolExecutor(at_once) as pool:
        try:
            results = list(pool.map(lambda name: _run(trace, name, environment, environ, reporter, silence), names))
        except BaseException:
            processes.stop_all()
            raise
    if junit:
        _write_junit(junit, results)
    ran = sum(result.on_gpu for result in results)
    found = environment.distribution("flashinfer-python")
    detail = f"{ran} tests ran kernels of FlashInfer {found.version if found else ''}".rstrip() if ran else NOTHING
    detail += f", {time.monotonic() - began:.0f} s, up to {at_once} at once"
    hint = "" if ran else "Each definition above says why; kernels need a GPU, torch and FlashInfer."
    checks = [result.check(shlex.join(_pytest(environment, trace, result.name))) for result in results]
    return [*checks, Check("kernels: total", "pass" if ran else "fail", detail, hint)]


def _select(trace: Path, only: Sequence[str]) -> list[str]:
    """The names of the chosen definitions."""
    op_types = {file.stem: file.parent.name for file in sorted(trace.glob("definitions/*/*.json"))}
    chosen = set[str]() if only else {*op_types}
    for pattern in only:
        matching = {name for name, op in op_types.items() if fnmatchcase(name, pattern) or fnmatchcase(op, pattern)}
        if not matching:
            known = ", ".join(dict.fromkeys([*op_types.values(), *op_types]))
            raise UsageError(f"{trace} has no definition or op type {pattern}", f"There are: {known or 'none'}.")
        chosen |= matching
    return [name for name in op_types if name in chosen]


def _pytest(environment: Environment, trace: Path, name: str) -> list[str]:
    file = trace / "tests" / "references" / f"test_{name}.py"
    return [str(environment.python), "-m", "pytest", "-p", "no:cacheprovider", str(file)]


def _run(
    trace: Path, name: str, environment: Environment, environ: Mapping[str, str], reporter: Reporter, silence: float
) -> Result:
    result, token, began = Result(name), secrets.token_hex(8), time.monotonic()

    def read(block: bytes) -> None:
        result.read(token.encode(), block)
        share = len(result.cases) / result.total if result.total else None
        doing = f"{len(result.cases)} of {result.total} tests" if result.running else "starting"
        reporter.progress(name, doing, share, 0, 0.0)

    with tempfile.TemporaryDirectory() as directory:
        plugin, xml, ini = shutil.copy(PLUGIN, directory), Path(directory, "junit.xml"), Path(directory, "pytest.ini")
        ini.write_text("[pytest]\n", encoding="utf-8")  # empty: no configuration around the trace directory counts
        options = ("-p", Path(plugin).stem, f"--junitxml={xml}", "-o", f"junit_suite_name={name}", "-c", str(ini))
        path = os.pathsep.join(filter(None, (directory, environ.get("PYTHONPATH"))))
        variables = {"KERNELS_TOKEN": token, "PYTHONPATH": path, "PYTEST_ADDOPTS": "", "PYTHONDONTWRITEBYTECODE": "1"}
        done = processes.run(
            [*_pytest(environment, trace, name), *options, f"--rootdir={trace}", f"--confcutdir={trace}"],
            cwd=Path(directory), env={**environ, **variables}, silence=silence, on_errors=read,
        )  # fmt: skip
        result.junit = xml.read_bytes() if done.status in WRITTEN and xml.exists() else b""
    result.seconds = time.monotonic() - began
    result.problem = _problem(result, done, token)
    reporter.event(name, result.check("").detail)
    return result


def _problem(result: Result, done: processes.Completed, token: str) -> str:
    """What went wrong beside failed tests, empty for nothing."""
    during = f" in {result.running}" if result.running else ""
    if done.ended:
        return f"ended{during}: {done.ended}"
    if done.status < 0:
        return f"crashed with {signal.Signals(-done.status).name}{during}"
    if len(result.cases) < result.total:
        return f"ended with status {done.status}{during}"
    if done.status and not result.of("failed") and (done.status != NO_TESTS or not result.cases):
        printed = (done.errors + b"\n" + done.output).decode(errors="replace").splitlines()
        lines = [line.strip("= ") for line in printed if token not in line]
        return next((line for line in lines if line.startswith("ERROR: ")), ["no output", *filter(None, lines)][-1])
    return ""


def _write_junit(file: Path, results: Sequence[Result]) -> None:
    """Write pytest's reports on all definitions as one document, with an error for what went wrong beside the tests."""
    root = ElementTree.Element("testsuites")
    for result in results:
        if result.junit:
            root.extend(ElementTree.fromstring(result.junit))  # noqa: S314 - written by pytest
        if result.problem or not result.junit:
            message = "".join(filter(str.isprintable, result.problem))  # XML holds no control characters
            suite = ElementTree.SubElement(root, "testsuite", name=result.name, tests="1", errors="1")
            case = ElementTree.SubElement(suite, "testcase", classname=result.name, name=result.running)
            ElementTree.SubElement(case, "error", message=message)
    ElementTree.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)


def _short(text: str) -> str:
    """The first line of a reason, with a compiler's first error, which FlashInfer shows after the whole command."""
    lines = text.strip().splitlines() or [""]
    error = next((line.strip() for line in lines[1:] if re.search(r"\berror: |\bfatal *: |: not found$", line)), "")
    return " ".join(line if len(line) <= SHOWN else f"{line[:SHOWN]}..." for line in (lines[0], error) if line)
