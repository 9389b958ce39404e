"""The checks of the group `cuda`, with a real library in the driver's place and small programs in the compilers'."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tasks.models import Check
from tasks.packages import Environment, probe
from tasks.verify import cuda, machine
from tests import conftest
from tests.upstream import wheels

# What cuda_probe.py calls of libcuda.so.1: GPUs of compute capability GPU / 10 and SECOND / 10.
DRIVER = """
#include <stdlib.h>
#include <string.h>
int cuDriverGetVersion(int *version) { *version = CUDA; return 0; }
int cuInit(unsigned flags) { if (STATUS == 999) abort(); return STATUS; }
int cuGetErrorName(int status, const char **name) { *name = "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"; return 0; }
int cuDeviceGetCount(int *count) { const char *v = getenv("CUDA_VISIBLE_DEVICES"); *count = v && !*v ? 0 : SECOND ? 2 : 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    int gpu = device ? SECOND : GPU; *value = attribute == 75 ? gpu / 10 : gpu % 10; return 0; }
"""  # noqa: E501
NVCC = """#!/bin/sh
if [ "$1" = --version ]; then echo "Cuda compilation tools, release {release}, V{release}.88"; exit; fi
{compile}
"""


class Machine:
    """A machine with a driver, a GPU, a CUDA toolkit, and an environment with torch, ninja and FlashInfer in it."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder = folder
        self.environment: Environment = probe(python)
        self.environ = {"PATH": str(folder / "bin"), "HOME": str(folder), "LD_LIBRARY_PATH": str(folder / "driver")}
        (folder / "bin").mkdir()
        for name in ("sh", "gcc", "c++", "as", "ld"):
            (folder / "bin" / name).symlink_to(str(shutil.which(name)))
        self.install_driver()
        self.install_toolkit("13.0", folder / "cuda")
        self.environ["CUDA_HOME"] = str(folder / "cuda")
        self.environ["FLASHINFER_WORKSPACE_BASE"] = str(folder)
        self.environ["MAX_JOBS"] = "1"
        site = self.environment.purelib
        (site / "torch").mkdir()
        self.torch = site / "torch/version.py"
        self.torch.write_text("__version__ = '2.11.0+cu130'\ncuda: Optional[str] = '13.0'\n")
        self.ninja = python.parent / "ninja"
        self.ninja.symlink_to("/bin/true")
        for name in ("flashinfer-python", "flashinfer-cubin"):
            information = site / f"{name.replace('-', '_')}-0.7.2.dist-info"
            information.mkdir()
            (information / "METADATA").write_text(f"Name: {name}\nVersion: 0.7.2\n")

    def install_driver(self, gpu: int = 90, second: int = 0, status: int = 0, cuda: int = 13000) -> None:
        """Put a driver with one or two GPUs on the machine; it fails with a status that is not 0."""
        (self.folder / "driver").mkdir(exist_ok=True)
        library = self.folder / "driver/libcuda.so.1"
        subprocess.run(
            ["cc", "-shared", "-fPIC", f"-DGPU={gpu}", f"-DSECOND={second}", f"-DSTATUS={status}", f"-DCUDA={cuda}",
             "-x", "c", "-", "-o", library],
            input=DRIVER, text=True, check=True,
        )  # fmt: skip

    def install_toolkit(
        self, release: str, home: Path, compile: str = "echo 'int x;' | gcc -xc -c - -o trial.o"
    ) -> None:
        """Put a CUDA toolkit into `home`; its nvcc runs the line `compile`."""
        (home / "bin").mkdir(parents=True, exist_ok=True)
        (home / "lib64").mkdir(exist_ok=True)
        for name in ("cudart", "cuda"):
            subprocess.run(["cc", "-shared", "-xc", "/dev/null", "-o", home / f"lib64/lib{name}.so"], check=True)
        nvcc = home / "bin/nvcc"
        nvcc.write_text(NVCC.format(release=release, compile=compile))
        nvcc.chmod(0o755)

    def follow(self, command: str) -> dict[str, Check]:
        """The checks after the user has run the command in their shell."""
        shell = subprocess.run(
            ["/bin/sh", "-c", f"{command}\n/usr/bin/env -0"], env=self.environ, capture_output=True, check=True
        )
        self.environ = dict(line.split("=", 1) for line in shell.stdout.decode().split("\0") if line)
        return self.checks()

    def checks(self, needed: bool = False, pin: str = "", **variables: str | None) -> dict[str, Check]:
        """The checks by name, with `variables` set or (None) unset."""
        environ = {name: value for name, value in {**self.environ, **variables}.items() if value is not None}
        driver = machine.ask_driver(self.environment, environ)
        checks = cuda.check_cuda(self.environment, environ, driver, needed=needed, pin=pin)
        return {check.name.removeprefix("cuda: "): check for check in checks}


@pytest.fixture
def computer(tmp_path: Path, make_environment: Callable[..., conftest.Environment]) -> Machine:
    """A machine on which kernels compile."""
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler")
    return Machine(tmp_path, make_environment("verified").python)


def trouble(checks: Mapping[str, Check]) -> dict[str, str]:
    """The checks that did not pass, each with what fixes it."""
    assert all(check.hint or check.command for check in checks.values() if check.status in ("warn", "fail"))
    return {name: check.status for name, check in checks.items() if check.status != "pass"}


def test_a_machine_on_which_kernels_compile_passes_every_check(computer: Machine) -> None:
    checks = computer.checks()
    assert trouble(checks) == {}
    assert checks["driver"].detail == "supports CUDA up to 13.0"
    assert checks["gpus"].detail == "compute capability 9.0"
    assert checks["toolkit"].detail == f"{computer.folder}/cuda/bin/nvcc of CUDA 13.0 (from CUDA_HOME)"
    assert checks["torch"].detail == "built for CUDA 13.0"
    assert checks["cubins"].detail == "flashinfer-cubin 0.7.2"


@pytest.mark.parametrize(
    ("variable", "reason"),
    [
        ({"LD_LIBRARY_PATH": "/nothing"}, "there is no NVIDIA driver (libcuda.so.1)"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "none visible; CUDA_VISIBLE_DEVICES is ''"),
    ],
)
def test_without_a_gpu_there_is_one_line_with_the_reason(
    computer: Machine, variable: dict[str, str], reason: str
) -> None:
    checks = computer.checks(needed=True, **variable)
    assert trouble(checks) == {"driver": "skip"}
    assert checks["driver"].detail == f"no GPU can be used ({reason})"


@pytest.mark.parametrize(
    ("status", "told"), [(803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"), (999, "asking it ended with status -6")]
)
def test_a_driver_that_fails_or_crashes_is_a_warning(computer: Machine, status: int, told: str) -> None:
    computer.install_driver(status=status)
    checks = computer.checks()
    assert trouble(checks) == {"driver": "warn"}
    assert told in checks["driver"].detail


def test_a_gpu_that_is_too_old_is_named(computer: Machine) -> None:
    computer.install_driver(gpu=61)
    checks = computer.checks()
    assert trouble(checks) == {"gpus": "warn"}
    assert checks["gpus"].detail == "too old: compute capability 6.1"


def test_what_would_stop_a_compile_fails_where_kernels_are_needed(computer: Machine, tmp_path: Path) -> None:
    computer.ninja.unlink()
    assert trouble(computer.checks()) == {"ninja": "warn"}
    checks = computer.checks(needed=True)
    assert trouble(checks) == {"ninja": "fail"}
    wheels.write_wheel(tmp_path, "ninja", "1.13", {"ninja-1.13.data/scripts/ninja": "#!/bin/sh\n"})
    computer.environ |= {"UV_FIND_LINKS": str(tmp_path), "UV_OFFLINE": "1", "UV_CACHE_DIR": str(tmp_path / "cache")}
    assert trouble(computer.follow(checks["ninja"].command)) == {}


def test_a_cuda_home_that_is_none_is_shown_with_one_that_works(computer: Machine) -> None:
    path = f"{computer.folder}/cuda/bin:{computer.environ['PATH']}"
    computer.environ |= {"CUDA_HOME": "/nothing/cuda-12.8", "PATH": path}
    toolkit = computer.checks()["toolkit"]
    assert toolkit.status == "warn"
    assert toolkit.detail == "/nothing/cuda-12.8/bin/nvcc cannot be run (from CUDA_HOME)"
    assert trouble(computer.follow(toolkit.command)) == {}


def test_without_cuda_home_the_toolkit_is_that_of_the_nvcc_on_the_path(computer: Machine) -> None:
    home = computer.folder / "cuda"
    toolkit = computer.checks(CUDA_HOME=None, PATH=f"{home}/bin:{computer.environ['PATH']}")["toolkit"]
    assert toolkit.detail == f"{home}/bin/nvcc of CUDA 13.0 (from nvcc on the PATH)"


def test_without_any_toolkit_the_hint_says_what_to_install(computer: Machine) -> None:
    if Path(machine.DEFAULT_HOME).exists():
        pytest.skip("a CUDA toolkit is installed")
    checks = computer.checks(CUDA_HOME=None)
    assert trouble(checks) == {"toolkit": "warn", "compiler": "skip"}
    assert checks["toolkit"].detail == "/usr/local/cuda/bin/nvcc cannot be run (from the default)"
    assert checks["toolkit"].hint.startswith("Install the CUDA toolkit of torch's CUDA version")


@pytest.mark.parametrize(
    ("cuda_of_torch", "told"),
    [
        ("'12.8'", "CUDA 12.8, but nvcc is of CUDA 13.0"),
        ("None", "without"),
    ],
)
def test_torch_must_fit_the_driver_and_nvcc(computer: Machine, cuda_of_torch: str, told: str) -> None:
    computer.torch.write_text(f"cuda: Optional[str] = {cuda_of_torch}\n")
    checks = computer.checks()
    assert trouble(checks) == {"torch": "warn"}
    assert told in checks["torch"].detail


def test_a_trial_compile_shows_the_compilers_own_error(computer: Machine) -> None:
    error = "trial.cu:4:10: fatal error: curand_kernel.h: No such file or directory"
    computer.install_toolkit("13.0", computer.folder / "cuda", f"echo '{error}' >&2; exit 1")
    checks = computer.checks()
    assert trouble(checks) == {"compiler": "warn"}
    assert checks["compiler"].detail == f"nvcc cannot build for sm_90a: {error}"


def test_a_library_that_the_linker_misses_is_named(computer: Machine) -> None:
    (computer.folder / "cuda/lib64/libcuda.so").unlink()
    checks = computer.checks()
    assert trouble(checks) == {"compiler": "warn"}
    assert checks["compiler"].detail.endswith("cannot find -lcuda: No such file or directory")


def test_a_compiler_that_is_not_there_is_named(computer: Machine) -> None:
    checks = computer.checks(CXX="clang++-99")
    assert trouble(checks) == {"compiler": "warn"}
    assert "clang++-99" in checks["compiler"].detail


def test_the_trial_compile_has_the_options_of_flashinfers_own(computer: Machine) -> None:
    log = computer.folder / "log"
    link = 'for last; do :; done; echo "int x;" | gcc -xc -c - -o trial.o'
    computer.install_toolkit("13.0", computer.folder / "cuda", f'echo "$*" > {log}; {link}')
    computer.install_driver(gpu=80, second=90)
    assert trouble(computer.checks(FLASHINFER_EXTRA_CUDAFLAGS="-DA='b c' -I/wheel", CC="/usr/bin/gcc")) == {}
    assert log.read_text() == (
        "-ccbin /usr/bin/gcc --compiler-options=-fPIC --expt-relaxed-constexpr -static-global-template-stub=false "
        "-gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90a,code=sm_90a -DA=b c -I/wheel "
        "-c trial.cu -o trial.o\n"
    )
    computer.checks(FLASHINFER_CUDA_ARCH_LIST="9.0 10.0a 12.0")
    assert "sm_90a -gencode=arch=compute_100a,code=sm_100a -gencode=arch=compute_120f," in log.read_text()


def test_libraries_of_wheels_are_found_by_flashinfers_variable(computer: Machine) -> None:
    missing, wheel = computer.folder / "cuda/lib64/libcuda.so", computer.folder / "wheel"
    wheel.mkdir()
    missing.rename(wheel / missing.name)
    assert trouble(computer.checks()) == {"compiler": "warn"}
    assert trouble(computer.checks(FLASHINFER_EXTRA_LDFLAGS=f"-L{wheel}")) == {}


@pytest.mark.parametrize(("listed", "runs"), [("8.0", False), ("10.0a", False), ("8.0 9.0a", True), ("9.0", True)])
def test_kernels_for_other_gpus_than_the_visible_ones_are_a_warning(computer: Machine, listed: str, runs: bool) -> None:
    computer.environ["FLASHINFER_CUDA_ARCH_LIST"] = listed
    checks = computer.checks()
    assert trouble(checks) == ({} if runs else {"gpus": "warn"})
    if not runs:
        assert checks["gpus"].command == "unset FLASHINFER_CUDA_ARCH_LIST"
        assert trouble(computer.follow(checks["gpus"].command)) == {}


def test_a_driver_older_than_torchs_cuda_has_advice_that_fits_the_pins_of_sglang(computer: Machine) -> None:
    computer.install_driver(cuda=12080)
    check = computer.checks(pin="SGLang 0.5.23 requires torch==2.14.1")["torch"]
    assert check.detail == "built for CUDA 13.0, but the driver supports only 12.8"
    assert check.hint == (
        "Update the driver to one for CUDA 13. SGLang 0.5.23 requires torch==2.14.1: take an older SGLang, or name a "
        "torch for CUDA 12 in sources.overrides, and run `invoke install`."
    )
    computer.install_driver(cuda=13000)
    assert trouble(computer.checks()) == {}
    computer.install_driver(cuda=12080)
    computer.install_toolkit("12.8", computer.folder / "cuda")
    computer.torch.write_text("cuda: Optional[str] = '12.8'\n")
    assert trouble(computer.checks()) == {}


def test_a_toolkit_of_torchs_cuda_version_is_named(computer: Machine) -> None:
    other = computer.folder / "cuda-12.8"
    computer.install_toolkit("12.8", other)
    computer.environ |= {"CUDA_HOME": str(other), "PATH": f"{computer.folder}/cuda/bin:{computer.environ['PATH']}"}
    check = computer.checks()["torch"]
    assert check.detail == "built for CUDA 13.0, but nvcc is of CUDA 12.8"
    assert trouble(computer.follow(check.command)) == {}


def test_without_cubins_there_is_a_warning_that_names_their_index(computer: Machine) -> None:
    shutil.rmtree(next(computer.environment.purelib.glob("flashinfer_cubin*")))
    checks = computer.checks()
    assert trouble(checks) == {"cubins": "warn"}
    assert "https://flashinfer.ai/whl" in checks["cubins"].hint


def test_a_cache_that_cannot_be_made_is_named_with_the_variable(computer: Machine) -> None:
    (computer.folder / "file").touch()
    checks = computer.checks(FLASHINFER_WORKSPACE_BASE=str(computer.folder / "file"))
    assert trouble(checks) == {"cache": "warn"}
    assert checks["cache"].hint.startswith("Set FLASHINFER_WORKSPACE_BASE to a writable directory")


def test_too_many_jobs_for_the_memory_are_a_warning_even_where_kernels_are_needed(computer: Machine) -> None:
    checks = computer.checks(MAX_JOBS="100000", needed=True)
    assert trouble(checks) == {"memory": "warn"}
    assert trouble(computer.follow(checks["memory"].command)) == {}
