"""OpenVINO on the processor: reads the same ONNX files, and computes in float32 or bfloat16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from faceavatar.backends._openvino import OpenVinoSession, compiled
from faceavatar.backends._openvino_engine import EngineSession, write_engine
from faceavatar.backends.processor import processor_name
from faceavatar.backends.session import Bucket, Platform, Precision, Session
from faceavatar.errors import MissingExtra, ProviderUnavailable

_CAPABILITIES: Mapping[Precision, str] = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}


def problem() -> str | None:
    """Why this provider cannot be used here, or None. Raises MissingExtra when the package is absent."""
    if find_spec("openvino") is None:
        raise MissingExtra("openvino", "openvino")
    return None


def open_session(
    path: Path,
    threads: int,
    precision: Precision | None = None,
    shapes: Sequence[Bucket] | None = None,
    stored: Precision = "fp32",
    record: bool = False,
) -> Session:
    """Open an ONNX file on the processor. It is compiled for any shape: shapes make no difference here."""
    used = _precision(path, precision, stored)
    return OpenVinoSession(partial(compiled, path, threads, used), path.name, used)


def platform() -> Platform:
    """This processor, and OpenVINO's build."""
    import openvino

    return Platform(processor_name(), versions={"openvino": openvino.get_version()})


def compile_graph(
    path: Path,
    target: Path,
    threads: int,
    precision: Precision | None = None,
    shapes: Sequence[Bucket] | None = None,
    stored: Precision = "fp32",
) -> tuple[Path, ...]:
    """The compiled model as OpenVINO exports it: for any shape, and for the usual one of each bucket."""
    return write_engine(path, target, threads, _precision(path, precision, stored), shapes or ())


def open_engine(
    files: Sequence[Path],
    path: Path,
    threads: int,
    precision: Precision | None = None,
    record: bool = False,
) -> Session:
    """Open what compile_graph wrote; its weights are mapped and not read."""
    return EngineSession(files, path.name, threads, _precision(path, precision, precision or "fp32"))


def _precision(path: Path, asked: Precision | None, stored: Precision) -> Precision:
    """What the processor will compute in. Raises ProviderUnavailable where it cannot do what was asked."""
    import openvino

    has = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    wanted = asked or stored
    if wanted == "fp32" or _CAPABILITIES[wanted] in has:
        return wanted
    if wanted == stored:
        return "fp32"  # half-precision graphs run everywhere: their weights are widened when they are loaded
    raise ProviderUnavailable(
        f"{path.name}: got precision {asked!r}, but openvino's processor has {', '.join(sorted(has))} only; "
        "use precision='fp32', or a processor with AVX512_BF16 or AMX"
    )
