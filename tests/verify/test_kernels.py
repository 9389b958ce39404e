"""`verify --kernels`: the reference tests of trace data in the verified environment, with stand-ins for the GPU."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import ninja
import pytest

from tasks import processes
from tasks.errors import UsageError
from tasks.models import Check
from tasks.packages import Environment, probe
from tasks.verify.kernels import run_kernels
from tests import conftest
from tests.conftest import ROOT

# Counts allocations of GPU memory, as torch does; a GPU is there where the file `gpu` lies beside it.
TORCH = """
from pathlib import Path
class cuda:
    count = 0
    is_available = is_initialized = staticmethod(Path(__file__).with_name("gpu").exists)
    memory_stats = staticmethod(lambda: {"allocation.all.allocated": cuda.count})
"""
FLASHINFER = "import torch\ndef kernel():\n    torch.cuda.count += 1\n"
TEST = """
import pytest, torch, flashinfer
def test_reference(): ...
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@pytest.mark.parametrize("rows", [1, 2])
def test_kernel(rows, record_property):
    flashinfer.kernel()
    record_property("error_ratio", rows / 4)
"""


def kernel(code: str) -> str:
    """TEST with other code in place of the kernel."""
    return TEST.replace("flashinfer.kernel()", code)


class Listener:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, str, float | None]] = []
        self.events: list[str] = []

    def event(self, who: str, message: str) -> None:
        self.events.append(f"{who}: {message}")

    def warn(self, who: str, message: str) -> None: ...

    def progress(self, who: str, doing: str, done: float | None, moved: int, rate: float) -> None:
        self.shown.append((who, doing, done))

    def command(self, argv: Sequence[str], cwd: Path | None) -> None: ...

    def output(self, who: str, line: str) -> None: ...

    def checked(self, group: str, checks: object) -> None: ...

    def terminal(self) -> None: ...


@pytest.fixture
def bare(make_environment: Callable[..., conftest.Environment], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The interpreter of an environment with pytest, without the other plugins of this one: they take a second."""
    made = make_environment("verified")
    (site,) = made.path.glob("lib/python*/site-packages")
    (site / "pytest.pth").write_text(str(Path(pytest.__file__).parent.parent))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return made.python


@pytest.fixture
def environment(bare: Path) -> Environment:
    """An environment with pytest, FlashInfer and torch, and a GPU."""
    (site,) = bare.parent.parent.glob("lib/python*/site-packages")
    (site / "torch.py").write_text(TORCH)
    (site / "flashinfer.py").write_text(FLASHINFER)
    (site / "gpu").touch()
    (site / "flashinfer_python-9.8.dist-info").mkdir()
    (site / "flashinfer_python-9.8.dist-info/METADATA").write_text("Name: flashinfer-python\nVersion: 9.8\n")
    return probe(bare)


def trace(folder: Path, **tests: str) -> Path:
    """A trace folder with a definition for each of `tests`, whose op type is what stands before `_`."""
    (folder / "tests/references").mkdir(parents=True)
    for name, source in tests.items():
        file = folder / "definitions" / name.partition("_")[0] / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
        if source:
            (folder / f"tests/references/test_{name}.py").write_text(source)
    return folder


def by_name(checks: list[Check]) -> dict[str, Check]:
    """The checks without what stands before `: `."""
    assert all(check.name.startswith("kernels: ") for check in checks)
    return {check.name.removeprefix("kernels: "): check for check in checks}


def test_a_check_for_each_definition_counts_its_tests_and_tells_the_largest_error(
    tmp_path: Path, environment: Environment
) -> None:
    listener = Listener()
    folder = trace(tmp_path / "trace", norm_h8=TEST, gemm_n4=TEST.replace("/ 4", "/ 8"))
    checks = by_name(run_kernels(folder, environment, listener))
    assert list(checks) == ["gemm_n4", "norm_h8", "total"]
    assert {check.status for check in checks.values()} == {"pass"}
    assert checks["norm_h8"].detail.startswith("3 passed, ")
    assert checks["norm_h8"].detail.endswith(" s, largest error 0.50 of what is allowed")
    assert checks["total"].detail.startswith("4 tests ran kernels of FlashInfer 9.8, ")
    assert any(who == "norm_h8" and doing.endswith(" of 3 tests") for who, doing, _ in listener.shown)
    assert any(event.startswith("norm_h8: 3 passed") for event in listener.events)


def test_nothing_is_written_into_the_trace_folder(tmp_path: Path, environment: Environment) -> None:
    folder = trace(tmp_path / "trace", norm_h8=TEST)
    before = sorted(folder.rglob("*"))
    run_kernels(folder, environment, Listener())
    assert sorted(folder.rglob("*")) == before


def test_a_run_without_a_kernel_is_a_failure_though_no_test_failed(tmp_path: Path, environment: Environment) -> None:
    (environment.purelib / "gpu").unlink()
    skipping = 'import pytest\nnothing = pytest.importorskip("nothing", reason="nothing is not installed")\n'
    checks = by_name(run_kernels(trace(tmp_path / "t", norm_h8=TEST, gemm_n4=skipping), environment, Listener()))
    assert {name: check.status for name, check in checks.items()} == {
        "norm_h8": "skip", "gemm_n4": "skip", "total": "fail",
    }  # fmt: skip
    assert "1 passed, 2 skipped (no CUDA GPU), " in checks["norm_h8"].detail
    assert "1 skipped (nothing is not installed), " in checks["gemm_n4"].detail
    assert checks["total"].hint


WRONG = {
    "assert": (kernel("assert rows == 2, 'off by one'"), "test_kernel[1]: AssertionError: off by one"),
    "abort": (kernel("import os; os.abort()"), "test_kernel[1]: crashed with SIGABRT"),
    "exit": (kernel("import os; os._exit(0)"), "test_kernel[1]: ended with status 0"),
    "enough": (kernel("pytest.exit('enough', returncode=0)"), "test_kernel[1]: ended with status 0"),
    "import": ("import nothing_of_that_name\n", "No module named 'nothing_of_that_name'"),
    "syntax": ("def broken(:\n", "SyntaxError"),
    "empty": ("x = 1\n", "no tests ran"),
    "missing": ("", "not found: "),
}


def test_what_goes_wrong_in_one_definition_is_its_failure_and_stops_no_other(
    tmp_path: Path, environment: Environment
) -> None:
    sources = {name: source for name, (source, _) in WRONG.items()}
    folder, junit = trace(tmp_path / "trace", **sources, gemm_n4=TEST), tmp_path / "kernels.xml"
    checks = by_name(run_kernels(folder, environment, Listener(), junit=junit))
    assert {name for name, check in checks.items() if check.status == "fail"} == {*WRONG}
    assert {name for name, check in checks.items() if check.status == "pass"} == {"gemm_n4", "total"}
    suites = {suite.get("name"): suite for suite in ElementTree.parse(junit).getroot()}
    for name, (_, told) in WRONG.items():
        assert told in checks[name].detail
        assert checks[name].command.endswith(f"test_{name}.py")
        assert list(suites[name].iter("failure" if name == "assert" else "error")), name


def test_a_test_that_hangs_is_ended_and_named(tmp_path: Path, environment: Environment) -> None:
    folder = trace(tmp_path / "trace", norm_h8=kernel("import time; time.sleep(600)"))
    checks = by_name(run_kernels(folder, environment, Listener(), silence=4))
    assert checks["norm_h8"].status == "fail"
    assert "test_kernel[1]: ended: no data for 4 s" in checks["norm_h8"].detail


def test_a_compile_that_fails_is_told_by_the_compilers_own_error(tmp_path: Path, environment: Environment) -> None:
    output = "Ninja build failed. Ninja output:\\nFAILED: norm.o\\nnorm.cu(3): fatal error: curand.h: No such file\\n"
    (environment.purelib / "flashinfer.py").write_text(f"def kernel():\n    raise RuntimeError('{output}')\n")
    checks = by_name(run_kernels(trace(tmp_path / "trace", norm_h8=TEST), environment, Listener()))
    assert (
        "RuntimeError: Ninja build failed. Ninja output: norm.cu(3): fatal error: curand.h" in checks["norm_h8"].detail
    )


def test_kernels_that_fail_did_not_run(tmp_path: Path, environment: Environment) -> None:
    folder = trace(tmp_path / "trace", norm_h8=kernel("flashinfer.kernel(); assert False"))
    checks = by_name(run_kernels(folder, environment, Listener()))
    assert (checks["norm_h8"].status, checks["total"].status) == ("fail", "fail")


@pytest.mark.parametrize("path", [Path(ninja.BIN_DIR), None], ids=["jobserver", "share"])
def test_the_compile_jobs_of_all_definitions_together_are_limited(
    tmp_path: Path, environment: Environment, path: Path | None
) -> None:
    if path:
        (environment.python.parent / "ninja").symlink_to(path / "ninja")
    elif not Path("/usr/bin/ninja").exists():
        pytest.skip("there is no older ninja")
    rules = "rule c\n command = echo + >> log; sleep 0.1; echo - >> log\n"
    rules += "".join(f"build {i}: c\n" for i in range(8))
    build = f"""
import os, pathlib, subprocess
folder = pathlib.Path({str(tmp_path)!r}, __file__[-4])
folder.mkdir()
(folder / "build.ninja").write_text({rules.replace("log", str(tmp_path / "log"))!r})
jobs = os.environ.get("MAX_JOBS", "")
subprocess.run(["ninja", "-C", str(folder), *(["-j", jobs] if jobs.isdigit() else [])], check=True)
"""
    folder = trace(tmp_path / "trace", norm_a=build + TEST, norm_b=build + TEST)
    checks = by_name(run_kernels(folder, environment, Listener(), jobs=4))
    assert checks["total"].status == "pass"
    running = [0]
    for sign in (tmp_path / "log").read_text().split():
        running.append(running[-1] + (1 if sign == "+" else -1))
    assert running[-1] == 0
    assert 1 < max(running) <= 4


def test_definitions_can_be_chosen_by_op_type_name_or_pattern(tmp_path: Path, environment: Environment) -> None:
    folder = trace(tmp_path / "trace", **dict.fromkeys(("norm_a", "norm_b", "gemm_c", "gemm_d", "moe_e", "moe_f"), ""))
    chosen = by_name(run_kernels(folder, environment, Listener(), only=["norm", "gemm_c", "*_f"]))
    assert [*chosen] == ["gemm_c", "moe_f", "norm_a", "norm_b", "total"]


def test_a_choice_that_names_nothing_is_a_wrong_option(tmp_path: Path, environment: Environment) -> None:
    with pytest.raises(UsageError, match="no definition or op type moe") as error:
        run_kernels(trace(tmp_path / "trace", norm_a=TEST), environment, Listener(), only=["norm", "moe"])
    assert error.value.hint == "There are: norm, norm_a."


def test_without_pytest_the_check_has_the_command_that_installs_it(
    tmp_path: Path, make_environment: Callable[..., conftest.Environment]
) -> None:
    without = probe(make_environment("without", pip=True).python)
    (check,) = run_kernels(trace(tmp_path / "trace", norm_a=TEST), without, Listener())
    assert check.status == "fail"
    assert check.command == f"{without.python} -m pip install pytest"


def test_the_results_can_be_written_as_junit_xml(tmp_path: Path, environment: Environment) -> None:
    broken = kernel("assert rows == 2, 'an escape: \\x1b[31m'")
    folder = trace(tmp_path / "trace", norm_h8=broken, gemm_n4="import os, flashinfer\ndef test_it(): os.abort()\n")
    run_kernels(folder, environment, Listener(), junit=tmp_path / "results/kernels.xml")
    crash, norm = ElementTree.parse(tmp_path / "results/kernels.xml").getroot()
    assert {key: norm.get(key) for key in ("name", "tests", "failures", "skipped", "errors")} == {
        "name": "norm_h8", "tests": "3", "failures": "1", "skipped": "0", "errors": "0",
    }  # fmt: skip
    assert [case.get("name") for case in norm] == ["test_reference", "test_kernel[1]", "test_kernel[2]"]
    assert "an escape" in str(norm.findtext("testcase/failure"))
    assert (crash.get("name"), crash.get("errors")) == ("gemm_n4", "1")
    assert [error.get("message") for error in crash.iter("error")] == ["crashed with SIGABRT"]
    assert [case.get("name") for case in crash] == ["test_it"]


@pytest.mark.parametrize("given", [None, "3"])
def test_the_threads_of_all_processes_together_are_at_most_one_for_each_processor(
    tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    expected = given or str(max(1, (os.cpu_count() or 1) // 2))
    code = kernel(f"import os; flashinfer.kernel(); assert os.environ['OMP_NUM_THREADS'] == '{expected}'")
    checks = by_name(run_kernels(trace(tmp_path / "t", norm_a=code, norm_b=code), environment, Listener(), jobs=2))
    assert {check.status for check in checks.values()} == {"pass"}, checks


def test_configuration_and_options_around_the_trace_folder_do_not_count(
    tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (tmp_path / "conftest.py").write_text("raise SystemExit('loaded')\n")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--no-such-option")
    checks = by_name(run_kernels(trace(tmp_path / "trace", norm_h8=TEST), environment, Listener()))
    assert checks["norm_h8"].status == "pass"


def test_an_interruption_ends_the_tests_that_run(tmp_path: Path, environment: Environment) -> None:
    folder = trace(tmp_path / "trace", norm_h8="import time\ndef test_it(): time.sleep(60)\n")
    listener, raised = Listener(), []

    def run() -> None:
        try:
            run_kernels(folder, environment, listener)
        except KeyboardInterrupt as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        while not any(doing == "0 of 1 tests" for _, doing, _ in listener.shown):
            thread.join(0.05)
        processes.stop_all()
        thread.join(20)
    finally:
        processes.start()
    assert raised
    assert not thread.is_alive()


def test_the_projects_own_tests_are_skipped_without_torch(bare: Path) -> None:
    checks = by_name(run_kernels(ROOT / "flashinfer_trace", probe(bare), Listener(), only=["rmsnorm"]))
    assert {check.status for name, check in checks.items() if name != "total"} == {"skip"}
    assert checks["total"].status == "fail"
    assert json.dumps([vars(check) for check in checks.values()])
