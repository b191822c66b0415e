"""Buffers that stay on a session's device from run to run, copied in and out only when asked.

ONNX Runtime's IO binding. Knows addresses, shapes and recorded launches; does not know what a graph computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from faceavatar.backends.capture import CaptureIds
from faceavatar.backends.session import failure

# ONNX Runtime itself reads the first, the TensorRT-RTX plugin the second.
_CAPTURE_ENTRIES = ("gpu_graph_id", "cuda_graph_annotation_id")
_NVIDIA = 0x10DE  # PCI vendor id
_KEPT = 4


@dataclass(frozen=True)
class DeviceMemory:
    """Where buffers lie: ONNX Runtime's name of the device, and a vendor where a plugin has the memory."""

    name: str
    vendor: int = -1

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> onnxruntime.OrtValue:
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            list(shape), dtype.type, self.name, 0, *([] if self.vendor < 0 else [self.vendor])
        )

    def write(self, target: onnxruntime.OrtValue, array: NDArray[Any]) -> None:
        if self.vendor < 0:
            target.update_inplace(array)
        else:  # a plugin brings its own copying, which update_inplace does not know
            onnxruntime.copy_tensors([onnxruntime.OrtValue.ortvalue_from_numpy(array)], [target])

    def read(self, source: onnxruntime.OrtValue, dtype: np.dtype[Any]) -> NDArray[Any]:
        if self.vendor < 0:
            return np.array(source.numpy())
        here = onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(source.shape()), dtype.type, "cpu", 0)
        onnxruntime.copy_tensors([source], [here])
        return np.array(here.numpy())


PROCESSOR = DeviceMemory("cpu")
CUDA = DeviceMemory("cuda")
PLUGIN_GPU = DeviceMemory("gpu", _NVIDIA)


class Bound:
    """Named buffers on a device, and runs of one graph on them. For one thread at a time."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        file: str,
        provider: str,
        memory: DeviceMemory,
        captures: CaptureIds | None,
    ) -> None:
        self._session, self._memory, self._captures = session, memory, captures
        self._whose = f"{file} failed on {provider}"
        self._buffers: dict[str, tuple[onnxruntime.OrtValue, np.dtype[Any], tuple[int, ...]]] = {}
        self._bindings: dict[Any, tuple[onnxruntime.IOBinding, onnxruntime.RunOptions]] = {}

    def upload(self, buffer: str, array: NDArray[Any]) -> None:
        """Copy an array into a buffer: where it is of the same type and shape, at the same address."""
        array = np.ascontiguousarray(array)
        self.reserve(buffer, array.shape, array.dtype)
        self._memory.write(self._buffers[buffer][0], array)

    def reserve(self, buffer: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """See that a buffer of this shape and type is there; what it holds is not said."""
        if buffer in self._buffers and self._buffers[buffer][1:] == (dtype, shape):
            return
        self._bindings.clear()  # they hold the buffer that was there
        try:
            self._buffers[buffer] = self._memory.empty(shape, dtype), dtype, shape
        except Exception as error:  # the bindings raise a dozen unrelated classes
            raise failure(f"{self._whose}: {buffer}", error) from error

    def download(self, buffer: str) -> NDArray[Any]:
        """A copy of what a buffer holds."""
        value, dtype, _ = self._buffers[buffer]
        return self._memory.read(value, dtype)

    def run(self, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
        """Run the graph once; inputs and outputs: which buffer each of its tensors is. Waits for the end.

        Raises FaceAvatarError when the provider fails, with its own words.
        """
        try:
            binding, options = self._bound(inputs, outputs)
            binding.synchronize_inputs()
            self._session.run_with_iobinding(binding, options)
            binding.synchronize_outputs()
        except Exception as error:
            raise failure(self._whose, error) from error

    def signature(self, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> tuple[Any, ...]:
        """All that a recorded run depends on: the address, shape and type behind every tensor."""
        return tuple(
            (kind, name, self._buffers[buffer][0].data_ptr(), *self._buffers[buffer][1:])
            for kind, side in (("in", inputs), ("out", outputs))
            for name, buffer in sorted(side.items())
        )

    def _bound(
        self, inputs: Mapping[str, str], outputs: Mapping[str, str]
    ) -> tuple[onnxruntime.IOBinding, onnxruntime.RunOptions]:
        key = tuple(sorted(inputs.items())), tuple(sorted(outputs.items()))
        if key not in self._bindings:
            binding = self._session.io_binding()
            for name, buffer in inputs.items():
                binding.bind_ortvalue_input(name, self._buffers[buffer][0])
            for name, buffer in outputs.items():
                binding.bind_ortvalue_output(name, self._buffers[buffer][0])
            options = onnxruntime.RunOptions()
            if self._captures is not None:
                recorded = self._captures.claim(self.signature(inputs, outputs))
                for entry in _CAPTURE_ENTRIES:
                    options.add_run_config_entry(entry, str(recorded))
            self._bindings[key] = binding, options
        return self._bindings[key]


class BoundPool:
    """A session's sets of buffers, one lent to each run: the same addresses for the same shapes."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        file: str,
        provider: str,
        memory: DeviceMemory,
        captures: CaptureIds | None,
    ) -> None:
        self._arguments = session, file, provider, memory, captures
        self._free: list[tuple[Any, Bound]] = []
        self._lock = Lock()

    @contextmanager
    def lend(self, shapes: Any) -> Iterator[Bound]:
        """Buffers for a run of these shapes (anything with ==), used before for such a run where possible."""
        with self._lock:
            fits = [index for index, (known, _) in enumerate(self._free) if known == shapes]
            bound = self._free.pop(fits[-1])[1] if fits else Bound(*self._arguments)
        try:
            yield bound
        finally:
            with self._lock:
                self._free = [*self._free, (shapes, bound)][-_KEPT:]
