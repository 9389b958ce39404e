"""Runs the reference tests of trace data against FlashInfer's kernels: one pytest of the verified environment."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from invoke.context import Context

from ..errors import Interrupted, UsageError
from ..models import Check, Reporter
from ..names import shell
from ..packages import Environment
from . import machine

USED = "gpu_allocations"  # the property with which tests say whether they used the GPU (flashinfer_trace/tests)
TAIL = 2000  # characters in which pytest says how it ended


@dataclass(frozen=True)
class Case:
    """One test: its outcome (passed, failed, skipped), why it failed, and how often it allocated GPU memory, None where
    it did not record that. `modules` are the parts of its class's or module's name."""

    modules: Sequence[str]
    outcome: str
    reason: str
    seconds: float
    allocations: float | None


def run_kernels(
    c: Context, trace: Path, environment: Environment, reporter: Reporter, *, only: Sequence[str] = (),
    junit: Path | None = None,
) -> list[Check]:  # fmt: skip
    """Run the reference tests in `trace`, on several processes where pytest-xdist is installed in the environment.

    `only` names definitions or op types. `junit` is a file to write, in JUnit's XML. Returns `kernels: NAME` for each
    file of tests, and `kernels: total`, which fails where no test ran a kernel. Raises UsageError where `only` names
    nothing, and OSError where `junit` cannot be written.
    """
    trace, began = trace.absolute(), time.monotonic()
    files = _select(trace, only)
    if not environment.distribution("pytest"):
        command = machine.add_command(environment, "pytest")
        return [Check("kernels: total", "fail", f"pytest is not installed in {environment.prefix}", command=command)]
    jobs = max(1, min(machine.wanted_jobs(os.environ), machine.available_memory() // machine.JOB))
    workers = min(jobs, len(files)) if environment.distribution("pytest-xdist") else 1
    pytest = [str(environment.python), "-m", "pytest", "-p", "no:cacheprovider"]
    with tempfile.TemporaryDirectory() as directory:
        xml = junit.absolute() if junit else Path(directory, "junit.xml")
        if not c.config.run.dry:
            xml.parent.mkdir(parents=True, exist_ok=True)
            xml.write_bytes(b"")
        ini = Path(directory, "pytest.ini")  # no configuration around the trace data counts
        ini.write_text("[pytest]\n")
        options = ["-c", str(ini), f"--rootdir={trace}", f"--confcutdir={trace}", f"--junitxml={xml}"]
        # A process that crashed is not replaced: pytest-xdist 3.8 may then wait for ever.
        xdist = ["-p", "xdist", "-n", str(workers), "--dist", "loadfile", "--max-worker-restart=0"]
        options += xdist if workers > 1 else []
        variables = {
            "PATH": machine.activated(environment, os.environ)["PATH"],
            "MAX_JOBS": str(jobs // workers),  # of the ninja that each worker starts
            "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // workers)),  # torch's, of each worker
            "PYTEST_ADDOPTS": "",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        terminal = reporter.terminal()
        with c.cd(directory):  # where nothing has the name of a module
            done = c.run(
                shell(*pytest, *options, *(file for file in files.values() if file.exists())),
                warn=True, in_stream=False, env=variables, pty=bool(terminal), out_stream=terminal or sys.stderr,
            )  # fmt: skip
        cases = _read(xml)
    if c.config.run.dry:
        return [Check("kernels: total", "skip", "not run (--dry)")]
    if "KeyboardInterrupt" in done.stdout[-TAIL:]:
        raise Interrupted("Interrupted.", "What is complete is kept.")
    lines = [line.strip("= ") for line in (done.stdout + done.stderr).splitlines() if line.strip("= ")]
    ended = f"{lines[-1] if lines else 'no output'} (status {done.exited})"
    checks = []
    for name, file in files.items():
        own = [case for case in cases if file.stem in case.modules]
        checks.append(_check(f"kernels: {name}", own, ended, shell(*pytest, file)))
    return [*checks, _total(cases, environment, f"{time.monotonic() - began:.0f} s, {workers} at once")]


def _select(trace: Path, only: Sequence[str]) -> dict[str, Path]:
    """The files with the tests of the chosen definitions, by the name of the definition or of its op type."""
    op_types = {file.stem: file.parent.name for file in sorted(trace.glob("definitions/*/*.json"))}
    for wanted in only:
        if wanted not in op_types and wanted not in op_types.values():
            known = ", ".join(dict.fromkeys([*op_types.values(), *op_types])) or "none"
            raise UsageError(f"{trace} has no definition or op type {wanted}", f"There are: {known}.")
    files = {}
    for name, op_type in sorted(op_types.items()):
        if only and name not in only and op_type not in only:
            continue
        own, shared = (trace / "tests" / "references" / f"test_{stem}.py" for stem in (name, op_type))
        files.update({op_type: shared} if shared.exists() and not own.exists() else {name: own})
    return files


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
        name = element.get("name", "")
        modules = (element.get("classname") or name).split(".")  # only a name: the module could not be imported
        reason = ""
        if ended is not None:
            message, lines = ended.get("message", ""), (ended.text or "").splitlines() or [""]
            reason = lines[-1].lstrip("E ") if message == "collection failure" else message.partition("\n")[0]
        recorded = element.find(f".//property[@name='{USED}']")
        allocations = None if recorded is None else float(recorded.get("value", 0))
        cases.append(Case(modules, outcome, f"{name}: {reason}", float(element.get("time", 0)), allocations))
    return cases


def _ran(cases: Sequence[Case]) -> int | None:
    """How many of the tests passed and used the GPU after FlashInfer was imported, so that a kernel ran; None where
    that cannot be told, since none of them recorded it."""
    passed = [case.allocations for case in cases if case.outcome == "passed"]
    if passed and all(allocations is None for allocations in passed):
        return None
    return sum(1 for allocations in passed if allocations)


def _check(name: str, cases: Sequence[Case], ended: str, command: str) -> Check:
    """The check of one file of tests; `command` runs it alone, `ended` is how pytest ended."""
    if not cases:
        return Check(name, "fail", f"no result; {ended}", command=command)
    counts = Counter(case.outcome for case in cases)
    figures = [f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped") if counts[outcome]]
    detail = ", ".join([*figures, f"{sum(case.seconds for case in cases):.0f} s"])
    if failed := next((case for case in cases if case.outcome == "failed"), None):
        return Check(name, "fail", f"{detail}; {failed.reason}", command=command)
    ran = _ran(cases)
    if ran:
        return Check(name, "pass", detail)
    return Check(name, "skip", f"{'whether a kernel ran cannot be told' if ran is None else 'no kernel ran'}: {detail}")


def _total(cases: Sequence[Case], environment: Environment, figures: str) -> Check:
    name, flashinfer, ran = "kernels: total", environment.distribution("flashinfer-python"), _ran(cases)
    version = f"FlashInfer {flashinfer.version if flashinfer else ''}".strip()
    if ran:
        return Check(name, "pass", f"{ran} tests ran kernels of {version}, {figures}")
    if ran is None:
        hint = f"Let each test record the property {USED}, as the tests in flashinfer_trace/tests/conftest.py do."
        return Check(name, "warn", f"whether a kernel of {version} ran cannot be told, {figures}", hint)
    hint = "Kernels need a GPU, torch and FlashInfer; `pytest -rs` shows why tests were skipped."
    return Check(name, "fail", f"no test ran a kernel of {version}, {figures}", hint)
