"""ONNX Runtime on the processor: always there, and the reference for every other provider."""

from __future__ import annotations

from pathlib import Path

from faceavatar.backends._onnxruntime import OnnxRuntimeSession
from faceavatar.backends.session import Session


def problem() -> str | None:
    """Why this provider cannot be used here, or None."""
    return None


def open_session(path: Path, threads: int) -> Session:
    """Open an ONNX file in float32 on the processor."""
    return OnnxRuntimeSession(path, "cpu", "CPUExecutionProvider", {}, threads)
