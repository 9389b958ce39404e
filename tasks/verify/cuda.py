"""Checks of what FlashInfer needs to compile and run kernels: driver, GPUs, CUDA toolkit, compilers, memory, cache.

FlashInfer compiles a kernel at its first use, so it may import in an environment that can run none. The checks look for
programs, options and directories where `jit/cpp_ext.py`, `jit/env.py` and `compilation_context.py` of FlashInfer 0.6
and 0.7 do.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..models import Check, Status
from ..names import shell
from ..packages import Environment
from . import machine
from .machine import GB, JOB, Toolkit

FREE = 1 * GB  # bytes that should be free for FlashInfer's cache
OLDEST_GPU = [7, 5]  # compute capability
SPECIFIC = 9  # from this compute capability on FlashInfer builds for one architecture alone, such as sm_90a
ARCHITECTURES = "FLASHINFER_CUDA_ARCH_LIST"
CUBINS_INDEX = "https://flashinfer.ai/whl"
TRIAL = """#include <cuda_runtime.h>
#include <cuda_fp8.h>
#include <cublasLt.h>
#include <curand_kernel.h>
__global__ void kernel() {}
"""  # the parts of the toolkit that FlashInfer's sources include


def check_cuda(
    environment: Environment, environ: Mapping[str, str], driver: Mapping[str, Any], *, needed: bool = False,
    pin: str = "",
) -> list[Check]:  # fmt: skip
    """Check everything that FlashInfer needs to compile kernels for this machine's GPUs: `cuda: driver` and so on.

    `environ` holds the variables that FlashInfer will see, `driver` is what `machine.ask_driver` returned, `pin` what
    requires which torch ("SGLang 0.5.23 requires torch==2.14.1"). What would prevent a compilation is a warning, or a
    failure if kernels are `needed`. Without a GPU there is one check. nvcc compiles an empty kernel, in seconds.
    """
    environ = machine.activated(environment, environ)
    checks = [_driver(driver, environ)]
    if driver["gpus"]:
        toolkit, *others = machine.toolkits(environ)
        architectures = _architectures(driver["gpus"], toolkit.release, environ)
        checks += [
            _gpus(driver["gpus"], architectures, environ),
            _toolkit(toolkit, others),
            _torch(environment, driver["cuda"], toolkit, others, pin),
            _ninja(environment, environ),
            _compiler(toolkit, architectures, environ),
            _cubins(environment, environ),
            _cache(environ),
            _memory(environ),
        ]
    failure: Status = "fail" if needed else "warn"
    return [
        replace(check, name=f"cuda: {check.name}", status=failure if check.status == "fail" else check.status)
        for check in checks
    ]


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


def _driver(driver: Mapping[str, Any], environ: Mapping[str, str]) -> Check:
    if driver["error"] and driver["cuda"] is not None:
        hint = "After an update of the driver, restart the machine; `nvidia-smi` shows its state."
        return Check("driver", "fail", f"it cannot be used: {driver['error']}", hint)
    if not driver["gpus"]:
        visible = environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "none found" if visible is None else f"none visible; CUDA_VISIBLE_DEVICES is '{visible}'"
        return Check("driver", "skip", f"no GPU can be used ({driver['error'] or hidden})")
    return Check("driver", "pass", f"supports CUDA up to {_dotted(driver['cuda'])}")


def _gpus(gpus: Sequence[list[int]], architectures: Sequence[str], environ: Mapping[str, str]) -> Check:
    shown = f"compute capability {', '.join(_dotted(gpu) for gpu in gpus)}"
    if min(gpus) < OLDEST_GPU:
        hint = f"FlashInfer needs {_dotted(OLDEST_GPU)}. Set CUDA_VISIBLE_DEVICES to the numbers of newer GPUs."
        return Check("gpus", "fail", f"too old: {shown}", hint)
    if not any(_runs(architecture, gpu) for architecture in architectures for gpu in gpus):
        detail = f"{ARCHITECTURES} is '{environ[ARCHITECTURES]}'; such kernels do not run on {shown}"
        return Check("gpus", "fail", detail, command=f"unset {ARCHITECTURES}")
    return Check("gpus", "pass", shown)


def _architectures(gpus: Sequence[Sequence[int]], nvcc: Sequence[int], environ: Mapping[str, str]) -> list[str]:
    """What FlashInfer builds kernels for, such as 90a: the variable's architectures, or else those of the GPUs."""
    listed = re.findall(r"(\d+)\.(\d+)([a-z]?)", environ.get(ARCHITECTURES, ""))
    names = set()
    for major, minor, suffix in listed or [(*gpu, "") for gpu in gpus]:
        family = f"{major}.{minor}" == "12.0" and [*nvcc] >= [12, 9]
        usual = "f" if family else "a" if int(major) >= SPECIFIC else ""
        names.add(f"{major}{minor}{suffix or usual}")
    return sorted(names, key=lambda name: int(name.rstrip("af")))


def _runs(architecture: str, gpu: Sequence[int]) -> bool:
    """Whether machine code for the architecture runs on a GPU of that compute capability."""
    major, minor, suffix = re.findall(r"^(\d+)(\d)([a-z]?)$", architecture)[0]
    return int(major) == gpu[0] and (int(minor) == gpu[1] if suffix == "a" else int(minor) <= gpu[1])


def _toolkit(toolkit: Toolkit, others: Sequence[Toolkit]) -> Check:
    if toolkit.release:
        return Check("toolkit", "pass", f"{toolkit.nvcc} of CUDA {_dotted(toolkit.release)} (from {toolkit.source})")
    command = next((_export(other) for other in others if other.release), "")
    hint = "" if command else "Install the CUDA toolkit of torch's CUDA version and set CUDA_HOME to its directory."
    return Check("toolkit", "fail", f"{toolkit.nvcc} cannot be run (from {toolkit.source})", hint, command)


def _export(toolkit: Toolkit) -> str:
    return f"export CUDA_HOME={shell(toolkit.home)}"


def _torch(
    environment: Environment, driver: Sequence[int], toolkit: Toolkit, others: Sequence[Toolkit], pin: str
) -> Check:
    file = next((file for path in environment.paths if (file := path / "torch" / "version.py").is_file()), None)
    if not file:
        return Check("torch", "skip", "not installed")
    found = re.search(r"^cuda\b[^=]*=\s*['\"](\d+)\.(\d+)", file.read_text("utf-8", "replace"), re.M)
    override = f"name a torch for CUDA {driver[0]} in sources.overrides, and run `invoke install`"
    if not found:
        return Check("torch", "fail", "built without CUDA", override.capitalize() + ".")
    built, major = f"built for CUDA {found[1]}.{found[2]}", int(found[1])
    if major > driver[0]:
        older = f" {pin}: take an older SGLang, or" if pin else " Or"
        hint = f"Update the driver to one for CUDA {major}.{older} {override}."
        return Check("torch", "fail", f"{built}, but the driver supports only {_dotted(driver)}", hint)
    if toolkit.release and toolkit.release[0] != major:
        command = next((_export(other) for other in others if other.release[:1] == (major,)), "")
        hint = "" if command else f"Install a toolkit of CUDA {major}, and set CUDA_HOME to its directory."
        return Check("torch", "fail", f"{built}, but nvcc is of CUDA {_dotted(toolkit.release)}", hint, command)
    return Check("torch", "pass", built)


def _ninja(environment: Environment, environ: Mapping[str, str]) -> Check:
    if found := shutil.which("ninja", path=environ["PATH"]):
        return Check("ninja", "pass", found)
    return Check("ninja", "fail", "not found on the PATH", command=machine.add_command(environment, "ninja"))


def _compiler(toolkit: Toolkit, architectures: Sequence[str], environ: Mapping[str, str]) -> Check:
    """Whether nvcc and the C++ compiler can build a library from an empty kernel, with FlashInfer's options."""
    cxx = shlex.split(environ.get("CXX", "c++"))
    found = shutil.which(cxx[0], path=environ["PATH"]) if cxx else None
    if not found:
        return Check("compiler", "fail", f"no C++ compiler {shlex.join(cxx)}", "Install g++, or set CXX to a compiler.")
    if not toolkit.release:
        return Check("compiler", "skip", "there is no nvcc")
    host = ["-ccbin", environ["CC"]] if "CC" in environ else []
    stub = ["-static-global-template-stub=false"] if toolkit.release >= (12, 8) else []
    codes = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in architectures]
    more, libraries = (shlex.split(environ.get(f"FLASHINFER_EXTRA_{kind}FLAGS", "")) for kind in ("CUDA", "LD"))
    commands = (
        [toolkit.nvcc, *host, "--compiler-options=-fPIC", "--expt-relaxed-constexpr", *stub, *codes, *more,
         "-c", "trial.cu", "-o", "trial.o"],
        [*cxx, "trial.o", "-shared", f"-L{toolkit.home}/lib64", f"-L{toolkit.home}/lib64/stubs", "-lcudart", "-lcuda",
         *libraries, "-o", "trial.so"],
    )  # fmt: skip
    what = ", ".join(f"sm_{name}" for name in architectures)
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "trial.cu").write_text(TRIAL)
        for command in commands:
            done = machine.run(command, timeout=300, cwd=directory, env=environ)
            if done.returncode:
                lines = (done.stderr + done.stdout).strip().splitlines() or [f"status {done.returncode}"]
                reason = next((line for line in lines if re.search("error|fatal|cannot find", line)), lines[-1])
                detail = f"{Path(command[0]).name} cannot build for {what}: {reason}"
                hint = "Install the missing part of the CUDA toolkit or of g++, or compatible versions."
                return Check("compiler", "fail", detail, hint)
    return Check("compiler", "pass", f"nvcc and {found} build for {what}")


def _cubins(environment: Environment, environ: Mapping[str, str]) -> Check:
    """Whether FlashInfer has its precompiled kernels here."""
    found, flashinfer = (environment.distribution(name) for name in ("flashinfer-cubin", "flashinfer-python"))
    if own := environ.get("FLASHINFER_CUBIN_DIR") or (f"flashinfer-cubin {found.version}" if found else ""):
        return Check("cubins", "pass", own)
    if not flashinfer:
        return Check("cubins", "skip", "FlashInfer is not installed")
    detail = "flashinfer-cubin is not installed: some kernels are downloaded at their first use"
    return Check("cubins", "warn", detail, f"The index {CUBINS_INDEX} has it for releases of FlashInfer.")


def _cache(environ: Mapping[str, str]) -> Check:
    variable = "FLASHINFER_WORKSPACE_BASE"
    cache = Path(environ.get(variable) or Path.home(), ".cache", "flashinfer")
    parent = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(parent).free
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK) and free >= FREE:
        return Check("cache", "pass", f"{cache}, {free / GB:.1f} GB free")
    hint = f"Set {variable} to a writable directory with at least {FREE / GB:g} GB free."
    return Check("cache", "fail", f"{cache} cannot be written to, or is full ({free / GB:.1f} GB free)", hint)


def _memory(environ: Mapping[str, str]) -> Check:
    jobs, available = machine.wanted_jobs(environ), machine.available_memory()
    detail = f"{available / GB:.0f} GB for {jobs} compile jobs"
    if jobs * JOB <= available:
        return Check("memory", "pass", detail)
    command = f"export MAX_JOBS={max(1, available // JOB)}"
    return Check("memory", "warn", detail, "One job takes 2 to 8 GB; without enough memory it is killed.", command)
