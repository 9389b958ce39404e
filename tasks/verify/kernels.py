"""Runs the reference tests of trace data against FlashInfer's kernels: one pytest of the verified environment."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from xml.etree import ElementTree

from invoke.context import Context

from ..errors import Interrupted, UsageError
from ..models import Check, Reporter
from ..names import shell
from ..packages import Environment
from . import machine

USED = "gpu_allocations"  # the property with which tests say whether they used the GPU (flashinfer_trace/tests)
SHOWN = 200  # characters of a reason
TAIL = 2000  # characters in which pytest says how it ended


@dataclass(frozen=True)
class Case:
    """One test: its outcome (passed, failed, skipped), why it did not pass, and the properties that it recorded.
    `modules` are the parts of its module's name, also where the test is inherited from a class of another file."""

    modules: Sequence[str]
    name: str
    outcome: str
    reason: str
    seconds: float
    properties: Mapping[str, float]

    @property
    def on_gpu(self) -> bool:
        """Whether it passed and used GPU memory after FlashInfer was imported: a kernel ran."""
        return self.outcome == "passed" and self.properties.get(USED, 0) > 0


def run_kernels(
    c: Context, trace: Path, environment: Environment, reporter: Reporter, *, only: Sequence[str] = (),
    junit: Path | None = None,
) -> list[Check]:  # fmt: skip
    """Run the reference tests in `trace`, on several processes where pytest-xdist is installed in the environment.

    `only` names definitions or op types; `*` and `?` match as in a shell. `junit` is a file to write, in JUnit's XML.
    Returns `kernels: NAME` for each file of tests, and `kernels: total`, which fails where no test ran a kernel. Raises
    UsageError where `only` names nothing, and OSError where `junit` cannot be written.
    """
    trace, began = trace.absolute(), time.monotonic()
    files = _select(trace, only)
    if not environment.distribution("pytest"):
        command = machine.add_command(environment, "pytest")
        return [Check("kernels: total", "fail", f"pytest is not installed in {environment.prefix}", command=command)]
    wanted, jobs = machine.wanted_jobs(os.environ), max(1, machine.available_memory() // machine.JOB)
    jobs = min(jobs, wanted) if "MAX_JOBS" in os.environ else jobs
    workers = min(jobs, wanted, len(files)) if environment.distribution("pytest-xdist") else 1
    with tempfile.TemporaryDirectory() as directory:
        xml = junit.absolute() if junit else Path(directory, "junit.xml")
        if not c.config.run.dry:
            xml.parent.mkdir(parents=True, exist_ok=True)
            xml.write_bytes(b"")
        ini = Path(directory, "pytest.ini")  # no configuration around the trace data counts
        ini.write_text("[pytest]\n")
        options = ["-c", str(ini), f"--rootdir={trace}", f"--confcutdir={trace}", f"--junitxml={xml}"]
        options += ["-p", "xdist", "-n", str(workers), "--dist", "loadfile"] if workers > 1 else []
        command = shell(*_pytest(environment), *options, *(file for file in files.values() if file.exists()))
        variables = {
            "PATH": machine.activated(environment, os.environ)["PATH"],
            "MAX_JOBS": str(max(1, jobs // max(1, workers))),  # of the ninja that each worker starts
            "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // max(1, workers))),  # torch's, of each worker
            "PYTEST_ADDOPTS": "",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        terminal = reporter.terminal()
        shown = {"pty": bool(terminal), "out_stream": terminal or sys.stderr}
        with c.cd(directory):  # where nothing has the name of a module
            done = c.run(command, warn=True, in_stream=False, env=variables, **shown)
        cases = _read(xml)
    if c.config.run.dry:
        return [Check("kernels: total", "skip", "not run (--dry)")]
    if "KeyboardInterrupt" in done.stdout[-TAIL:]:
        raise Interrupted("Interrupted.", "What is complete is kept.")
    lines = [line.strip("= ") for line in (done.stdout + done.stderr).splitlines() if line.strip("= ")]
    ended = f"{lines[-1] if lines else 'no output'} (status {done.exited})"
    checks = []
    for name, file in files.items():
        mine = [case for case in cases if file.stem in case.modules]
        checks.append(_check(f"kernels: {name}", mine, ended, shell(*_pytest(environment), file)))
    return [*checks, _total(cases, environment, f"{time.monotonic() - began:.0f} s, {workers} at once")]


def _select(trace: Path, only: Sequence[str]) -> dict[str, Path]:
    """The files with the tests of the chosen definitions, by the name of the definition or of its op type."""
    op_types = {file.stem: file.parent.name for file in sorted(trace.glob("definitions/*/*.json"))}
    chosen = dict[str, str]()
    for pattern in only or ["*"]:
        matching = {name: op for name, op in op_types.items() if fnmatchcase(name, pattern) or fnmatchcase(op, pattern)}
        if only and not matching:
            known = ", ".join(dict.fromkeys([*op_types.values(), *op_types])) or "none"
            raise UsageError(f"{trace} has no definition or op type {pattern}", f"There are: {known}.")
        chosen |= matching
    files = {}
    for name, op_type in sorted(chosen.items()):
        own, shared = (trace / "tests" / "references" / f"test_{stem}.py" for stem in (name, op_type))
        files.update({op_type: shared} if shared.exists() and not own.exists() else {name: own})
    return files


def _pytest(environment: Environment) -> list[str]:
    return [str(environment.python), "-m", "pytest", "-p", "no:cacheprovider"]


def _read(xml: Path) -> list[Case]:
    """The test cases of pytest's report; none where it was not written to its end."""
    try:
        elements = [*ElementTree.parse(xml).iter("testcase")]  # noqa: S314 - written by pytest
    except (OSError, ElementTree.ParseError):
        return []
    cases = []
    for element in elements:
        ended = next((part for part in element if part.tag in ("failure", "error", "skipped")), None)
        outcome = "passed" if ended is None else "skipped" if ended.tag == "skipped" else "failed"
        recorded = {entry.get("name", ""): entry.get("value", "") for entry in element.iter("property")}
        figures = {name: float(recorded[name]) for name in (USED, "error_ratio") if name in recorded}
        modules = (element.get("classname") or str(element.get("name"))).split(".")  # a name: it was not imported
        reason = "" if ended is None else _reason(ended.get("message", ""), ended.text or "")
        seconds = float(element.get("time", 0))
        cases.append(Case(modules, element.get("name", ""), outcome, reason, seconds, figures))
    return cases


def _reason(message: str, text: str) -> str:
    """Why a test did not pass: the first line of the message, and a compiler's first error, which FlashInfer shows
    after the whole command. If a file fails or is skipped at import, pytest reports the reason in the text alone."""
    if message == "collection skipped":
        message = text.partition("Skipped: ")[2].rstrip("')\"")
    elif message == "collection failure":
        message = text.rpartition("\n")[2].lstrip("E ")
    first, *rest = message.strip().splitlines() or [""]
    errors = [line.strip() for line in rest if re.search(r"\berror: |\bfatal *: |: not found$", line)]
    return " ".join(line if len(line) <= SHOWN else f"{line[:SHOWN]}..." for line in (first, *errors[:1]))


def _check(name: str, cases: Sequence[Case], ended: str, command: str) -> Check:
    """The check of one file of tests; `command` runs it alone, `ended` is how pytest ended."""
    if not cases:
        return Check(name, "fail", f"no result; {ended}", command=command)
    counts = Counter(case.outcome for case in cases)
    figures = [f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped") if counts[outcome]]
    if reasons := Counter(case.reason for case in cases if case.outcome == "skipped"):
        figures[-1] += f" ({reasons.most_common(1)[0][0]})"
    figures.append(f"{sum(case.seconds for case in cases):.0f} s")
    if errors := [case.properties["error_ratio"] for case in cases if "error_ratio" in case.properties]:
        figures.append(f"largest error {max(errors):.2f} of what is allowed")
    detail = ", ".join(figures)
    if failed := next((case for case in cases if case.outcome == "failed"), None):
        return Check(name, "fail", f"{detail}; {failed.name}: {failed.reason}", command=command)
    if any(case.on_gpu for case in cases):
        return Check(name, "pass", detail)
    told = not counts["passed"] or any(USED in case.properties for case in cases)
    return Check(name, "skip", f"{'no test ran a kernel' if told else 'whether a kernel ran cannot be told'}: {detail}")


def _total(cases: Sequence[Case], environment: Environment, figures: str) -> Check:
    name, found = "kernels: total", environment.distribution("flashinfer-python")
    version = f"FlashInfer {found.version if found else ''}".strip()
    if ran := sum(case.on_gpu for case in cases):
        return Check(name, "pass", f"{ran} tests ran kernels of {version}, {figures}")
    if any(case.outcome == "passed" for case in cases) and not any(USED in case.properties for case in cases):
        hint = f"Let each test record the property {USED}, as the tests in flashinfer_trace/tests/conftest.py do."
        return Check(name, "warn", f"whether a kernel of {version} ran cannot be told, {figures}", hint)
    hint = "Each line above says why; kernels need a GPU, torch and FlashInfer."
    return Check(name, "fail", f"no test ran a kernel of {version}, {figures}", hint)
