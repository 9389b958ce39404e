"""Asks NVIDIA's driver for its CUDA version and its GPUs, by the CUDA Driver API.

nvidia-smi cannot answer this: it ignores `CUDA_VISIBLE_DEVICES`, and works where CUDA itself cannot be initialized. The
verified environment's Python runs this file in a process of its own, since a broken driver may crash or hang. It
imports nothing of ours and prints one JSON object.
"""

import ctypes
import json
from typing import Any

CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


def ask() -> dict[str, Any]:
    """Return `cuda`, the [major, minor] that the driver supports, None without a driver; `error`, empty for none; and
    `gpus`, of each its compute capability, [major, minor]."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return {"cuda": None, "error": "there is no NVIDIA driver (libcuda.so.1)", "gpus": []}

    def value(function: str, *arguments: int) -> int:
        """What the function writes to its first argument."""
        written = ctypes.c_int()
        driver[function](ctypes.byref(written), *arguments)
        return written.value

    version = value("cuDriverGetVersion")
    found = {"cuda": [version // 1000, version % 1000 // 10], "error": "", "gpus": []}
    if status := driver.cuInit(0):
        error = ctypes.c_char_p()
        driver.cuGetErrorName(status, ctypes.byref(error))
        known = (error.value or b"error %d" % status).decode()
        return found | {"error": "" if status == NO_DEVICE else known}
    devices = [value("cuDeviceGet", index) for index in range(value("cuDeviceGetCount"))]
    gpus = [[value("cuDeviceGetAttribute", attribute, device) for attribute in CAPABILITY] for device in devices]
    return found | {"gpus": gpus}


if __name__ == "__main__":
    print(json.dumps(ask()))
