"""TensorRT for RTX on an NVIDIA GPU: a plugin wheel that carries its libraries, on plain onnxruntime.

Written against NVIDIA/TensorRT-RTX-EP-ABI 0.5 (its README, and provider options as in the header in its
wheel). Its engines are tuned ahead of time and specialised for the shapes in use when they first run.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import onnxruntime

from faceavatar.backends._ep_context import compile_to, profile_options
from faceavatar.backends._onnxruntime import OnnxRuntimeSession, session_options, stored_precision, versions
from faceavatar.backends.bound import PLUGIN_GPU
from faceavatar.backends.nvidia import NO_GPU, Gpu, find_gpu
from faceavatar.backends.session import Bucket, Platform, Precision, Session, first_line
from faceavatar.errors import EngineStale, MissingExtra, PackInvalid, ProviderUnavailable

NAME, PROVIDER = "tensorrt-rtx", "NvTensorRTRTXExecutionProvider"
_PACKAGE, _MODULE = "onnxruntime-ep-nv-tensorrt-rtx-cu13", "onnxruntime_ep_nv_tensorrt_rtx"
# The plugin refuses all others: data-centre GPUs (8.0, 9.0, 10.0) are TensorRT's own ground.
_CAPABILITIES, _ALL_FROM = ((8, 6), (8, 9)), (12, 0)
_CUDA = (13, 0)
_registering = Lock()


def problem() -> str | None:
    """Why this provider cannot be used here, or None. Raises MissingExtra when the plugin is absent."""
    if find_spec(_MODULE) is None:
        raise MissingExtra(NAME, _PACKAGE)
    if not hasattr(onnxruntime, "ModelCompiler"):
        return f"onnxruntime {onnxruntime.__version__} is too old for plugins: pip install -U onnxruntime"
    gpu = find_gpu()
    if gpu is None:
        return NO_GPU
    unfit = _unfit(gpu)
    if unfit is not None:
        return unfit
    try:
        return None if _devices() else f"the plugin offers no device on {gpu} (driver {gpu.driver})"
    except Exception as error:  # the loader's own words are all that is known
        words = f"the plugin cannot be registered: {first_line(error)}"
        return f"{words}; pip install --force-reinstall {_PACKAGE}"


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
    return _open(path, threads, used, record, dict(profile_options("nv", shapes)))


def platform() -> Platform:
    """GPU 0, its driver, and the versions of the plugin and of ONNX Runtime."""
    from importlib.metadata import version  # takes as long to load as OpenCV does, and only GPUs ask

    gpu = find_gpu()
    return Platform(str(gpu), "" if gpu is None else gpu.driver, {**versions(), _PACKAGE: version(_PACKAGE)})


def compile_graph(
    path: Path,
    target: Path,
    threads: int,
    precision: Precision | None = None,
    shapes: Sequence[Bucket] | None = None,
    stored: Precision = "fp32",
) -> tuple[Path, ...]:
    """An EPContext model for GPU 0 and one profile over all shapes. Raises as open_session."""
    stored_precision(path, NAME, precision, stored)
    settings = session_options(threads)
    settings.add_provider_for_devices(list(_devices()), dict(profile_options("nv", shapes)))
    return compile_to(settings, path, target)


def open_engine(
    files: Sequence[Path],
    path: Path,
    threads: int,
    precision: Precision | None = None,
    record: bool = False,
) -> Session:
    """Open an EPContext model on GPU 0. Raises EngineStale, with the plugin's words, where it is refused."""
    try:
        return _open(files[0], threads, precision or "fp32", record, {})
    except PackInvalid as error:
        raise EngineStale(f"{error}; compile it again: faceavatar compile PACK --provider {NAME}") from error


def _open(path: Path, threads: int, used: Precision, record: bool, options: dict[str, Any]) -> Session:
    if record:
        options["enable_cuda_graph"] = "1"
    devices = _devices()
    if not devices:
        raise ProviderUnavailable(f"{path.name}: {problem() or 'the plugin offers no device any more'}")
    return OnnxRuntimeSession(
        *(path, NAME, PROVIDER, options, threads, used),
        devices=devices,
        memory=PLUGIN_GPU,
        recorded=record,
    )


def _unfit(gpu: Gpu) -> str | None:
    if gpu.capability not in _CAPABILITIES and gpu.capability < _ALL_FROM:
        return (
            f"got {gpu}, expected compute capability 8.6, 8.9 or 12.0 and later (RTX 30xx, 40xx, 50xx): the "
            "plugin runs on no other; use provider 'cuda' or 'tensorrt'"
        )
    if gpu.cuda < _CUDA:
        return (
            f"driver {gpu.driver} runs CUDA {gpu.cuda[0]}.{gpu.cuda[1]}, the plugin needs 13.0: update "
            "NVIDIA's driver to 580 or later"
        )
    return None


def _devices() -> tuple[Any, ...]:
    with _registering:
        return _registered()


@cache
def _registered() -> tuple[Any, ...]:
    """The plugin's device on GPU 0; the library is registered once a process and stays."""
    plugin = import_module(_MODULE)  # loads 300 MB of libraries, so not before a GPU was found
    onnxruntime.register_execution_provider_library(plugin.get_ep_name(), plugin.get_library_path())
    return tuple(device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER)[:1]
