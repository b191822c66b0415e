"""ONNX Runtime on the processor: always there, and the reference for every other provider."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from faceavatar.backends._onnxruntime import OnnxRuntimeSession, stored_precision, versions
from faceavatar.backends.processor import processor_name
from faceavatar.backends.session import Bucket, Platform, Precision, Session
from faceavatar.errors import ProviderUnavailable

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
    raise ProviderUnavailable("provider 'cpu' compiles nothing yet")


def open_engine(
    files: Sequence[Path], path: Path, threads: int, precision: Precision | None = None
) -> Session:
    raise ProviderUnavailable("provider 'cpu' compiles nothing yet")
