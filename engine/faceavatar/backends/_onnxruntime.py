"""What all ONNX Runtime providers share: opening a file, reading its signature, running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from faceavatar.backends.session import Precision, TensorSpec, first_line
from faceavatar.errors import FaceAvatarError, PackInvalid, ProviderUnavailable

_ERRORS_ONLY = 3  # warnings about constants folded or nodes placed are of no use to a caller
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bfloat16)": "bfloat16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(bool)": "bool",
}


class OnnxRuntimeSession:
    """A Session over onnxruntime.InferenceSession on one provider, computing in `precision`."""

    def __init__(
        self,
        path: Path,
        provider: str,
        execution_provider: str,
        options: dict[str, Any],
        threads: int,
        precision: Precision = "fp32",
    ):
        self.provider = provider
        self.precision: Precision = precision
        self.warnings: tuple[str, ...] = ()
        self._file = path.name
        onnxruntime.disable_telemetry_events()  # on in its own wheels
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), session_options(threads), providers=[(execution_provider, options)]
            )
        except Exception as error:  # the bindings raise a dozen unrelated classes
            raise PackInvalid(f"{path.name}: {provider} cannot open it: {first_line(error)}") from error
        used = self._session.get_providers()
        if used[:1] != [execution_provider]:
            raise ProviderUnavailable(
                f"{path.name}: asked for {execution_provider}, got {', '.join(used)} in silence; "
                "check the driver and that only one onnxruntime package is installed (faceavatar doctor)"
            )
        self.inputs = _specs(self._session.get_inputs())
        self.outputs = _specs(self._session.get_outputs())

    def run(self, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        try:
            values = self._session.run(list(self.outputs), feeds)
        except Exception as error:
            raise FaceAvatarError(f"{self._file} failed on {self.provider}: {first_line(error)}") from error
        return {name: np.asarray(value) for name, value in zip(self.outputs, values, strict=True)}


def stored_precision(path: Path, provider: str, asked: Precision | None, stored: Precision) -> Precision:
    """What ONNX Runtime computes in: what the graph's own nodes say, and nothing else.

    Raises ProviderUnavailable where something else was asked for.
    """
    if asked not in {None, stored}:
        raise ProviderUnavailable(
            f"{path.name}: got precision {asked!r}, but provider {provider!r} computes in what the graph is "
            f"stored in, {stored}; export the pack with --precision {asked}"
            + (", or use provider 'openvino', which computes fp32 graphs in bf16" if asked == "bf16" else "")
        )
    return stored


def versions() -> dict[str, str]:
    """What an engine of ONNX Runtime depends on."""
    return {"onnxruntime": onnxruntime.__version__}


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """All graph optimisations, the memory arena on (off costs 1.3 to 1.5 times the time), no chatter."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_cpu_mem_arena = True
    options.log_severity_level = _ERRORS_ONLY
    return options


def _specs(tensors: Sequence[Any]) -> Mapping[str, TensorSpec]:
    return {
        tensor.name: TensorSpec(_DTYPES.get(tensor.type, tensor.type), _shape(tensor)) for tensor in tensors
    }


def _shape(tensor: Any) -> tuple[int | str, ...]:
    return tuple(side if isinstance(side, int) else str(side) for side in tensor.shape)
