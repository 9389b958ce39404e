"""Asks NVIDIA's driver for its CUDA version and its GPUs, by the CUDA Driver API.

A process of its own, since a broken driver may crash or hang: the verified environment's Python runs this file, which
imports nothing of ours and prints one JSON object. `CUDA_VISIBLE_DEVICES` applies, as it does to FlashInfer.
"""

import ctypes
import json
from typing import Any

CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


def ask() -> dict[str, Any]:
    """Return `cuda`, the [major, minor] that the driver supports, zeros without a driver; `error`, empty for none; and
    `gpus`, of each its name, bytes of memory and compute capability."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return {"cuda": [0, 0], "error": "there is no NVIDIA driver (libcuda.so.1)", "gpus": []}
    version, count, device, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    driver.cuDriverGetVersion(ctypes.byref(version))
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    error = ctypes.c_char_p()
    if status not in (0, NO_DEVICE):
        driver.cuGetErrorName(status, ctypes.byref(error))
        error.value = error.value or b"error %d" % status
    gpus = []
    for index in range(count.value):
        name, numbers = ctypes.create_string_buffer(256), [ctypes.c_int(), ctypes.c_int()]
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceGetName(name, len(name), device)
        driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        for attribute, number in zip(CAPABILITY, numbers, strict=True):
            driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        gpus.append([name.value.decode(), memory.value, [number.value for number in numbers]])
    cuda = [version.value // 1000, version.value % 1000 // 10]
    return {"cuda": cuda, "error": (error.value or b"").decode(), "gpus": gpus}


if __name__ == "__main__":
    print(json.dumps(ask()))
