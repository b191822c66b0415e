"""TensorRT on an NVIDIA GPU, through onnxruntime-gpu's own execution provider; what it leaves goes to CUDA.

Options as ONNX Runtime's documentation of the TensorRT execution provider has them.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnxruntime

from faceavatar.backends import onnxruntime_cuda
from faceavatar.backends._ep_context import compile_to, profile_options
from faceavatar.backends._onnxruntime import OnnxRuntimeSession, session_options, stored_precision, versions
from faceavatar.backends.bound import CUDA
from faceavatar.backends.nvidia import NO_GPU, find_gpu
from faceavatar.backends.session import Bucket, Platform, Precision, Session
from faceavatar.errors import EngineStale, PackInvalid

NAME, PROVIDER = "tensorrt", "TensorrtExecutionProvider"
_LIBRARY = "nvinfer_10.dll" if sys.platform == "win32" else "libnvinfer.so.10"
# TensorRT 10 takes a graph's half-precision types for hints unless it is told to use them.
_SWITCHES: Mapping[Precision, Mapping[str, str]] = {
    "fp32": {},
    "fp16": {"trt_fp16_enable": "1"},
    "bf16": {"trt_bf16_enable": "1"},
}
_ROUNDED = "{}: TensorRT multiplies float32 in TF32, with 10 bits of mantissa; use provider cuda for more"


def problem() -> str | None:
    """Why this provider cannot be used here, or None. Starts no session and takes no memory on the device."""
    if PROVIDER not in onnxruntime.get_available_providers():
        cure = "pip install 'faceavatar[tensorrt]', then what faceavatar doctor says"
        return f"the installed onnxruntime is built without TensorRT: {cure}"
    if find_gpu() is None:
        return NO_GPU
    if not _load_libraries():
        return (
            f"TensorRT 10's {_LIBRARY} was not found: pip install 'tensorrt-cu13==10.*', from the index that "
            "NVIDIA's installation guide of TensorRT names"
        )
    return None


def open_session(
    path: Path,
    threads: int,
    precision: Precision | None = None,
    shapes: Sequence[Bucket] | None = None,
    stored: Precision = "fp32",
    record: bool = False,
) -> Session:
    """Open an ONNX file on GPU 0; an engine is built first, which takes minutes for a large one."""
    used = stored_precision(path, NAME, precision, stored)
    return _open(path, threads, used, record, _options(used, shapes))


def platform() -> Platform:
    """GPU 0, its driver, and the versions of TensorRT and of ONNX Runtime."""
    gpu = find_gpu()
    return Platform(
        str(gpu), "" if gpu is None else gpu.driver, {**versions(), "tensorrt": _library_version()}
    )


def compile_graph(
    path: Path,
    target: Path,
    threads: int,
    precision: Precision | None = None,
    shapes: Sequence[Bucket] | None = None,
    stored: Precision = "fp32",
) -> tuple[Path, ...]:
    """An EPContext model for GPU 0 and one profile over all shapes. Raises as open_session."""
    used = stored_precision(path, NAME, precision, stored)
    _load_libraries()
    onnxruntime_cuda.preload()
    settings = session_options(threads)
    settings.add_provider(PROVIDER, _options(used, shapes))
    return compile_to(settings, path, target)


def open_engine(
    files: Sequence[Path],
    path: Path,
    threads: int,
    precision: Precision | None = None,
    record: bool = False,
) -> Session:
    """Open an EPContext model on GPU 0. Raises EngineStale, with TensorRT's words, where it is refused."""
    used = precision or "fp32"
    try:
        return _open(files[0], threads, used, record, _options(used, None))
    except PackInvalid as error:
        raise EngineStale(f"{error}; compile it again: faceavatar compile PACK --provider {NAME}") from error


def _open(path: Path, threads: int, used: Precision, record: bool, options: dict[str, Any]) -> Session:
    _load_libraries()
    onnxruntime_cuda.preload()
    if record:
        options["trt_cuda_graph_enable"] = "1"
    session = OnnxRuntimeSession(
        *(path, NAME, PROVIDER, options, threads, used),
        behind=[(onnxruntime_cuda.PROVIDER, onnxruntime_cuda.OPTIONS)],
        memory=CUDA,
        recorded=record,
    )
    if used == "fp32":
        session.warnings += (_ROUNDED.format(path.name),)
    return session


def _options(used: Precision, shapes: Sequence[Bucket] | None) -> dict[str, Any]:
    return {"device_id": "0", **_SWITCHES[used], **profile_options("trt", shapes)}


def _load_libraries() -> bool:
    """Make TensorRT's libraries findable: its wheel loads them when it is imported."""
    if find_spec("tensorrt") is not None:
        try:
            import_module("tensorrt")
        except Exception:  # a wheel without its libraries raises nearly anything
            return False
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        return False
    return True


def _library_version() -> str:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return ""
    return str(library.getInferLibVersion())
