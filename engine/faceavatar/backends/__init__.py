"""Execution providers behind one small protocol: a Session has inputs, outputs, and run.

Knows which engines are installed and how to open a graph in them. Does not know what a graph is for. Every
provider is one file that names itself, checks what it got, and refuses a silent fall back; onnxruntime and
openvino are imported in this folder only.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import cast

from faceavatar.backends.session import (
    PRECISIONS,
    Bucket,
    Buffers,
    DeviceSession,
    Platform,
    Precision,
    Provider,
    Session,
    TensorSpec,
    failure,
)
from faceavatar.backends.threads import physical_cores
from faceavatar.errors import MissingExtra, ProviderUnavailable

__all__ = [
    "GPU_PROVIDERS",
    "PRECISIONS",
    "PROVIDERS",
    "Bucket",
    "Buffers",
    "DeviceSession",
    "Platform",
    "Precision",
    "Session",
    "TensorSpec",
    "available_providers",
    "compile_graph",
    "failure",
    "open_engine",
    "open_session",
    "physical_cores",
    "platform_of",
    "provider_problem",
    "resolve_provider",
]

# The order in which "auto" chooses among those that work here: a GPU, then the processor. cuda goes before
# TensorRT, which builds engines for minutes where none were compiled. On the processor openvino steps no
# faster than onnxruntime and takes twice as long to load (docs/decisions.md).
PROVIDERS = {
    "cuda": "onnxruntime_cuda",
    "tensorrt-rtx": "tensorrt_rtx",
    "tensorrt": "tensorrt",
    "cpu": "onnxruntime_cpu",
    "openvino": "openvino_cpu",
}
GPU_PROVIDERS = frozenset({"cuda", "tensorrt-rtx", "tensorrt"})


def available_providers() -> list[str]:
    """Names of the providers that can run here, the one of "auto" first: package and device are there."""
    return [name for name in PROVIDERS if provider_problem(name) is None]


def resolve_provider(provider: str) -> str:
    """Turn "auto" into the first provider available; check any other name.

    Raises ProviderUnavailable when the name is unknown or its device or package is absent.
    """
    if provider == "auto":
        return available_providers()[0]
    if provider not in PROVIDERS:
        raise ProviderUnavailable(
            f"provider: got {provider!r}, expected auto or one of {', '.join(PROVIDERS)}; "
            f"available here: {', '.join(available_providers())}"
        )
    problem = provider_problem(provider)
    if problem is not None:
        raise ProviderUnavailable(
            f"provider {provider!r} cannot be used: {problem}; "
            f"available here: {', '.join(available_providers())}"
        )
    return provider


def open_session(
    path: Path,
    provider: str,
    threads: int | None = None,
    precision: Precision | None = None,
    shapes: Sequence[Bucket] | None = None,
    stored: Precision = "fp32",
    record: bool = False,
) -> Session:
    """Open an ONNX file.

    threads: None takes one per physical core that this process may use. precision: what to compute in, None
    for what the graph's nodes say. shapes: what it will be run with, where that is known. stored: what the
    graph's nodes say. record: replay launches as CUDA graphs, see Provider.open_session.
    Raises ProviderUnavailable for an absent provider, one that gave way to another, or one without this
    precision, and PackInvalid for a file that the provider cannot read.
    """
    module = _module(resolve_provider(provider))
    return module.open_session(path, threads or physical_cores(), precision, shapes, stored, record)


def platform_of(provider: str) -> Platform:
    """The device, driver and versions that engines compiled now would be compiled for."""
    return _module(resolve_provider(provider)).platform()


def compile_graph(
    path: Path,
    target: Path,
    provider: str,
    threads: int | None = None,
    precision: Precision | None = None,
    shapes: Sequence[Bucket] | None = None,
    stored: Precision = "fp32",
) -> tuple[Path, ...]:
    """Compile an ONNX file ahead of time into target's folder; gives the files written, first the main one.

    Arguments and errors as open_session's.
    """
    module = _module(resolve_provider(provider))
    return module.compile_graph(path, target, threads or physical_cores(), precision, shapes, stored)


def open_engine(
    files: Sequence[Path],
    path: Path,
    provider: str,
    threads: int | None = None,
    precision: Precision | None = None,
    record: bool = False,
) -> Session:
    """Open what compile_graph wrote of the ONNX file at path. Raises as open_session, and EngineStale."""
    module = _module(resolve_provider(provider))
    return module.open_engine(files, path, threads or physical_cores(), precision, record)


def provider_problem(provider: str) -> str | None:
    """Why a provider cannot be used here, with the command that cures it, or None."""
    try:
        return _module(provider).problem()
    except MissingExtra as error:
        return str(error)


def _module(provider: str) -> Provider:
    return cast(Provider, import_module(f"faceavatar.backends.{PROVIDERS[provider]}"))
