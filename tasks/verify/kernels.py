"""Runs the reference tests of trace data against FlashInfer's kernels: one pytest of the verified environment."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from xml.etree import ElementTree

from invoke.context import Context

from ..errors import Interrupted, UsageError
from ..models import Check, Reporter
from ..names import shell
from ..packages import Environment
from . import machine

Cases = list[ElementTree.Element]
USED = "gpu_allocations"  # the property with which tests say whether they used the GPU (flashinfer_trace/tests)
SHOWN = 200  # characters of a reason
TAIL = 2000  # characters in which pytest says how it ended


def run_kernels(
    c: Context, trace: Path, environment: Environment, reporter: Reporter, *, only: Sequence[str] = (),
    junit: Path | None = None,
) -> list[Check]:  # fmt: skip
    """Run the reference tests in `trace`, on several processes where pytest-xdist is installed in the environment.

    `only` names definitions or op types; `*` and `?` match as in a shell. `junit` is a file to write, in JUnit's XML.
    Returns `kernels: NAME` for each file of tests, and `kernels: total`, which fails where no test ran a kernel. Raises
    UsageError where `only` names nothing, and OSError where `junit` cannot be written.
    """
    files, began = _select(trace.absolute(), only), time.monotonic()
    if not environment.distribution("pytest"):
        command = machine.add_command(environment, "pytest")
        return [Check("kernels: total", "fail", f"pytest is not installed in {environment.prefix}", command=command)]
    jobs = max(1, min(machine.available_memory() // machine.JOB, machine.wanted_jobs(os.environ)))
    workers = min(jobs, len(files)) if environment.distribution("pytest-xdist") else 1
    with tempfile.TemporaryDirectory() as directory:
        xml = junit.absolute() if junit else Path(directory, "junit.xml")
        xml.parent.mkdir(parents=True, exist_ok=True)
        xml.write_bytes(b"")
        Path(directory, "pytest.ini").write_text("[pytest]\njunit_family = xunit1\n")  # no configuration around counts
        parallel = ["-p", "xdist", "-n", str(workers), "--dist", "loadfile"] if workers > 1 else []
        places = ["-c", f"{directory}/pytest.ini", f"--rootdir={trace.absolute()}", f"--confcutdir={trace.absolute()}"]
        given = [str(file) for file in files.values() if file.exists()]
        command = shell(*_pytest(environment), *parallel, *places, f"--junitxml={xml}", *given)
        variables = {
            "PATH": machine.activated(environment, os.environ)["PATH"],
            "MAX_JOBS": str(max(1, jobs // max(1, workers))),  # of the ninja that each worker starts
            "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // max(1, workers))),  # torch's, of each worker
            "PYTEST_ADDOPTS": "",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        terminal = reporter.terminal()
        with c.cd(directory):  # where nothing has the name of a module
            done = c.run(
                command, warn=True, in_stream=False, pty=bool(terminal), out_stream=terminal or sys.stderr,
                env=variables,
            )  # fmt: skip
        cases = _read(xml)
    if "KeyboardInterrupt" in done.stdout[-TAIL:]:
        raise Interrupted("Interrupted.", "What is complete is kept.")
    lines = [line.strip("= ") for line in (done.stdout + done.stderr).splitlines() if line.strip("= ")]
    ended = f"{lines[-1] if lines else 'no output'} (status {done.exited})"
    checks = []
    for name, file in files.items():
        mine = [case for case in cases if str(case.get("file")).endswith(f"/{file.name}")]
        checks.append(_check(name, mine, ended, shell(*_pytest(environment), file)))
    return [*checks, _total(cases, environment, f"{time.monotonic() - began:.0f} s, {workers} at once")]


def _select(trace: Path, only: Sequence[str]) -> dict[str, Path]:
    """The files with the tests of the chosen definitions, by the name of the definition or of its op type."""
    op_types = {file.stem: file.parent.name for file in sorted(trace.glob("definitions/*/*.json"))}
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in (*op_types, *op_types.values())):
            known = ", ".join(dict.fromkeys([*op_types.values(), *op_types])) or "none"
            raise UsageError(f"{trace} has no definition or op type {pattern}", f"There are: {known}.")
    files = {}
    for name, op_type in op_types.items():
        if not only or any(fnmatchcase(text, pattern) for text in (name, op_type) for pattern in only):
            own, shared = (trace / "tests" / "references" / f"test_{stem}.py" for stem in (name, op_type))
            files.update({op_type: shared} if shared.exists() and not own.exists() else {name: own})
    return files


def _pytest(environment: Environment) -> list[str]:
    return [str(environment.python), "-m", "pytest", "-p", "no:cacheprovider"]


def _read(xml: Path) -> Cases:
    """The test cases of pytest's report; none where it was not written to its end."""
    try:
        return [*ElementTree.parse(xml).iter("testcase")]  # noqa: S314 - written by pytest
    except (OSError, ElementTree.ParseError):
        return []


def _outcome(case: ElementTree.Element) -> str:
    if any(part.tag in ("failure", "error") for part in case):
        return "failed"
    return "passed" if case.find("skipped") is None else "skipped"


def _values(cases: Cases, name: str) -> list[float]:
    """The values of a property that tests recorded."""
    properties = [entry for case in cases for entry in case.iter("property")]
    return [float(entry.get("value", "")) for entry in properties if entry.get("name") == name]


def _on_gpu(cases: Cases) -> int:
    """How many tests passed and used GPU memory after FlashInfer was imported: a kernel ran."""
    return sum(max(_values([case], USED), default=0) > 0 for case in cases if _outcome(case) == "passed")


def _check(name: str, cases: Cases, ended: str, command: str) -> Check:
    """The check of one file of tests; `command` runs it alone, `ended` is how pytest ended."""
    name, failed = f"kernels: {name}", [case for case in cases if _outcome(case) == "failed"]
    if not cases:
        return Check(name, "fail", f"no result; {ended}", command=command)
    counts = Counter(map(_outcome, cases))
    figures = [f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped") if counts[outcome]]
    if reasons := Counter(_reason(case) for case in cases if _outcome(case) == "skipped"):
        figures[-1] += f" ({reasons.most_common(1)[0][0]})"
    figures.append(f"{sum(float(case.get('time', 0)) for case in cases):.0f} s")
    if errors := _values(cases, "error_ratio"):
        figures.append(f"largest error {max(errors):.2f} of what is allowed")
    detail = ", ".join(figures)
    if failed:
        return Check(name, "fail", f"{detail}; {failed[0].get('name')}: {_reason(failed[0])}", command=command)
    if not _on_gpu(cases):
        told = _values(cases, USED) or not counts["passed"]
        why = "no test ran a kernel" if told else "whether a kernel ran cannot be told"
        return Check(name, "skip", f"{why}: {detail}")
    return Check(name, "pass", detail)


def _total(cases: Cases, environment: Environment, figures: str) -> Check:
    found = environment.distribution("flashinfer-python")
    version = f"FlashInfer {found.version if found else ''}".strip()
    if ran := _on_gpu(cases):
        return Check("kernels: total", "pass", f"{ran} tests ran kernels of {version}, {figures}")
    if not _values(cases, USED) and any(_outcome(case) == "passed" for case in cases):
        hint = f"Let each test record the property {USED}, as the tests in flashinfer_trace/tests/conftest.py do."
        return Check("kernels: total", "warn", f"whether a kernel of {version} ran cannot be told, {figures}", hint)
    hint = "Each line above says why; kernels need a GPU, torch and FlashInfer."
    return Check("kernels: total", "fail", f"no test ran a kernel of {version}, {figures}", hint)


def _reason(case: ElementTree.Element) -> str:
    """Why a test did not pass: the first line of the message, and a compiler's first error, which FlashInfer shows
    after the whole command. If a file fails or is skipped at import, pytest reports the reason in the text alone."""
    ended = next(part for part in case if part.tag in ("failure", "error", "skipped"))
    message, text = ended.get("message", ""), ended.text or ""
    if message == "collection skipped":
        message = text.partition("Skipped: ")[2].rstrip("')\"")
    elif message == "collection failure":
        message = text.rpartition("\n")[2].lstrip("E ")
    first, *rest = message.strip().splitlines() or [""]
    errors = [line.strip() for line in rest if re.search(r"\berror: |\bfatal *: |: not found$", line)]
    return " ".join(line if len(line) <= SHOWN else f"{line[:SHOWN]}..." for line in (first, *errors[:1]))
