"""OpenVINO on the processor: reads the same ONNX files, and computes in float32 or bfloat16."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceavatar.backends.processor import processor_name
from faceavatar.backends.session import Bucket, Platform, Precision, Session, TensorSpec, failure
from faceavatar.errors import EngineStale, FaceAvatarError, MissingExtra, PackInvalid, ProviderUnavailable

# A compiled model, the names of its inputs and outputs in its order, and what its weights lie in.
Opened = tuple[Any, Mapping[str, list[str]], Any]
_HINTS: Mapping[Precision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_AGAIN = "compile it again: faceavatar compile PACK --provider openvino"
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
    return OpenVinoSession(partial(_compiled, path, threads, used), path.name, used)


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
    """The compiled model as OpenVINO exports it, for any shape, and the names of its inputs and outputs.

    Below float32 the weights are stored as float16, half as long and nearer than what they are rounded to.
    """
    import openvino

    used = _precision(path, precision, stored)
    blob, listed = target.with_name(f"{target.name}.blob"), target.with_name(f"{target.name}.json")
    try:
        core = openvino.Core()
        model = core.read_model(str(path))
        names = _names(model)
        if used == "fp32":
            _export(core.compile_model(_unpacked(model), "CPU", _config(used, threads)), blob)
        else:
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                shorter = Path(folder) / "model.xml"
                openvino.save_model(_unpacked(model), shorter, compress_to_fp16=True)
                del model
                _export(core.compile_model(str(shorter), "CPU", _config(used, threads)), blob)
    except Exception as error:  # RuntimeError and several classes of the bindings
        raise failure(f"{path.name}: openvino cannot compile it", error, PackInvalid) from error
    listed.write_text(json.dumps(names), encoding="utf-8")
    return blob, listed


def open_engine(
    files: Sequence[Path],
    path: Path,
    threads: int,
    precision: Precision | None = None,
    record: bool = False,
) -> Session:
    """Open what compile_graph wrote; its weights are mapped and not read."""
    used = _precision(path, precision, "fp32")
    return OpenVinoSession(partial(_imported, files[0], files[1], threads, used), path.name, used)


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


class OpenVinoSession:
    """A Session over one compiled OpenVINO model."""

    provider = "openvino"

    def __init__(self, opened: Callable[[], Opened], file: str, precision: Precision) -> None:
        """opened: compiles or imports the model, again after a run that failed. file: the graph's name."""
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


def _compiled(path: Path, threads: int, precision: Precision) -> Opened:
    """An ONNX file compiled. Raises PackInvalid, OutOfMemory."""
    import openvino

    try:
        core = openvino.Core()
        model = core.read_model(str(path))
        # Before it is compiled: what does nothing is taken out then, and its name may stay on an input.
        names = _names(model)
        return core.compile_model(_unpacked(model), "CPU", _config(precision, threads)), names, None
    except Exception as error:  # RuntimeError and several classes of the bindings
        raise failure(f"{path.name}: openvino cannot open it", error, PackInvalid) from error


def _imported(blob: Path, listed: Path, threads: int, precision: Precision) -> Opened:
    """An engine. Raises EngineStale, OutOfMemory."""
    import openvino

    try:
        # Mapped for writing, which the bindings ask for; nothing that were written would reach the file.
        mapped = np.memmap(blob, np.uint8, mode="c")
        names = json.loads(listed.read_text(encoding="utf-8"))
        tensor = openvino.Tensor(mapped, shared_memory=True)
        model = openvino.Core().import_model(tensor, "CPU", _config(precision, threads))
    except Exception as error:  # RuntimeError and several classes of the bindings
        raise failure(f"{blob.name}: openvino refuses it; {_AGAIN}", error, EngineStale) from error
    return model, names, (mapped, tensor)


def _config(precision: Precision, threads: int) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],  # its default is bf16 on processors that have it
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }


def _names(model: Any) -> dict[str, list[str]]:
    sides = {"inputs": model.inputs, "outputs": model.outputs}
    return {side: [port.any_name for port in ports] for side, ports in sides.items()}


def _export(model: Any, blob: Path) -> None:
    """OpenVINO writes to memory only."""
    with blob.open("wb") as file:
        file.write(model.export_model().getbuffer())


def _unpacked(model: Any) -> Any:
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
