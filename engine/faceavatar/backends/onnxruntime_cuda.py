"""ONNX Runtime on an NVIDIA GPU, through its CUDA provider: graphs run in what they are stored in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from faceavatar.backends._onnxruntime import OnnxRuntimeSession, stored_precision, versions
from faceavatar.backends.bound import CUDA
from faceavatar.backends.nvidia import NO_GPU, find_gpu
from faceavatar.backends.session import Bucket, Platform, Precision, Session
from faceavatar.errors import PackInvalid, ProviderUnavailable

NAME, PROVIDER = "cuda", "CUDAExecutionProvider"
# TF32 keeps 10 bits of the mantissa: pictures would no longer agree with the processor's.
OPTIONS: dict[str, Any] = {"device_id": "0", "use_tf32": "0"}


def problem() -> str | None:
    """Why this provider cannot be used here, or None. Starts no session and takes no memory on the device."""
    if PROVIDER not in onnxruntime.get_available_providers():
        cure = "pip install 'faceavatar[cuda]', then what faceavatar doctor says"
        return f"the installed onnxruntime is built without CUDA: {cure}"
    return None if find_gpu() else NO_GPU


def open_session(
    path: Path,
    threads: int,
    precision: Precision | None = None,
    shapes: Sequence[Bucket] | None = None,
    stored: Precision = "fp32",
    record: bool = False,
) -> Session:
    """Open an ONNX file on GPU 0; shapes make no difference here.

    A graph whose launches cannot be recorded (it has nodes on the processor) is opened without, and its
    session says so in its warnings.
    """
    used = stored_precision(path, NAME, precision, stored)
    preload()
    if record:
        try:
            options = {**OPTIONS, "enable_cuda_graph": "1"}
            return OnnxRuntimeSession(
                path, NAME, PROVIDER, options, threads, used, memory=CUDA, recorded=True
            )
        except PackInvalid as error:
            refused = f"{path.name}: its launches are not recorded as a CUDA graph: {error}"
    session = OnnxRuntimeSession(path, NAME, PROVIDER, OPTIONS, threads, used, memory=CUDA)
    if record:
        session.warnings += (refused,)
    return session


def preload() -> None:
    """Load the CUDA and cuDNN libraries that pip installed as wheels, where there are any."""
    load = getattr(onnxruntime, "preload_dlls", None)
    if load is not None:
        load()


def platform() -> Platform:
    """GPU 0 and its driver, and ONNX Runtime's version."""
    gpu = find_gpu()
    return Platform(str(gpu), "" if gpu is None else gpu.driver, versions())


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
    files: Sequence[Path],
    path: Path,
    threads: int,
    precision: Precision | None = None,
    record: bool = False,
) -> Session:
    """Raises ProviderUnavailable, as compile_graph does."""
    raise ProviderUnavailable("provider 'cuda' has no engines; use tensorrt-rtx or tensorrt")
