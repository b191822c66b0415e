"""A compiled OpenVINO model as a Session, and how an ONNX file becomes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceavatar.backends.session import Precision, TensorSpec, failure
from faceavatar.errors import FaceAvatarError, PackInvalid, ProviderUnavailable

# A compiled model, the names of its inputs and outputs in its order, and what its weights lie in.
Opened = tuple[Any, Mapping[str, Sequence[str]], Any]
_HINTS: Mapping[Precision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class OpenVinoSession:
    """A Session over one compiled OpenVINO model."""

    provider = "openvino"

    def __init__(self, opened: Callable[[], Opened], file: str, precision: Precision) -> None:
        """opened: compiles or imports the model, again after a run that failed. file: the graph's name."""
        self._request = self._model = self._kept = None  # let go in this order: weights may be mapped
        self._opened, self._file = opened, file
        self.warnings: tuple[str, ...] = ()
        self._model, names, self._kept = opened()
        self.precision: Precision = _checked_precision(self._model, file, precision)
        self._request = self._model.create_infer_request()
        self._lock = Lock()
        self.inputs: Mapping[str, TensorSpec] = _specs(names["inputs"], self._model.inputs)
        self.outputs: Mapping[str, TensorSpec] = _specs(names["outputs"], self._model.outputs)

    def run(self, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        # Checked here: on one thread OpenVINO computes on an input of a wrong width without a word.
        for name, spec in self.inputs.items():
            if name not in feeds or not spec.allows(feeds[name].shape):
                got = feeds[name].shape if name in feeds else "nothing"
                raise FaceAvatarError(f"{self._file} failed on openvino: {name}: got {got}, expected {spec}")
        with self._lock:
            if (
                self._request is None
            ):  # what failed once, goes on failing: its shapes and memory are in disorder
                self._model, _, self._kept = self._opened()
                self._request = self._model.create_infer_request()
            try:
                # infer() itself swallows what fails inside, such as an allocation, and leaves the results of
                # the run before: another caller's (openvino 2026.4). wait() raises it.
                self._request.start_async(feeds, share_inputs=False)
                self._request.wait()
                results = self._request.results
            except Exception as error:
                self._model = self._request = self._kept = None
                raise failure(f"{self._file} failed on openvino", error) from error
            return {name: np.array(results[name]) for name in self.outputs}


def compiled(path: Path, threads: int, precision: Precision) -> Opened:
    """An ONNX file compiled. Raises PackInvalid, OutOfMemory."""
    import openvino

    try:
        core = openvino.Core()
        model = core.read_model(str(path))
        # Before it is compiled: what does nothing is taken out then, and its name may stay on an input.
        names = names_of(model)
        return core.compile_model(unpacked(model), "CPU", settings(precision, threads)), names, None
    except Exception as error:  # RuntimeError and several classes of the bindings
        raise failure(f"{path.name}: openvino cannot open it", error, PackInvalid) from error


def settings(precision: Precision, threads: int) -> dict[str, Any]:
    """What a model is compiled and imported with."""
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],  # its default is bf16 on processors that have it
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }


def names_of(model: Any) -> dict[str, list[str]]:
    """Of inputs and outputs, in the model's order."""
    sides = {"inputs": model.inputs, "outputs": model.outputs}
    return {side: [port.any_name for port in ports] for side, ports in sides.items()}


def unpacked(model: Any) -> Any:
    """The model with weights stored as int8 and a scale brought to float32 before the plugin sees them.

    Left to itself it computes on the int8, and takes a scale per input channel for one per output channel:
    the toon pack's UNet was off by 15 % (openvino 2026.4), and is exact to 3e-6 after this.
    """
    from openvino.passes import ConstantFolding, Manager

    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)
    return model


def _checked_precision(model: Any, file: str, asked: Precision) -> Precision:
    """What the compiled model says of itself. Raises ProviderUnavailable where that is not what was asked."""
    used = model.get_property("INFERENCE_PRECISION_HINT").to_string()
    if used != _HINTS[asked]:
        raise ProviderUnavailable(
            f"{file}: asked openvino for {_HINTS[asked]}, it compiled for {used} in silence"
        )
    return asked


def _specs(names: Sequence[str], ports: Sequence[Any]) -> Mapping[str, TensorSpec]:
    return {name: _spec(port) for name, port in zip(names, ports, strict=True)}


def _spec(port: Any) -> TensorSpec:
    sides = (side.get_length() if side.is_static else "?" for side in port.get_partial_shape())
    return TensorSpec(np.dtype(port.get_element_type().to_dtype()).name, tuple(sides))
