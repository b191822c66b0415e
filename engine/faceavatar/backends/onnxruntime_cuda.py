"""ONNX Runtime on an NVIDIA GPU, through its CUDA execution provider."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from pathlib import Path

import onnxruntime

from faceavatar.backends._onnxruntime import OnnxRuntimeSession, stored_precision, versions
from faceavatar.backends.session import Bucket, Platform, Precision, Session
from faceavatar.errors import ProviderUnavailable

# TF32 keeps 10 bits of the mantissa: pictures would no longer agree with the processor's.
_OPTIONS = {"device_id": "0", "use_tf32": "0"}


def problem() -> str | None:
    """Why this provider cannot be used here, or None. Starts no session and takes no memory on the device."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        cure = "pip install 'faceavatar[cuda]', then what faceavatar doctor says"
        return f"the installed onnxruntime is built without CUDA: {cure}"
    return None if _devices() else "no NVIDIA GPU or driver was found"


def open_session(
    path: Path,
    threads: int,
    precision: Precision | None = None,
    shapes: Sequence[Bucket] | None = None,
    stored: Precision = "fp32",
) -> Session:
    """Open an ONNX file on GPU 0, in what it is stored in; shapes make no difference here."""
    used = stored_precision(path, "cuda", precision, stored)
    preload = getattr(onnxruntime, "preload_dlls", None)
    if preload is not None:
        preload()  # finds the CUDA and cuDNN libraries that pip installed as wheels
    return OnnxRuntimeSession(path, "cuda", "CUDAExecutionProvider", _OPTIONS, threads, used)


def platform() -> Platform:
    """GPU 0, and ONNX Runtime's version."""
    return Platform("NVIDIA GPU 0", versions=versions())


def compile_graph(
    path: Path,
    target: Path,
    threads: int,
    precision: Precision | None = None,
    shapes: Sequence[Bucket] | None = None,
    stored: Precision = "fp32",
) -> tuple[Path, ...]:
    """Raises ProviderUnavailable: there is nothing to compile ahead of time."""
    raise ProviderUnavailable("provider 'cuda' compiles nothing ahead of time; use tensorrt-rtx or tensorrt")


def open_engine(
    files: Sequence[Path], path: Path, threads: int, precision: Precision | None = None
) -> Session:
    """Raises ProviderUnavailable, as compile_graph does."""
    raise ProviderUnavailable("provider 'cuda' has no engines; use tensorrt-rtx or tensorrt")


def _devices() -> int:
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
