"""The NVIDIA GPU of this machine: name, compute capability, memory, driver, asked of the driver itself.

Needs no package and opens no session. Everything here is about device 0, as the providers are.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute, cuda.h
NO_GPU = (
    "no NVIDIA GPU or driver was found: nvidia-smi must list one; install NVIDIA's driver (on Debian: "
    "apt-get install nvidia-driver), and hand the GPU to a container (docker run --gpus all)"
)


@dataclass(frozen=True)
class Gpu:
    """capability: (8, 6) for an RTX 30xx. memory: bytes. driver: its version, such as "580.65.06", or "".

    cuda: the newest CUDA that the driver runs, as (13, 0).
    """

    name: str
    capability: tuple[int, int]
    memory: int
    driver: str
    cuda: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.capability[0]}.{self.capability[1]})"


def find_gpu() -> Gpu | None:
    """GPU 0, or None where there is no NVIDIA GPU or no driver. Takes no memory on the device."""
    driver = _library("nvcuda.dll", "libcuda.so.1")
    count, device = ctypes.c_int(0), ctypes.c_int(0)
    if driver is None or driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return None
    if count.value == 0 or driver.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return None
    name, memory, version = ctypes.create_string_buffer(256), ctypes.c_size_t(0), ctypes.c_int(0)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    driver.cuDriverGetVersion(ctypes.byref(version))

    def attribute(which: int) -> int:
        value = ctypes.c_int(0)
        driver.cuDeviceGetAttribute(ctypes.byref(value), which, device)
        return value.value

    capability = attribute(_COMPUTE_CAPABILITY_MAJOR), attribute(_COMPUTE_CAPABILITY_MINOR)
    cuda = version.value // 1000, version.value % 1000 // 10
    return Gpu(name.value.decode(errors="replace"), capability, memory.value, _driver_version(), cuda)


def _driver_version() -> str:
    """NVML's word on it: libcuda knows only the version of CUDA."""
    nvml = _library("nvml.dll", "libnvidia-ml.so.1")
    if nvml is None or nvml.nvmlInit_v2() != 0:
        return ""
    text = ctypes.create_string_buffer(96)
    found = nvml.nvmlSystemGetDriverVersion(text, len(text)) == 0
    nvml.nvmlShutdown()
    return text.value.decode(errors="replace") if found else ""


def _library(windows: str, linux: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(windows if sys.platform == "win32" else linux)
    except OSError:
        return None
