"""Runs the reference tests of trace data against FlashInfer's kernels, with the verified environment's pytest."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from xml.etree import ElementTree

from .. import processes
from ..errors import UsageError
from ..models import Check, Reporter
from ..packages import Environment
from .machine import JOB, activated, add_command, available_memory, limited_jobs, wanted_jobs

SILENCE = 1800.0  # seconds without a finished test, as the first one compiles its kernel
PLUGIN = Path(__file__).with_name("kernels_plugin.py")
STARTED = re.compile(rb"^\[(\d+)/(\d+)\] (.*)$", re.MULTILINE)  # what the plugin prints as a test begins
NOTHING = "no test ran against a kernel of FlashInfer"
SHOWN = 200  # characters of a reason


@dataclass(frozen=True)
class Tests:
    """How the tests of one definition ended. `suite` is pytest's report in JUnit's XML, `seconds` is wall time."""

    name: str
    suite: ElementTree.Element
    seconds: float

    def cases(self, outcome: str) -> list[ElementTree.Element]:
        """The tests that `passed`, `failed` or were `skipped`."""
        return [case for case in self.suite.iter("testcase") if _outcome(case) == outcome]

    @property
    def on_gpu(self) -> int:
        """How many tests ran a kernel: they passed, and used GPU memory after FlashInfer was imported."""
        return sum(max(_values(case, "gpu_allocations"), default=0) > 0 for case in self.cases("passed"))

    def check(self, command: str) -> Check:
        """The check of this definition; `command` runs its tests alone."""
        name, failed = f"kernels: {self.name}", self.cases("failed")
        counts = {outcome: len(self.cases(outcome)) for outcome in ("passed", "failed", "skipped")}
        figures = [f"{count} {outcome}" for outcome, count in counts.items() if count]
        if reasons := Counter(map(_reason, self.cases("skipped"))):
            figures[-1] += f" ({reasons.most_common(1)[0][0]})"
        figures.append(f"{self.seconds:.0f} s")
        if errors := _values(self.suite, "error_ratio"):
            figures.append(f"largest error {max(errors):.2f} of what is allowed")
        detail = ", ".join(figures)
        if failed:
            return Check(name, "fail", f"{detail}; {failed[0].get('name')}: {_reason(failed[0])}", command=command)
        if not self.on_gpu:
            return Check(name, "skip", f"{NOTHING}: {detail}")
        return Check(name, "pass", detail)


def run_kernels(
    trace: Path, environment: Environment, reporter: Reporter, *, only: Sequence[str] = (), jobs: int | None = None,
    junit: Path | None = None, silence: float = SILENCE,
) -> list[Check]:  # fmt: skip
    """Run the reference test of each definition in `trace`, each in its own process, several at once.

    `only` names definitions or op types; `*` and `?` match as in a shell. `jobs` limits the compile jobs at a time; the
    default is what fits into memory, at most `MAX_JOBS`. `junit` is a file to write, in JUnit's XML. A process that
    prints nothing for `silence` seconds is ended.

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
            done = list(pool.map(lambda name: _run(trace, name, environment, environ, reporter, silence), names))
        except BaseException:
            processes.stop_all()
            raise
    if junit:
        root = ElementTree.Element("testsuites")
        root.extend(tests.suite for tests in done)
        ElementTree.ElementTree(root).write(junit, encoding="utf-8", xml_declaration=True)
    ran = sum(tests.on_gpu for tests in done)
    found = environment.distribution("flashinfer-python")
    detail = f"{ran} tests ran kernels of FlashInfer {found.version if found else ''}".rstrip() if ran else NOTHING
    detail += f", {time.monotonic() - began:.0f} s, up to {at_once} at once"
    hint = "" if ran else "Each definition above says why; kernels need a GPU, torch and FlashInfer."
    checks = [tests.check(shlex.join(_pytest(environment, trace, tests.name))) for tests in done]
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
) -> Tests:
    def show_progress(printed: bytes) -> None:
        for done, total, _ in STARTED.findall(printed):
            reporter.progress(name, f"{int(done)} of {int(total)} tests", int(done) / int(total), 0, 0.0)

    began = time.monotonic()
    reporter.progress(name, "starting", None, 0, 0.0)
    with tempfile.TemporaryDirectory() as directory:
        plugin, xml, ini = shutil.copy(PLUGIN, directory), Path(directory, "junit.xml"), Path(directory, "pytest.ini")
        ini.write_text("[pytest]\n", encoding="utf-8")  # empty: no configuration around the trace directory counts
        options = ("-p", Path(plugin).stem, f"--junitxml={xml}", "-o", f"junit_suite_name={name}", "-c", str(ini))
        path = os.pathsep.join(filter(None, (directory, environ.get("PYTHONPATH"))))
        variables = {"PYTHONPATH": path, "PYTEST_ADDOPTS": "", "PYTHONDONTWRITEBYTECODE": "1"}
        ended = processes.run(
            [*_pytest(environment, trace, name), *options, f"--rootdir={trace}", f"--confcutdir={trace}"],
            cwd=Path(directory), env={**environ, **variables}, silence=silence, on_errors=show_progress,
        )  # fmt: skip
        suite = _read_suite(xml, name)
    _, total, last = next(reversed(STARTED.findall(ended.errors)), (b"0", b"0", b""))
    if problem := _problem(ended, complete=len(suite) >= max(1, int(total))):
        _add_error(suite, last.decode() or name, problem)
    tests = Tests(name, suite, time.monotonic() - began)
    reporter.event(name, tests.check("").detail)
    return tests


def _read_suite(xml: Path, name: str) -> ElementTree.Element:
    """The report that pytest wrote last of all, an empty one where it did not."""
    try:
        return next(ElementTree.parse(xml).iter("testsuite"))  # noqa: S314 - written by pytest
    except (OSError, ElementTree.ParseError):
        return ElementTree.Element("testsuite", name=name)


def _outcome(case: ElementTree.Element) -> str:
    if any(each.tag in ("failure", "error") for each in case):
        return "failed"
    return "passed" if case.find("skipped") is None else "skipped"


def _values(report: ElementTree.Element, name: str) -> list[float]:
    """The values of a property that tests recorded."""
    return [float(each.get("value", "")) for each in report.iter("property") if each.get("name") == name]


def _reason(case: ElementTree.Element) -> str:
    """Why a test did not pass: the first line of the message, and a compiler's first error, which FlashInfer shows
    after the whole command. If a file fails or is skipped at import, pytest reports the reason in the text alone."""
    ended = next(each for each in case if each.tag in ("failure", "error", "skipped"))
    message, text = ended.get("message", ""), ended.text or ""
    if message == "collection skipped":
        message = text.partition("Skipped: ")[2].rstrip("')\"")
    elif message == "collection failure":
        message = text.rpartition("\n")[2].lstrip("E ")
    first, *rest = message.strip().splitlines() or [""]
    errors = [line.strip() for line in rest if re.search(r"\berror: |\bfatal *: |: not found$", line)]
    return " ".join(line if len(line) <= SHOWN else f"{line[:SHOWN]}..." for line in (first, *errors[:1]))


def _problem(ended: processes.Completed, *, complete: bool) -> str:
    """What kept pytest from a report on every test; empty if it is `complete` and nothing happened afterwards."""
    if ended.ended:
        return f"ended: {ended.ended}"
    if ended.status < 0:
        return f"crashed with {signal.Signals(-ended.status).name}"
    if complete:
        return ""
    if STARTED.search(ended.errors):
        return f"ended with status {ended.status}"
    lines = (ended.errors + b"\n" + ended.output).decode(errors="replace").splitlines()
    last = next((line.strip("= ") for line in reversed(lines) if line.strip("= ")), "no output")
    return next((line for line in lines if line.startswith("ERROR: ")), last)


def _add_error(suite: ElementTree.Element, name: str, message: str) -> None:
    """Add a test to the report that ended with an error."""
    for count in ("tests", "errors"):
        suite.set(count, str(int(suite.get(count, "0")) + 1))
    case = ElementTree.SubElement(suite, "testcase", classname=suite.get("name", ""), name=name)
    printable = "".join(filter(str.isprintable, message))  # XML holds no control characters
    ElementTree.SubElement(case, "error", message=printable)
