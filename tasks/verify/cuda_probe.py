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
    `gpus`, of each its `name`, `memory` in bytes and compute `capability`, [major, minor]."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return {"cuda": None, "error": "there is no NVIDIA driver (libcuda.so.1)", "gpus": []}

    def value(function: str, *arguments: int, kind: Any = ctypes.c_int) -> Any:
        """What the function writes to its first argument."""
        written = kind()
        driver[function](ctypes.byref(written), *arguments)
        return written.value

    version = value("cuDriverGetVersion")
    gpus: list[dict[str, Any]] = []
    found = {"cuda": [version // 1000, version % 1000 // 10], "error": "", "gpus": gpus}
    if status := driver.cuInit(0):
        error = ctypes.c_char_p()
        driver.cuGetErrorName(status, ctypes.byref(error))
        known = (error.value or b"error %d" % status).decode()
        return found | {"error": "" if status == NO_DEVICE else known}
    for index in range(value("cuDeviceGetCount")):
        device = value("cuDeviceGet", index)
        name = ctypes.create_string_buffer(256)
        driver.cuDeviceGetName(name, len(name), device)
        memory = value("cuDeviceTotalMem_v2", device, kind=ctypes.c_size_t)
        capability = [value("cuDeviceGetAttribute", attribute, device) for attribute in CAPABILITY]
        gpus.append({"name": name.value.decode(), "memory": memory, "capability": capability})
    return found


if __name__ == "__main__":
    print(json.dumps(ask()))
