"""Runs programs of this machine, and checks what it has for kernels: driver, GPUs, torch, CUDA toolkit, C++ compiler.

FlashInfer compiles a kernel at its first use, so it may import in an environment that can run none. The checks look for
programs and options where `jit/cpp_ext.py` and `compilation_context.py` of FlashInfer 0.6 and 0.7 do.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..models import Check, Status
from ..names import shell
from ..packages import Environment

PROBE = Path(__file__).with_name("cuda_probe.py")
OLDEST_GPU = [7, 5]  # compute capability
VARIABLES = ("FLASHINFER_CUDA_ARCH_LIST", "CC", "CXX", "FLASHINFER_EXTRA_CUDAFLAGS", "FLASHINFER_EXTRA_LDFLAGS")
TOOLKIT_HINT = "Install g++ and the CUDA toolkit of torch's CUDA version, complete, and set CUDA_HOME to its directory."
TRIAL = """#include <cuda_runtime.h>
#include <cuda_fp8.h>
#include <cublasLt.h>
#include <curand_kernel.h>
__global__ void kernel() {}
"""  # the parts of the toolkit that FlashInfer's sources include

Version = list[int]


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
    checks = [_gpus(driver)]
    if driver["gpus"]:
        home, release = _toolkit()
        checks += [_torch(environment, driver["cuda"], release), _compiler(home, driver["gpus"])]
    failure: Status = "fail" if needed else "warn"
    for check in checks:
        yield replace(check, status=failure) if check.status == "fail" else check


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


def _gpus(driver: Mapping[str, Any]) -> Check:
    """Whether the driver can be used, and FlashInfer knows the GPUs."""
    gpus, error = driver["gpus"], driver["error"]
    shown = f"compute capability {', '.join(map(_dotted, gpus))}"
    if not gpus and error and driver["cuda"] is not None:
        hint = "After an update of the driver, restart the machine; `nvidia-smi` shows its state."
        return Check("gpus", "fail", f"the driver cannot be used: {error}", hint)
    if not gpus:
        return Check("gpus", "skip", f"no GPU can be used ({error or 'none is visible'})")
    if min(gpus) < OLDEST_GPU:
        hint = f"FlashInfer needs {_dotted(OLDEST_GPU)}. Set CUDA_VISIBLE_DEVICES to the numbers of newer GPUs."
        return Check("gpus", "fail", f"too old: {shown}", hint)
    return Check("gpus", "pass", f"{shown}, with a driver for CUDA up to {_dotted(driver['cuda'])}")


def _toolkit() -> tuple[str, Version]:
    """The directory of the CUDA toolkit that FlashInfer uses, and the version of its nvcc, empty if that cannot run."""
    on_path = shutil.which("nvcc")
    default = str(Path(on_path).parent.parent) if on_path else "/usr/local/cuda"
    home = os.environ.get("CUDA_HOME") or default
    done = run([f"{home}/bin/nvcc", "--version"])
    shown = re.search(r"release (\d+)\.(\d+)", done.stdout)
    return home, [int(part) for part in shown.groups()] if shown else []


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


def _compiler(home: str, gpus: Sequence[Version]) -> Check:
    """Whether nvcc and the C++ compiler build a library from an empty kernel, with the user's variables."""
    listed, cc, cxx, cuda_flags, ld_flags = (os.environ.get(name, "") for name in VARIABLES)
    architectures = re.findall(r"(\d+)\.(\d+)([a-z]?)", listed) or gpus
    names = sorted({"".join(map(str, architecture)) for architecture in architectures})
    codes = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in names]
    host = ["-ccbin", cc] if cc else []
    compile_ = shell(f"{home}/bin/nvcc", *host, "--compiler-options=-fPIC", *codes, "-c", "trial.cu", "-o", "trial.o")
    link = shell("trial.o", "-shared", f"-L{home}/lib64", f"-L{home}/lib64/stubs", "-lcudart", "-lcuda", "-otrial.so")
    what = ", ".join(f"sm_{name}" for name in names)
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "trial.cu").write_text(TRIAL)
        script = f"{compile_} {cuda_flags} &&\n{cxx or 'c++'} {link} {ld_flags}"
        done = run(["sh", "-c", script], timeout=300, cwd=directory)
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        reason = next((line for line in lines if re.search("error|fatal|cannot find|not found", line)), lines[-1])
        hints = [TOOLKIT_HINT, *(f"Or correct {name}." for name in VARIABLES if os.environ.get(name))]
        return Check("compiler", "fail", f"cannot build for {what}: {reason}", " ".join(hints))
    return Check("compiler", "pass", f"{home}/bin/nvcc builds for {what}")
