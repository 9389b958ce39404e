"""Runs programs of this machine, and checks what it has for kernels: driver, GPUs, CUDA toolkit, compilers, cubins.

FlashInfer compiles a kernel at its first use, so it may import in an environment that can run none. The checks look for
programs, options and directories where `jit/cpp_ext.py`, `jit/env.py` and `compilation_context.py` of FlashInfer 0.6
and 0.7 do.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..models import Check, Status
from ..packages import Environment

PROBE = Path(__file__).with_name("cuda_probe.py")
OLDEST_GPU = [7, 5]  # compute capability
SPECIFIC = 9  # from this compute capability on FlashInfer builds for one architecture alone, such as sm_90a
ARCHITECTURES = "FLASHINFER_CUDA_ARCH_LIST"
EXTRA_FLAGS = ("FLASHINFER_EXTRA_CUDAFLAGS", "FLASHINFER_EXTRA_LDFLAGS")
CUBINS_INDEX = "https://flashinfer.ai/whl"
TOOLKIT_HINT = "Install g++ and the CUDA toolkit of torch's CUDA version, complete, and set CUDA_HOME to its directory."
TRIAL = """#include <cuda_runtime.h>
#include <cuda_fp8.h>
#include <cublasLt.h>
#include <curand_kernel.h>
__global__ void kernel() {}
"""  # the parts of the toolkit that FlashInfer's sources include

Version = list[int]
Architecture = tuple[int, int, str]  # such as (9, 0, "a") for sm_90a


def run(argv: Sequence[str | Path], timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program and return what it printed; where it cannot be run to its end, why is in `stderr`."""
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout,
            check=False, **options,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(argv, -1, "", str(error))


def ask_driver(environment: Environment) -> dict[str, Any]:
    """Return what `cuda_probe.ask` returns; of a driver that crashes or hangs, that as its `error`."""
    asked = run([environment.python, "-I", PROBE])
    try:
        answer: dict[str, Any] = json.loads(asked.stdout)
    except ValueError:
        return {"cuda": [], "error": f"asking it ended with status {asked.returncode}", "gpus": []}
    return answer


def check_cuda(environment: Environment, driver: Mapping[str, Any], *, needed: bool) -> Iterator[Check]:
    """Check everything that FlashInfer needs to compile kernels for this machine's GPUs.

    `driver` is what `ask_driver` returned. What would prevent a compilation is a warning, or a failure if kernels are
    `needed`. Without a GPU there is one check. nvcc compiles an empty kernel, in seconds.
    """
    checks, gpus = [_driver(driver)], driver["gpus"]
    if gpus:
        home, release = _toolkit()
        architectures = _architectures(gpus, release)
        checks += [
            _gpus(gpus, architectures),
            _torch(environment, driver["cuda"], release),
            _compiler(home, release, architectures),
            _cubins(environment),
        ]
    failure: Status = "fail" if needed else "warn"
    for check in checks:
        yield replace(check, status=failure) if check.status == "fail" else check


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


def _driver(driver: Mapping[str, Any]) -> Check:
    if driver["gpus"]:
        return Check("driver", "pass", f"supports CUDA up to {_dotted(driver['cuda'])}")
    if driver["error"] and driver["cuda"] is not None:
        hint = "After an update of the driver, restart the machine; `nvidia-smi` shows its state."
        return Check("driver", "fail", f"it cannot be used: {driver['error']}", hint)
    return Check("driver", "skip", f"no GPU can be used ({driver['error'] or 'none is visible'})")


def _toolkit() -> tuple[str, Version]:
    """The directory of the CUDA toolkit that FlashInfer uses, and the version of its nvcc, empty if that cannot run."""
    on_path = shutil.which("nvcc")
    default = str(Path(on_path).parent.parent) if on_path else "/usr/local/cuda"
    home = os.environ.get("CUDA_HOME") or default
    done = run([f"{home}/bin/nvcc", "--version"])
    shown = re.search(r"release (\d+)\.(\d+)", done.stdout)
    return home, [int(part) for part in shown.groups()] if shown else []


def _architectures(gpus: Sequence[Version], nvcc: Version) -> list[Architecture]:
    """What FlashInfer builds kernels for: the architectures of the variable, or else those of the GPUs."""
    listed = re.findall(r"(\d+)\.(\d+)([a-z]?)", os.environ.get(ARCHITECTURES, ""))
    architectures = set()
    for major, minor, suffix in listed or [(*gpu, "") for gpu in gpus]:
        family = f"{major}.{minor}" == "12.0" and nvcc >= [12, 9]
        usual = "f" if family else "a" if int(major) >= SPECIFIC else ""
        architectures.add((int(major), int(minor), suffix or usual))
    return sorted(architectures)


def _gpus(gpus: Sequence[Version], architectures: Sequence[Architecture]) -> Check:
    """Whether FlashInfer knows the GPUs, and what it builds runs on one of them."""
    shown = f"compute capability {', '.join(_dotted(gpu) for gpu in gpus)}"
    if min(gpus) < OLDEST_GPU:
        hint = f"FlashInfer needs {_dotted(OLDEST_GPU)}. Set CUDA_VISIBLE_DEVICES to the numbers of newer GPUs."
        return Check("gpus", "fail", f"too old: {shown}", hint)
    for major, minor, suffix in architectures:
        if any(major == gpu[0] and (minor == gpu[1] if suffix == "a" else minor <= gpu[1]) for gpu in gpus):
            return Check("gpus", "pass", shown)
    detail = f"{ARCHITECTURES} is '{os.environ[ARCHITECTURES]}'; such kernels do not run on {shown}"
    return Check("gpus", "fail", detail, command=f"unset {ARCHITECTURES}")


def _torch(environment: Environment, driver: Version, nvcc: Version) -> Check:
    """Whether torch, the driver and nvcc are of one major version of CUDA, and the driver is not older."""
    file = next((file for path in environment.paths if (file := path / "torch" / "version.py").is_file()), None)
    if not file:
        return Check("torch", "skip", "not installed")
    found = re.search(r"^cuda\b[^=]*=\s*['\"](\d+)\.(\d+)", file.read_text("utf-8", "replace"), re.M)
    override = f"name a torch for CUDA {driver[0]} in sources.overrides and run `invoke install`."
    if not found:
        return Check("torch", "fail", "built without CUDA", f"In invoke.yaml, {override}")
    built, major = f"built for CUDA {found[1]}.{found[2]}", int(found[1])
    if major > driver[0]:
        hint = f"Update the driver to one for CUDA {major}, or take an older SGLang, or {override}"
        return Check("torch", "fail", f"{built}, but the driver supports only {_dotted(driver)}", hint)
    if nvcc and nvcc[0] != major:
        hint = f"Install a toolkit of CUDA {major}, and set CUDA_HOME to its directory."
        return Check("torch", "fail", f"{built}, but nvcc is of CUDA {_dotted(nvcc)}", hint)
    return Check("torch", "pass", built)


def _compiler(home: str, release: Version, architectures: Sequence[Architecture]) -> Check:
    """Whether nvcc and the C++ compiler can build a library from an empty kernel, with FlashInfer's options."""
    names = [f"{major}{minor}{suffix}" for major, minor, suffix in architectures]
    try:
        cxx, cuda_flags, ld_flags = (shlex.split(os.environ.get(name, "")) for name in ("CXX", *EXTRA_FLAGS))
    except ValueError as error:
        return Check("compiler", "fail", f"CXX or one of {', '.join(EXTRA_FLAGS)} cannot be read: {error}", "Unset it.")
    host = ["-ccbin", os.environ["CC"]] if "CC" in os.environ else []
    stub = ["-static-global-template-stub=false"] if release >= [12, 8] else []
    codes = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in names]
    commands = (
        [f"{home}/bin/nvcc", *host, "--compiler-options=-fPIC", "--expt-relaxed-constexpr", *stub, *codes, *cuda_flags,
         "-c", "trial.cu", "-o", "trial.o"],
        [*(cxx or ["c++"]), "trial.o", "-shared", f"-L{home}/lib64", f"-L{home}/lib64/stubs", "-lcudart", "-lcuda",
         *ld_flags, "-o", "trial.so"],
    )  # fmt: skip
    what = ", ".join(f"sm_{name}" for name in names)
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "trial.cu").write_text(TRIAL)
        for command in commands:
            done = run(command, timeout=300, cwd=directory)
            if done.returncode:
                lines = (done.stderr + done.stdout).strip().splitlines() or [f"status {done.returncode}"]
                reason = next((line for line in lines if re.search("error|fatal|cannot find", line)), lines[-1])
                detail = f"{Path(command[0]).name} cannot build for {what}: {reason}"
                return Check("compiler", "fail", detail, TOOLKIT_HINT)
    return Check("compiler", "pass", f"{home}/bin/nvcc of CUDA {_dotted(release)} builds for {what}")


def _cubins(environment: Environment) -> Check:
    if found := environment.distribution("flashinfer-cubin"):
        return Check("cubins", "pass", f"flashinfer-cubin {found.version}")
    detail = "flashinfer-cubin is not installed: some kernels are downloaded at their first use"
    return Check("cubins", "warn", detail, f"The index {CUBINS_INDEX} has it for releases of FlashInfer.")
