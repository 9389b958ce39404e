"""`verify --kernels`: the reference tests of trace data in the verified environment, with stand-ins for the GPU."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from invoke.config import Config
from invoke.context import Context

from tasks.errors import Interrupted, UsageError
from tasks.models import Check
from tasks.packages import Environment, probe
from tasks.report import Report
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
def test_kernel(rows):
    flashinfer.kernel()
"""


def kernel(code: str) -> str:
    """TEST with other code in place of the kernel."""
    return TEST.replace("flashinfer.kernel()", code)


@pytest.fixture
def bare(make_environment: Callable[..., conftest.Environment], monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment with pytest, without the other plugins of this one."""
    environment = probe(make_environment("verified").python)
    (environment.purelib / "pytest.pth").write_text(str(Path(pytest.__file__).parent.parent))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("MAX_JOBS", "2")
    return probe(environment.python)


@pytest.fixture
def environment(bare: Environment) -> Environment:
    """An environment with pytest, FlashInfer and torch, and a GPU."""
    site = bare.purelib
    (site / "torch.py").write_text(TORCH)
    (site / "flashinfer.py").write_text(FLASHINFER)
    (site / "gpu").touch()
    (site / "flashinfer_python-9.8.dist-info").mkdir()
    (site / "flashinfer_python-9.8.dist-info/METADATA").write_text("Name: flashinfer-python\nVersion: 9.8\n")
    return bare


@pytest.fixture
def alone(environment: Environment) -> Environment:
    """The same without pytest-xdist."""
    (environment.purelib / "pytest.pth").unlink()
    site = Path(pytest.__file__).parent.parent
    for path in (site / name for name in ("pytest", "_pytest", "pluggy", "iniconfig", "pygments", "py.py")):
        (environment.purelib / path.name).symlink_to(path)
    for path in (*site.glob("pytest-*.dist-info"), *site.glob("pluggy-*.dist-info")):
        (environment.purelib / path.name).symlink_to(path)
    return probe(environment.python)


def trace(folder: Path, **tests: str) -> Path:
    """A trace folder with a definition for each of `tests`, whose op type is what stands before `_`."""
    (folder / "tests/references").mkdir(parents=True)
    shutil.copy(ROOT / "flashinfer_trace/tests/conftest.py", folder / "tests")
    for name, source in tests.items():
        file = folder / "definitions" / name.partition("_")[0] / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
        if source:
            (folder / f"tests/references/test_{name}.py").write_text(source)
    return folder


def run(folder: Path, environment: Environment, *only: str, junit: Path | None = None) -> dict[str, Check]:
    """The checks without what stands before `: `."""
    context = Context(Config(overrides={"run": {"hide": True}}))
    with Report(hide=True) as report:
        checks = run_kernels(context, folder, environment, report, only=only, junit=junit)
    assert all(check.name.startswith("kernels: ") for check in checks)
    return {check.name.removeprefix("kernels: "): check for check in checks}


def test_a_check_for_each_definition_counts_its_tests(tmp_path: Path, environment: Environment) -> None:
    folder = trace(tmp_path / "trace", norm_h8=TEST, gemm_n4=TEST)
    before = sorted(folder.rglob("*"))
    checks = run(folder, environment)
    assert list(checks) == ["gemm_n4", "norm_h8", "total"]
    assert {check.status for check in checks.values()} == {"pass"}, checks
    assert checks["norm_h8"].detail.startswith("3 passed, ")
    assert checks["total"].detail.startswith("4 tests ran kernels of FlashInfer 9.8, ")
    assert checks["total"].detail.endswith(", 2 at once")
    assert sorted(folder.rglob("*")) == before, "something was written into the trace data"


def test_without_pytest_xdist_the_tests_run_one_after_the_other(tmp_path: Path, alone: Environment) -> None:
    checks = run(trace(tmp_path / "trace", norm_h8=TEST, gemm_n4=TEST), alone)
    assert {check.status for check in checks.values()} == {"pass"}, checks
    assert checks["total"].detail.endswith(", 1 at once")


def test_a_run_without_a_kernel_is_a_failure_though_no_test_failed(tmp_path: Path, environment: Environment) -> None:
    (environment.purelib / "gpu").unlink()
    skipping = 'import pytest\nnothing = pytest.importorskip("nothing", reason="nothing is not installed")\n'
    checks = run(trace(tmp_path / "t", norm_h8=TEST, gemm_n4=skipping), environment)
    assert {name: check.status for name, check in checks.items()} == {
        "norm_h8": "skip", "gemm_n4": "skip", "total": "fail",
    }  # fmt: skip
    assert "no kernel ran: 1 passed, 2 skipped, " in checks["norm_h8"].detail
    assert "no kernel ran: 1 skipped, " in checks["gemm_n4"].detail
    assert checks["total"].hint


def test_of_trace_data_that_records_no_use_of_the_gpu_it_is_not_claimed(
    tmp_path: Path, environment: Environment
) -> None:
    folder = trace(tmp_path / "trace", norm_h8=TEST)
    (folder / "tests/conftest.py").unlink()
    checks = run(folder, environment)
    assert {name: check.status for name, check in checks.items()} == {"norm_h8": "skip", "total": "warn"}
    assert "cannot be told" in checks["norm_h8"].detail
    shutil.copy(ROOT / checks["total"].hint.split()[-2], folder / "tests")
    assert {check.status for check in run(folder, environment).values()} == {"pass"}


WRONG = {
    "assert": (kernel("assert rows == 2, 'off by one'"), "test_kernel[1]: AssertionError: off by one"),
    "import": ("import nothing_of_that_name\n", "No module named 'nothing_of_that_name'"),
    "syntax": ("def broken(:\n", "SyntaxError"),
    "empty": ("x = 1\n", "no result"),
    "missing": ("", "no result"),
}


def test_what_goes_wrong_in_one_definition_is_its_failure_and_stops_no_other(
    tmp_path: Path, environment: Environment
) -> None:
    sources = {name: source for name, (source, _) in WRONG.items()}
    folder, junit = trace(tmp_path / "trace", **sources, gemm_n4=TEST), tmp_path / "results/kernels.xml"
    checks = run(folder, environment, junit=junit)
    assert {name for name, check in checks.items() if check.status == "fail"} == {*WRONG}, checks
    assert {name for name, check in checks.items() if check.status == "pass"} == {"gemm_n4", "total"}
    for name, (_, message) in WRONG.items():
        assert message in checks[name].detail
        assert checks[name].command.endswith(f"test_{name}.py")
    assert len([*ElementTree.parse(junit).iter("testcase")]) > len(WRONG)


def test_a_crash_ends_the_run_and_is_named(tmp_path: Path, environment: Environment) -> None:
    checks = run(trace(tmp_path / "trace", norm_h8=kernel("import os; os.abort()"), gemm_n4=TEST), environment)
    assert checks["norm_h8"].status == "fail"
    assert "crashed while running" in checks["norm_h8"].detail


def test_a_crash_without_pytest_xdist_is_a_failure_of_every_definition(tmp_path: Path, alone: Environment) -> None:
    checks = run(trace(tmp_path / "trace", norm_h8=kernel("import os; os.abort()"), gemm_n4=TEST), alone)
    assert {check.status for check in checks.values()} == {"fail"}
    assert "status" in checks["gemm_n4"].detail


def test_kernels_that_fail_did_not_run(tmp_path: Path, environment: Environment) -> None:
    checks = run(trace(tmp_path / "trace", norm_h8=kernel("flashinfer.kernel(); assert False")), environment)
    assert (checks["norm_h8"].status, checks["total"].status) == ("fail", "fail")


def test_definitions_can_be_chosen_by_name_or_op_type(tmp_path: Path, environment: Environment) -> None:
    folder = trace(tmp_path / "trace", **dict.fromkeys(("norm_a", "norm_b", "gemm_c", "gemm_d", "moe_e"), ""))
    assert [*run(folder, environment, "norm", "gemm_c")] == ["gemm_c", "norm_a", "norm_b", "total"]
    with pytest.raises(UsageError, match="no definition or op type conv") as error:
        run(folder, environment, "norm", "conv")
    assert error.value.hint == "There are: gemm, moe, norm, gemm_c, gemm_d, moe_e, norm_a, norm_b."


def test_tests_that_are_inherited_from_a_class_of_another_file_count(tmp_path: Path, environment: Environment) -> None:
    body = "import flashinfer\nclass Shared:\n    def test_kernel(self): flashinfer.kernel()\n"
    folder = trace(tmp_path / "trace", norm_a="from shared import Shared\nclass TestA(Shared): ...\n", norm_b=TEST)
    (folder / "tests/references/shared.py").write_text(body)
    checks = run(folder, environment)
    assert {check.status for check in checks.values()} == {"pass"}, checks


def test_an_op_type_may_have_one_file_of_tests(tmp_path: Path, environment: Environment) -> None:
    folder = trace(tmp_path / "trace", norm_a="", norm_b="")
    (folder / "tests/references/test_norm.py").write_text(TEST)
    checks = run(folder, environment)
    assert {name: check.status for name, check in checks.items()} == {"norm": "pass", "total": "pass"}


def test_the_compile_jobs_and_threads_of_all_processes_fit_the_machine(
    tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_JOBS", "5")
    threads = max(1, (os.cpu_count() or 1) // 2)
    code = f"import os; assert os.environ['MAX_JOBS'] == '2' and os.environ['OMP_NUM_THREADS'] == '{threads}'"
    checks = run(trace(tmp_path / "t", norm_a=kernel(code), norm_b=kernel(code)), environment)
    assert "failed" not in checks["norm_a"].detail


def test_configuration_and_options_around_the_trace_folder_do_not_count(
    tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (tmp_path / "conftest.py").write_text("raise SystemExit('loaded')\n")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--no-such-option")
    assert run(trace(tmp_path / "trace", norm_h8=TEST), environment)["norm_h8"].status == "pass"


def test_an_interruption_ends_the_run(tmp_path: Path, environment: Environment) -> None:
    with pytest.raises(Interrupted):
        run(trace(tmp_path / "trace", norm_h8="def test_it(): raise KeyboardInterrupt\n"), environment)


def test_the_projects_own_tests_are_skipped_without_torch(bare: Environment) -> None:
    checks = run(ROOT / "flashinfer_trace", bare, "rmsnorm")
    assert {check.status for name, check in checks.items() if name != "total"} == {"skip"}
    assert checks["total"].status == "fail"
