"""Checks of what FlashInfer needs to compile and run kernels: driver, GPUs, CUDA toolkit, compilers, memory, cache.

FlashInfer compiles a kernel at its first use, so it may import in an environment that can run none. The checks look for
programs and directories where `flashinfer/jit/cpp_ext.py` and `env.py` of FlashInfer 0.6 and 0.7 do.
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

from .. import processes
from ..errors import SourcesError
from ..models import Check, Status
from ..packages import Environment, read_toml
from . import machine
from .machine import GB, JOB, Toolkit

FREE = 1 * GB  # bytes that should be free for FlashInfer's cache
OLDEST_GPU = [7, 5]  # compute capability
TRIAL = """#include <cuda_runtime.h>
#include <cuda_fp8.h>
#include <cublasLt.h>
#include <curand_kernel.h>
__global__ void kernel() {}
"""  # the parts of the toolkit that FlashInfer's sources include
FOLLOWING = ("toolkit", "torch", "ninja", "compiler", "headers", "cache", "memory")


def check_cuda(environment: Environment, environ: Mapping[str, str], *, needed: bool = False) -> list[Check]:
    """Check everything that FlashInfer needs to compile kernels for this machine's GPUs: `cuda: driver` and so on.

    `environ` holds the variables that FlashInfer will see. What would prevent a compilation is a warning, or a
    failure if kernels are `needed`. Without a GPU every check is a skip. nvcc compiles an empty kernel, which takes
    seconds.
    """
    environ = machine.activated(environment, environ)
    driver = machine.ask_driver(environment, environ)
    checks = [_driver(driver), _gpus(driver, environ)]
    if driver["gpus"]:
        toolkit = machine.find_toolkit(environ)
        newest = max(gpu["capability"] for gpu in driver["gpus"])
        checks += [
            _toolkit(toolkit, environ),
            _torch(environment, driver["cuda"], toolkit.release),
            _ninja(environment, environ),
            _compiler(toolkit, newest, environ),
            _headers(environment),
            _cache(environ),
            _memory(environ),
        ]
    else:
        checks += [Check(name, "skip", "no GPU can be used") for name in FOLLOWING]
    failure: Status = "fail" if needed else "warn"
    return [
        replace(each, name=f"cuda: {each.name}", status=failure if each.status == "fail" else each.status)
        for each in checks
    ]


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


def _driver(driver: Mapping[str, Any]) -> Check:
    if driver["cuda"] is None:
        return Check("driver", "skip", driver["error"])
    if driver["error"]:
        hint = "After an update of the driver, restart the machine."
        return Check("driver", "fail", f"it cannot be used: {driver['error']}", hint, "nvidia-smi")
    return Check("driver", "pass", f"supports CUDA up to {_dotted(driver['cuda'])}")


def _gpus(driver: Mapping[str, Any], environ: Mapping[str, str]) -> Check:
    gpus, visible = driver["gpus"], environ.get("CUDA_VISIBLE_DEVICES")
    if not gpus:
        why = "none found" if visible is None else f"none visible; CUDA_VISIBLE_DEVICES is '{visible}'"
        return Check("gpus", "skip", driver["error"] or why)
    found = "; ".join(
        f"{gpu['name']}, {gpu['memory'] / GB:.0f} GB, compute capability {_dotted(gpu['capability'])}" for gpu in gpus
    )
    if min(gpu["capability"] for gpu in gpus) < OLDEST_GPU:
        hint = f"FlashInfer needs {_dotted(OLDEST_GPU)}. Set CUDA_VISIBLE_DEVICES to the numbers of newer GPUs."
        return Check("gpus", "fail", f"too old: {found}", hint)
    return Check("gpus", "pass", found)


def _toolkit(toolkit: Toolkit, environ: Mapping[str, str]) -> Check:
    is_directory = Path(toolkit.home).is_dir()
    if toolkit.release and is_directory:
        return Check("toolkit", "pass", f"{toolkit.nvcc} of CUDA {_dotted(toolkit.release)} (from {toolkit.source})")
    wrong = f"{toolkit.nvcc} cannot be run" if is_directory else f"'{toolkit.home}' is not a directory"
    detail = f"{wrong} (from {toolkit.source})"
    if toolkit.source == "FLASHINFER_NVCC" and not toolkit.release:
        return Check("toolkit", "fail", detail, command="unset FLASHINFER_NVCC")
    if home := machine.find_home(environ, toolkit.home):
        return Check("toolkit", "fail", detail, command=f"export CUDA_HOME={shlex.quote(home)}")
    hint = "Install the CUDA toolkit of torch's CUDA version and set CUDA_HOME to its directory."
    return Check("toolkit", "fail", detail, hint)


def _torch(environment: Environment, driver: Sequence[int], nvcc: Sequence[int]) -> Check:
    file = next((file for path in environment.paths if (file := path / "torch" / "version.py").is_file()), None)
    if not file:
        return Check("torch", "skip", "not installed")
    found = re.search(r"^cuda\b[^=]*=\s*['\"](\d+)\.(\d+)", file.read_text("utf-8", "replace"), re.M)
    if not found:
        return Check("torch", "fail", "built without CUDA", f"Install a torch that is built for CUDA {driver[0]}.")
    built, major = f"built for CUDA {found[1]}.{found[2]}", int(found[1])
    if major > driver[0]:
        hint = f"Update the driver, or install a torch that is built for CUDA {driver[0]}."
        return Check("torch", "fail", f"{built}, but the driver supports only {_dotted(driver)}", hint)
    if nvcc and nvcc[0] != major:
        hint = f"Set CUDA_HOME to a toolkit of CUDA {major}, or install a torch that is built for CUDA {nvcc[0]}."
        return Check("torch", "fail", f"{built}, but nvcc is of CUDA {_dotted(nvcc)}", hint)
    return Check("torch", "pass", built)


def _ninja(environment: Environment, environ: Mapping[str, str]) -> Check:
    if found := shutil.which("ninja", path=environ["PATH"]):
        return Check("ninja", "pass", found)
    return Check("ninja", "fail", "not found on the PATH", command=machine.add_command(environment, "ninja"))


def _compiler(toolkit: Toolkit, gpu: Sequence[int], environ: Mapping[str, str]) -> Check:
    """Whether nvcc and the C++ compiler can build a library from an empty kernel, with FlashInfer's options."""
    cxx = shlex.split(environ.get("CXX", "c++"))
    found = shutil.which(cxx[0], path=environ["PATH"]) if cxx else None
    if not found:
        return Check("compiler", "fail", f"no C++ compiler {shlex.join(cxx)}", "Install g++, or set CXX to a compiler.")
    if not toolkit.release:
        return Check("compiler", "skip", "there is no nvcc")
    arch = "sm_" + "".join(map(str, gpu))
    host = ["-ccbin", environ["CC"]] if "CC" in environ else []
    libraries = [f"-L{toolkit.home}/lib64", f"-L{toolkit.home}/lib64/stubs", "-lcudart", "-lcuda"]
    compile_ = [toolkit.nvcc, "-c", "trial.cu", "-o", "trial.o", f"-arch={arch}", "--compiler-options=-fPIC", *host]
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "trial.cu").write_text(TRIAL)
        for argv in (compile_, [*cxx, "-shared", "trial.o", "-o", "trial.so", *libraries]):
            done = processes.run(argv, cwd=Path(directory), env=environ, timeout=300)
            if done.status:
                lines = (done.errors + done.output).decode(errors="replace").strip().splitlines() or ["no message"]
                reason = next((line for line in lines if re.search("error|fatal|cannot find", line)), lines[-1])
                hint = "Install the missing part of the CUDA toolkit or of g++, or compatible versions."
                return Check("compiler", "fail", f"{Path(argv[0]).name} cannot build for {arch}: {reason}", hint)
    return Check("compiler", "pass", f"nvcc and {found} build for {arch}")


def _headers(environment: Environment) -> Check:
    """Whether the directories exist that FlashInfer's pyproject.toml declares as data (setuptools' `package-data`)."""
    installed = environment.distribution("flashinfer-python")
    if not installed:
        return Check("headers", "skip", "FlashInfer is not installed")
    roots, declared = [*environment.paths], {"flashinfer.data": ["include/**"]}
    if installed.editable and installed.location:
        roots, file = [installed.location], installed.location / "pyproject.toml"
        try:
            declared = read_toml(file.read_bytes(), str(file))["tool"]["setuptools"]["package-data"]
        except (SourcesError, OSError, KeyError) as error:
            return Check("headers", "skip", f"FlashInfer does not declare the headers that it needs: {error}")
    data = next((path for root in roots if (path := root / "flashinfer/data").is_dir()), roots[0])
    directories = [
        data.joinpath(*package.split(".")[2:], pattern.removesuffix("/**"))
        for package, patterns in declared.items()
        for pattern in patterns
        if package.startswith("flashinfer.data") and pattern.endswith("/**")
    ]
    if missing := [str(each) for each in directories if not each.is_dir() or not any(each.iterdir())]:
        command = "invoke update" if installed.editable else "invoke install --reinstall"
        return Check("headers", "fail", f"missing or empty: {', '.join(missing)}", command=command)
    count = "1 directory" if len(directories) == 1 else f"{len(directories)} directories"
    return Check("headers", "pass", f"{count} in {data}")


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
