"""Runs the reference tests of trace data against FlashInfer's kernels: one pytest of the verified environment."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from invoke.context import Context

from ..errors import Interrupted, UsageError
from ..models import Check, Reporter
from ..names import shell
from ..packages import Environment

USED = "gpu_allocations"  # the property with which tests say whether they used the GPU (flashinfer_trace/tests)
JOB = 4_000_000_000  # bytes of memory assumed for a compile job; one nvcc takes 2 to 8 GB
FAILED = {"failure", "error"}  # tags of JUnit
TAIL = 2000  # characters in which pytest says how it ended


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
    jobs = _jobs()
    workers = max(1, min(jobs, len(files))) if environment.distribution("pytest-xdist") else 1
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
            "PATH": f"{environment.python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",  # ninja is there
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
        own = [case for case in cases if file.stem in _modules(case)]
        checks.append(_check(f"kernels: {name}", own, ended, shell(*pytest, file)))
    flashinfer = f"FlashInfer {environment.version('flashinfer-python')}"
    return [*checks, _total(cases, f"{flashinfer}, {time.monotonic() - began:.0f} s, {workers} at once")]


def _select(trace: Path, only: Sequence[str]) -> dict[str, Path]:
    """The files with the tests of the chosen definitions, by the name of the definition or of its op type."""
    op_types = {file.stem: file.parent.name for file in sorted(trace.glob("definitions/*/*.json"))}
    for wanted in only:
        if wanted not in op_types and wanted not in op_types.values():
            known = ", ".join(dict.fromkeys([*op_types.values(), *op_types])) or "none"
            raise UsageError(f"{trace} has no definition or op type {wanted}", f"There are: {known}.")
    files = {}
    for name, op_type in sorted(op_types.items()):
        if not only or name in only or op_type in only:
            own, shared = (trace / "tests" / "references" / f"test_{stem}.py" for stem in (name, op_type))
            files.update({op_type: shared} if shared.exists() and not own.exists() else {name: own})
    return files


def _jobs() -> int:
    """How many compilers may run at once: `MAX_JOBS`, or as many as ninja would start; no more than fit into memory."""
    given = os.environ.get("MAX_JOBS", "")
    wanted = int(given) if given.isdigit() else (os.cpu_count() or 1) + 2
    memory = int(re.findall(r"MemAvailable: *(\d+)", Path("/proc/meminfo").read_text())[0]) * 1024
    return max(1, min(wanted, memory // JOB))


def _read(xml: Path) -> list[Element]:
    """The test cases of pytest's report; none where it was not written to its end."""
    try:
        return [*ElementTree.parse(xml).iter("testcase")]  # noqa: S314 - written by pytest
    except (OSError, ElementTree.ParseError):
        return []


def _modules(case: Element) -> list[str]:
    """The parts of the name of its module and class."""
    return str(case.get("classname") or case.get("name")).split(".")  # only a name: its module cannot be imported


def _outcome(case: Element) -> str:
    tags = {part.tag for part in case}
    return "failed" if tags & FAILED else "skipped" if "skipped" in tags else "passed"


def _ran_kernel(case: Element) -> bool | None:
    """Whether it allocated GPU memory after FlashInfer was imported, and passed; None where it did not record that."""
    recorded = case.find(f".//property[@name='{USED}']")
    return None if recorded is None else _outcome(case) == "passed" and float(recorded.get("value", 0)) > 0


def _check(name: str, cases: Sequence[Element], ended: str, command: str) -> Check:
    """The check of one file of tests; `command` runs it alone, `ended` is how pytest ended."""
    if not cases:
        return Check(name, "fail", f"no result; {ended}", command=command)
    counts = Counter(map(_outcome, cases))
    seconds = sum(float(case.get("time", 0)) for case in cases)
    detail = ", ".join([*(f"{number} {outcome}" for outcome, number in sorted(counts.items())), f"{seconds:.0f} s"])
    if counts["failed"]:
        failure = next(part for case in cases for part in case if part.tag in FAILED)
        message, _, _ = failure.get("message", "").partition("\n")
        return Check(name, "fail", f"{detail}; {message}", command=command)
    if any(map(_ran_kernel, cases)):
        return Check(name, "pass", detail)
    return Check(name, "skip", f"no test recorded that it ran a kernel: {detail}")


def _total(cases: Sequence[Element], figures: str) -> Check:
    """The check of all tests; a warning where tests of other trace data pass and record nothing."""
    if ran := sum(map(bool, map(_ran_kernel, cases))):
        return Check("kernels: total", "pass", f"{ran} tests ran kernels, {figures}")
    silent = any(_outcome(case) == "passed" and _ran_kernel(case) is None for case in cases)
    hint = f"Kernels need a GPU, torch and FlashInfer; a test that ran one records the property {USED}."
    return Check("kernels: total", "warn" if silent else "fail", f"no test recorded a kernel, {figures}", hint)
