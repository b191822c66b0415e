"""ONNX Runtime on the processor: always there, and the reference for every other provider."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime

from faceavatar.backends._onnxruntime import OnnxRuntimeSession, session_options, stored_precision, versions
from faceavatar.backends.processor import processor_name
from faceavatar.backends.session import Bucket, Platform, Precision, Session

_NAME, _PROVIDER = "cpu", "CPUExecutionProvider"


def problem() -> str | None:
    """Why this provider cannot be used here, or None."""
    return None


def open_session(
    path: Path,
    threads: int,
    precision: Precision | None = None,
    shapes: Sequence[Bucket] | None = None,
    stored: Precision = "fp32",
    record: bool = False,
) -> Session:
    """Open an ONNX file on the processor; shapes make no difference here."""
    used = stored_precision(path, _NAME, precision, stored)
    return OnnxRuntimeSession(path, _NAME, _PROVIDER, {}, threads, used)


def platform() -> Platform:
    """This processor, and ONNX Runtime's version."""
    return Platform(processor_name(), versions=versions())


def compile_graph(
    path: Path,
    target: Path,
    threads: int,
    precision: Precision | None = None,
    shapes: Sequence[Bucket] | None = None,
    stored: Precision = "fp32",
) -> tuple[Path, ...]:
    """The graph as ONNX Runtime optimised it for this processor, its weights packed as the kernels read them.

    They lie in a file of their own, page by page, and are mapped and not read when the engine is opened.
    """
    used = stored_precision(path, _NAME, precision, stored)
    graph, weights = target.with_name(f"{target.name}.onnx"), target.with_name(f"{target.name}.bin")
    settings = session_options(threads)
    settings.optimized_model_filepath = str(graph)
    for key, value in {
        "session.optimized_model_external_initializers_file_name": weights.name,
        "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
        "session.save_external_prepacked_constant_initializers": "1",
    }.items():
        settings.add_session_config_entry(key, value)
    OnnxRuntimeSession(path, _NAME, _PROVIDER, {}, threads, used, settings=settings)
    return (graph, weights) if weights.is_file() else (graph,)


def open_engine(
    files: Sequence[Path],
    path: Path,
    threads: int,
    precision: Precision | None = None,
    record: bool = False,
) -> Session:
    """Open what compile_graph wrote; it is optimised already."""
    settings = session_options(threads)
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return OnnxRuntimeSession(files[0], _NAME, _PROVIDER, {}, threads, precision or "fp32", settings=settings)
