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
from tasks.packages import Environment, probe
from tasks.report import Report
from tasks.verify.kernels import run_kernels
from tests import conftest
from tests.conftest import ROOT
from tests.packages.conftest import put

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
import os, pytest, torch, flashinfer
def test_reference(): ...
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@pytest.mark.parametrize("rows", [1, 2])
def test_kernel(rows):
    flashinfer.kernel()
"""
CRASH = TEST.replace("flashinfer.kernel()", "os.abort()")
INHERITED = "from shared import Shared\nclass TestNorm(Shared): ...\n"
SHARED = "import flashinfer\nclass Shared:\n    def test_kernel(self): flashinfer.kernel()\n"
PYTEST = ("pytest", "_pytest", "pluggy", "iniconfig", "pygments", "py.py", "pytest-*.dist-info", "pluggy-*.dist-info",
          "exceptiongroup", "tomli", "typing_extensions.py")  # fmt: skip

Found = tuple[dict[str, str], dict[str, str]]


@pytest.fixture
def alone(make_environment: Callable[..., conftest.Environment], monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment with pytest (without pytest-xdist), FlashInfer and torch, and a GPU."""
    environment = probe(make_environment("verified").python)
    site, own = environment.purelib, Path(pytest.__file__).parent.parent
    for path in [path for pattern in PYTEST for path in own.glob(pattern)]:
        (site / path.name).symlink_to(path)
    (site / "torch.py").write_text(TORCH)
    (site / "flashinfer.py").write_text(FLASHINFER)
    (site / "gpu").touch()
    put(environment, "flashinfer-python", "9.8")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("MAX_JOBS", "2")
    return environment


@pytest.fixture
def environment(alone: Environment) -> Environment:
    """The same with pytest-xdist."""
    (alone.purelib / "pytest.pth").write_text(str(Path(pytest.__file__).parent.parent))
    return probe(alone.python)


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


def run(folder: Path, environment: Environment, *only: str, junit: Path | None = None) -> Found:
    """The statuses and the details of the checks, by what stands behind `kernels: `."""
    context = Context(Config(overrides={"run": {"hide": True}}))
    checks = run_kernels(context, folder, environment, Report(hide=True), only=only, junit=junit)
    names = [check.name.removeprefix("kernels: ") for check in checks]
    assert all(check.command or check.hint for check in checks if check.status in ("warn", "fail"))
    statuses: dict[str, str] = {name: check.status for name, check in zip(names, checks, strict=True)}
    return statuses, {name: check.detail for name, check in zip(names, checks, strict=True)}


def test_the_tests_of_chosen_definitions_run_in_several_processes_with_a_check_for_each_file(
    tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = max(1, (os.cpu_count() or 1) // 2)
    limits = f"assert (os.environ['MAX_JOBS'], os.environ['OMP_NUM_THREADS']) == ('1', '{threads}')"
    limited = TEST.replace("flashinfer.kernel()", f"flashinfer.kernel(); {limits}")
    folder = trace(tmp_path / "trace", norm_a=INHERITED, norm_b=limited, gemm_c="", gemm_d="", moe_e=CRASH)
    (folder / "tests/references/shared.py").write_text(SHARED)
    (folder / "tests/references/test_gemm.py").write_text(TEST)  # one file for all definitions of an op type
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (tmp_path / "conftest.py").write_text("raise SystemExit('loaded')\n")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--no-such-option")
    before = sorted(folder.rglob("*"))
    statuses, details = run(folder, environment, "norm", "gemm_c")
    assert statuses == {"gemm": "pass", "norm_a": "pass", "norm_b": "pass", "total": "pass"}, details
    assert details["norm_b"].startswith("3 passed, ")
    assert details["total"].startswith("5 tests ran kernels, FlashInfer 9.8, ")
    assert details["total"].endswith(", 2 at once")
    assert sorted(folder.rglob("*")) == before, "something was written into the trace data"
    with pytest.raises(UsageError, match="no definition or op type conv") as error:
        run(folder, environment, "norm", "conv")
    assert error.value.hint == "There are: gemm, moe, norm, gemm_c, gemm_d, moe_e, norm_a, norm_b."


WRONG = {
    "assert": (TEST.replace("flashinfer.kernel()", "assert rows == 2, 'off by one'"), "AssertionError: off by one"),
    "import": ("import nothing_of_that_name\n", "1 failed, 0 s; collection failure"),
    "syntax": ("def broken(:\n", "1 failed, 0 s; collection failure"),
    "empty": ("x = 1\n", "no result"),
    "missing": ("", "no result"),
}


def test_what_goes_wrong_in_one_definition_is_its_failure_and_stops_no_other(
    tmp_path: Path, environment: Environment
) -> None:
    sources = {name: source for name, (source, _) in WRONG.items()}
    junit = tmp_path / "results/kernels.xml"
    statuses, details = run(trace(tmp_path / "trace", **sources, gemm_n4=TEST), environment, junit=junit)
    assert statuses == {**dict.fromkeys(WRONG, "fail"), "gemm_n4": "pass", "total": "pass"}
    assert all(message in details[name] for name, (_, message) in WRONG.items()), details
    assert len([*ElementTree.parse(junit).iter("testcase")]) > len(WRONG)


def test_a_crash_ends_the_run_and_is_named(tmp_path: Path, environment: Environment, alone: Environment) -> None:
    folder = trace(tmp_path / "trace", norm_h8=CRASH, gemm_n4=TEST)
    statuses, details = run(folder, environment)
    assert statuses["norm_h8"] == "fail"
    assert "crashed while running" in details["norm_h8"]
    (alone.purelib / "pytest.pth").unlink()
    statuses, details = run(folder, probe(alone.python))
    assert {*statuses.values()} == {"fail"}
    assert "status" in details["gemm_n4"]


def test_a_run_without_a_kernel_is_a_failure_though_no_test_failed(tmp_path: Path, alone: Environment) -> None:
    failing = TEST.replace("flashinfer.kernel()", "flashinfer.kernel(); assert False")
    statuses, _ = run(trace(tmp_path / "failing", norm_h8=failing), alone)
    assert statuses == {"norm_h8": "fail", "total": "fail"}

    (alone.purelib / "gpu").unlink()
    skipping = 'import pytest\nnothing = pytest.importorskip("nothing", reason="nothing is not installed")\n'
    folder = trace(tmp_path / "trace", norm_h8=TEST, gemm_n4=skipping)
    statuses, details = run(folder, alone)
    assert statuses == {"norm_h8": "skip", "gemm_n4": "skip", "total": "fail"}
    assert details["norm_h8"].startswith("no test recorded that it ran a kernel: 1 passed, 2 skipped, ")

    (folder / "tests/conftest.py").unlink()  # trace data that records nothing
    assert run(folder, alone)[0] == {"norm_h8": "skip", "gemm_n4": "skip", "total": "warn"}


def test_an_interruption_ends_the_run_and_without_pytest_or_definitions_nothing_passes(
    tmp_path: Path, alone: Environment
) -> None:
    with pytest.raises(Interrupted):
        run(trace(tmp_path / "interrupted", norm_h8="def test_it(): raise KeyboardInterrupt\n"), alone)
    assert run(trace(tmp_path / "empty"), alone)[0] == {"total": "fail"}
    (alone.purelib / "pytest").unlink()
    statuses, details = run(trace(tmp_path / "trace", norm_h8=TEST), alone)
    assert statuses == {"norm_h8": "fail", "total": "fail"}
    assert "No module named pytest" in details["norm_h8"]
