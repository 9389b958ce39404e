"""Checks of what FlashInfer needs to compile and run kernels: driver, GPUs, CUDA toolkit, compilers, memory, cache.

FlashInfer compiles a kernel at its first use, so an environment that imports well may still run none. Programs and
directories are looked for where `flashinfer/jit/cpp_ext.py` and `env.py` of FlashInfer 0.6 and 0.7 look.
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

from .. import processes
from ..errors import SourcesError
from ..models import Check, Status
from ..packages import Environment, read_toml
from . import machine
from .machine import GB, JOB, Driver, Toolkit

ROOM = 1 * GB  # free bytes that FlashInfer's cache should have
OLDEST_GPU = (7, 5)  # compute capability
TRIAL = """#include <cuda_runtime.h>
#include <cuda_fp8.h>
#include <cublasLt.h>
#include <curand_kernel.h>
__global__ void kernel() {}
"""  # the parts of the toolkit that FlashInfer's sources include
FOLLOWING = ("toolkit", "torch", "ninja", "compiler", "headers", "cache", "memory")


def check_cuda(environment: Environment, environ: Mapping[str, str], *, needed: bool = False) -> list[Check]:
    """Check everything that FlashInfer needs to compile kernels for this machine's GPUs, `cuda: driver` and the like.

    `environ` holds the variables that FlashInfer will see. What would stop a compile is a warning, or a failure where
    kernels are `needed`. Without a GPU every check is a skip. Takes the seconds in which nvcc compiles an empty kernel.
    """
    environ = machine.activated(environment, environ)
    driver = machine.ask_driver(environment, environ)
    checks = [_driver(driver), _gpus(driver, environ)]
    if driver.gpus:
        toolkit = machine.find_toolkit(environ)
        nvcc = machine.nvcc_release(toolkit.nvcc)
        checks += [
            _toolkit(toolkit, nvcc, environ),
            _torch(environment, driver.cuda, nvcc),
            _ninja(environment, environ),
            _compiler(toolkit, nvcc, max(of for _, _, of in driver.gpus), environ),
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


def _driver(driver: Driver) -> Check:
    if driver.error and driver.cuda == (0, 0):
        return Check("driver", "skip", driver.error)
    if driver.error:
        hint = "After an update of the driver, restart the machine."
        return Check("driver", "fail", f"it cannot be used: {driver.error}", hint, "nvidia-smi")
    return Check("driver", "pass", f"supports CUDA up to {_dotted(driver.cuda)}")


def _gpus(driver: Driver, environ: Mapping[str, str]) -> Check:
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if not driver.gpus:
        why = "none found" if visible is None else f"none visible; CUDA_VISIBLE_DEVICES is '{visible}'"
        return Check("gpus", "skip", driver.error or why)
    each = "; ".join(
        f"{name}, {memory / GB:.0f} GB, compute capability {_dotted(of)}" for name, memory, of in driver.gpus
    )
    if min(of for _, _, of in driver.gpus) < OLDEST_GPU:
        hint = f"FlashInfer needs {_dotted(OLDEST_GPU)}. Set CUDA_VISIBLE_DEVICES to the numbers of newer GPUs."
        return Check("gpus", "fail", f"too old: {each}", hint)
    return Check("gpus", "pass", each)


def _toolkit(toolkit: Toolkit, nvcc: tuple[int, ...], environ: Mapping[str, str]) -> Check:
    if nvcc and Path(toolkit.home).is_dir():
        return Check("toolkit", "pass", f"{toolkit.nvcc} of CUDA {_dotted(nvcc)} (from {toolkit.source})")
    what = f"{toolkit.nvcc} cannot be run" if Path(toolkit.home).is_dir() else f"'{toolkit.home}' is not a directory"
    others = [toolkit.home.strip(":"), machine.find_toolkit({"PATH": environ["PATH"]}).home, machine.DEFAULT_HOME]
    others += sorted(map(str, Path(machine.DEFAULT_HOME).parent.glob("cuda-*")), reverse=True)
    works = next((home for home in others if shutil.which(f"{home}/bin/nvcc")), "")
    fix = f"export CUDA_HOME={shlex.quote(works)}" if works else ""
    fix = "unset FLASHINFER_NVCC" if toolkit.source == "FLASHINFER_NVCC" and not nvcc else fix
    hint = "" if fix else "Install the CUDA toolkit of torch's CUDA version and set CUDA_HOME to its directory."
    return Check("toolkit", "fail", f"{what} (from {toolkit.source})", hint, fix)


def _torch(environment: Environment, driver: tuple[int, ...], nvcc: tuple[int, ...]) -> Check:
    file = next((file for path in environment.paths if (file := path / "torch" / "version.py").is_file()), None)
    if not file:
        return Check("torch", "skip", "not installed")
    found = re.search(r"^cuda\b[^=]*=\s*['\"](\d+)\.(\d+)", file.read_text("utf-8", "replace"), re.M)
    if not found:
        return Check("torch", "fail", "built without CUDA", f"Install a torch that is built for CUDA {driver[0]}.")
    built = f"built for CUDA {found[1]}.{found[2]}"
    if int(found[1]) > driver[0]:
        hint = f"Update the driver, or install a torch that is built for CUDA {driver[0]}."
        return Check("torch", "fail", f"{built}, the driver supports {_dotted(driver)}", hint)
    if nvcc and nvcc[0] != int(found[1]):
        hint = f"Set CUDA_HOME to a toolkit of CUDA {found[1]}, or install a torch that is built for CUDA {nvcc[0]}."
        return Check("torch", "fail", f"{built}, nvcc is of CUDA {_dotted(nvcc)}", hint)
    return Check("torch", "pass", built)


def _ninja(environment: Environment, environ: Mapping[str, str]) -> Check:
    if found := shutil.which("ninja", path=environ["PATH"]):
        return Check("ninja", "pass", found)
    return Check("ninja", "fail", "not found on the PATH", command=machine.add_command(environment, "ninja"))


def _compiler(toolkit: Toolkit, nvcc: tuple[int, ...], gpu: Sequence[int], environ: Mapping[str, str]) -> Check:
    """Whether nvcc and the C++ compiler build a library from an empty kernel, with FlashInfer's options."""
    arch, cxx = "sm_" + "".join(map(str, gpu)), shlex.split(environ.get("CXX", "c++"))
    if not cxx or not shutil.which(cxx[0], path=environ["PATH"]):
        return Check("compiler", "fail", f"no C++ compiler {shlex.join(cxx)}", "Install g++, or set CXX to a compiler.")
    if not nvcc:
        return Check("compiler", "skip", "there is no nvcc")
    host = ["-ccbin", environ["CC"]] if "CC" in environ else []
    places = [f"-L{toolkit.home}/{place}" for place in ("lib64", "lib64/stubs")]
    steps = (
        [toolkit.nvcc, "-c", "trial.cu", "-o", "trial.o", f"-arch={arch}", "--compiler-options=-fPIC", *host],
        [*cxx, "-shared", "trial.o", "-o", "trial.so", *places, "-lcudart", "-lcuda"],
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "trial.cu").write_text(TRIAL)
        for argv in steps:
            done = processes.run(argv, cwd=Path(folder), env=environ, timeout=300)
            if done.status:
                lines = (done.errors + done.output).decode(errors="replace").strip().splitlines() or ["no message"]
                reason = next((line for line in lines if re.search("error|fatal|cannot find", line)), lines[-1])
                hint = "Install what is missing of the CUDA toolkit and of g++, or versions that go together."
                return Check("compiler", "fail", f"{Path(argv[0]).name} cannot build for {arch}: {reason}", hint)
    return Check("compiler", "pass", f"nvcc and {shutil.which(cxx[0], path=environ['PATH'])} build for {arch}")


def _headers(environment: Environment) -> Check:
    """Whether the directories exist that FlashInfer's pyproject.toml declares as data (setuptools' `package-data`)."""
    found = environment.distribution("flashinfer-python")
    if not found:
        return Check("headers", "skip", "FlashInfer is not installed")
    places, declared = [*environment.paths], {"flashinfer.data": ["include/**"]}
    if found.editable and found.location:
        places, file = [found.location], found.location / "pyproject.toml"
        try:
            declared = read_toml(file.read_bytes(), str(file))["tool"]["setuptools"]["package-data"]
        except (SourcesError, OSError, KeyError) as error:
            return Check("headers", "skip", f"FlashInfer does not declare which it needs: {error}")
    data = next((path for path in (each / "flashinfer/data" for each in places) if path.is_dir()), places[0])
    wanted = [
        data.joinpath(*package.split(".")[2:], pattern.removesuffix("/**"))
        for package, patterns in declared.items()
        for pattern in patterns
        if package.startswith("flashinfer.data") and pattern.endswith("/**")
    ]
    if missing := [str(each) for each in wanted if not each.is_dir() or not any(each.iterdir())]:
        fix = "invoke update" if found.editable else "invoke install --reinstall"
        return Check("headers", "fail", f"missing or empty: {', '.join(missing)}", command=fix)
    return Check("headers", "pass", f"{len(wanted)} directories in {data}".replace("1 directories", "1 directory"))


def _cache(environ: Mapping[str, str]) -> Check:
    variable = "FLASHINFER_WORKSPACE_BASE"
    cache = Path(environ.get(variable) or Path.home(), ".cache", "flashinfer")
    parent = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(parent).free
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK) and free >= ROOM:
        return Check("cache", "pass", f"{cache}, {free / GB:.1f} GB free")
    hint = f"Set {variable} to a directory that can be written to and has {ROOM / GB:g} GB free."
    return Check("cache", "fail", f"{cache} cannot be written to, or is full ({free / GB:.1f} GB free)", hint)


def _memory(environ: Mapping[str, str]) -> Check:
    jobs, available = machine.wanted_jobs(environ), machine.available_memory()
    detail = f"{available / GB:.0f} GB for {jobs} compile jobs"
    if jobs * JOB <= available:
        return Check("memory", "pass", detail)
    fix = f"export MAX_JOBS={max(1, available // JOB)}"
    return Check("memory", "warn", detail, "One job takes 2 to 8 GB; without memory a compile is killed.", fix)
