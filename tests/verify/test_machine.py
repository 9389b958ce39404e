"""The checks of the group `cuda`, with a small library in the driver's place and a script in that of nvcc."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from tasks.models import Check
from tasks.packages import Environment, probe
from tasks.verify import machine
from tests import conftest

# What cuda_probe.py calls of libcuda.so.1; variables say what it answers: CUDA, STATUS, and GPU and SECOND, which are
# compute capabilities without a dot.
DRIVER = """
#include <stdlib.h>
static int given(const char *name) { const char *value = getenv(name); return value ? atoi(value) : 0; }
int cuDriverGetVersion(int *version) { *version = given("CUDA"); return 0; }
int cuInit(unsigned flags) { if (given("STATUS") == 999) abort(); return given("STATUS"); }
int cuGetErrorName(int status, const char **name) { *name = "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"; return 0; }
int cuDeviceGetCount(int *count) { *count = !!given("GPU") + !!given("SECOND"); return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    int gpu = given(device ? "SECOND" : "GPU"); *value = attribute == 75 ? gpu / 10 : gpu % 10; return 0; }
"""
# Variables say what it is and what it fails with. It writes its arguments to the file `log`.
NVCC = """#!/bin/sh
if [ "$1" = --version ]; then echo "Cuda compilation tools, release $NVCC, V$NVCC.88"; exit; fi
echo "$*" > "$HOME/log"
if [ "$FAILURE" ]; then echo "$FAILURE" >&2; exit 1; fi
echo 'int x;' | cc -xc -c - -o trial.o
"""
VARIABLES = {"GPU": "90", "CUDA": "13000", "NVCC": "13.0"}


class Machine:
    """A machine with a driver, a GPU, a CUDA toolkit, and an environment with torch and FlashInfer in it."""

    def __init__(self, folder: Path, library: Path, python: Path) -> None:
        self.folder = folder
        self.environment: Environment = probe(python)
        home = folder / "cuda"
        for name in ("driver/libcuda.so.1", "cuda/lib64/libcuda.so", "cuda/lib64/libcudart.so"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, folder / name)
        (home / "bin").mkdir()
        (home / "bin/nvcc").write_text(NVCC)
        (home / "bin/nvcc").chmod(0o755)
        paths = {"HOME": folder, "LD_LIBRARY_PATH": folder / "driver", "CUDA_HOME": home}
        self.environ = {**VARIABLES, "PATH": os.environ["PATH"], **{name: str(path) for name, path in paths.items()}}
        site = self.environment.purelib
        self.torch = site / "torch/version.py"
        self.torch.parent.mkdir()
        self.torch.write_text("__version__ = '2.11.0+cu130'\ncuda: Optional[str] = '13.0'\n")

    def checks(self, *, needed: bool = False, **variables: Any) -> dict[str, Check]:
        """The checks by name, with more variables."""
        with patch.dict(os.environ, {**self.environ, **variables}, clear=True):
            driver = machine.ask_driver(self.environment)
            return {check.name: check for check in machine.check_cuda(self.environment, driver, needed=needed)}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver, compiled."""
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler")
    path = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", path], input=DRIVER, text=True, check=True)
    return path


@pytest.fixture
def computer(library: Path, tmp_path: Path, make_environment: Callable[..., conftest.Environment]) -> Machine:
    """A machine on which kernels compile."""
    return Machine(tmp_path, library, make_environment("verified").python)


def trouble(checks: Mapping[str, Check]) -> dict[str, str]:
    """The checks that did not pass."""
    assert all(check.hint or check.command for check in checks.values() if check.status in ("warn", "fail"))
    return {name: check.status for name, check in checks.items() if check.status != "pass"}


def test_a_machine_on_which_kernels_compile_passes_every_check(computer: Machine) -> None:
    checks = computer.checks()
    assert trouble(checks) == {}
    assert {name: check.detail for name, check in checks.items()} == {
        "gpus": "compute capability 9.0, with a driver for CUDA up to 13.0",
        "torch": "built for CUDA 13.0",
        "compiler": f"{computer.folder}/cuda/bin/nvcc builds for sm_90",
    }
    on_path = computer.checks(CUDA_HOME="", PATH=f"{computer.folder}/cuda/bin:{computer.environ['PATH']}")
    assert on_path == checks


@pytest.mark.parametrize(
    ("variable", "status", "detail"),
    [
        ({"LD_LIBRARY_PATH": "/nothing"}, "skip", "no GPU can be used (there is no NVIDIA driver (libcuda.so.1))"),
        ({"GPU": "0"}, "skip", "no GPU can be used (none is visible)"),
        ({"STATUS": "100"}, "skip", "no GPU can be used (none is visible)"),
        ({"STATUS": "803"}, "fail", "the driver cannot be used: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
        ({"STATUS": "999"}, "fail", "the driver cannot be used: asking it ended with status -6"),
    ],
)
def test_without_a_usable_gpu_there_is_one_check_with_the_reason(
    computer: Machine, variable: dict[str, Any], status: str, detail: str
) -> None:
    checks = computer.checks(needed=True, **variable)
    assert trouble(checks) == {"gpus": status}
    assert checks["gpus"].detail == detail


@pytest.mark.parametrize(
    ("name", "variables", "detail"),
    [
        ("gpus", {"GPU": "61"}, "too old: compute capability 6.1"),
        ("torch", {"NVCC": "12.8"}, "built for CUDA 13.0, but nvcc is of CUDA 12.8"),
        ("compiler", {"CUDA_HOME": "/nothing"}, "/nothing/bin/nvcc"),
        ("compiler", {"FAILURE": "fatal error: curand.h"}, "cannot build for sm_90: fatal error: curand.h"),
        ("compiler", {"CXX": "clang++-99"}, "clang++-99"),
        ("compiler", {"FLASHINFER_EXTRA_LDFLAGS": "-lnothing"}, "cannot find -lnothing"),
        ("compiler", {"FLASHINFER_EXTRA_CUDAFLAGS": "-DA='"}, "cannot build for sm_90"),
    ],
)
def test_what_would_stop_a_compilation_is_named(
    computer: Machine, name: str, variables: dict[str, Any], detail: str
) -> None:
    checks = computer.checks(**variables)
    assert trouble(checks) == {name: "warn"}
    assert detail in checks[name].detail
    assert name != "compiler" or all(variable in checks[name].hint for variable in {*variables} - {"FAILURE"})
    assert trouble(computer.checks(needed=True, **variables)) == {name: "fail"}


def test_the_trial_compile_has_the_variables_of_flashinfers_own(computer: Machine) -> None:
    (computer.folder / "cuda/lib64/libcuda.so").rename(computer.folder / "libcuda.so")  # as in a wheel
    more: dict[str, Any] = {
        "FLASHINFER_EXTRA_LDFLAGS": f"-L{computer.folder}",
        "FLASHINFER_EXTRA_CUDAFLAGS": "-DA='b c' -I/wheel",
    }
    assert trouble(computer.checks(GPU="80", SECOND="90", CC="/usr/bin/gcc", **more)) == {}
    log = computer.folder / "log"
    assert log.read_text() == (
        "-ccbin /usr/bin/gcc --compiler-options=-fPIC -gencode=arch=compute_80,code=sm_80 "
        "-gencode=arch=compute_90,code=sm_90 -c trial.cu -o trial.o -DA=b c -I/wheel\n"
    )
    assert trouble(computer.checks(FLASHINFER_CUDA_ARCH_LIST="10.0a", **more)) == {}
    assert "-gencode=arch=compute_100a,code=sm_100a -c" in log.read_text()


def test_what_is_advised_about_torch_fits_the_pins_of_sglang(computer: Machine) -> None:
    check = computer.checks(CUDA="12080")["torch"]
    assert check.detail == "built for CUDA 13.0, but the driver supports only 12.8"
    assert check.hint == (
        "Update the driver to one for CUDA 13, or take an older SGLang, or name a torch for CUDA 12 in "
        "sources.overrides and run `invoke install`."
    )
    computer.torch.write_text("cuda: Optional[str] = '12.8'\n")
    assert trouble(computer.checks(CUDA="12080", NVCC="12.8")) == {}
    computer.torch.write_text("cuda: Optional[str] = None\n")
    assert computer.checks()["torch"].detail == "built without CUDA"
    computer.torch.unlink()
    assert trouble(computer.checks()) == {"torch": "skip"}
