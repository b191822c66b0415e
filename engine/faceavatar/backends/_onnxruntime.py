"""What all ONNX Runtime providers share: opening a file, reading its signature, running it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from faceavatar.backends.bound import PROCESSOR, Bound, BoundPool, DeviceMemory
from faceavatar.backends.capture import CaptureIds
from faceavatar.backends.session import Precision, TensorSpec, failure
from faceavatar.errors import OutOfMemory, PackInvalid, ProviderUnavailable

_ERRORS_ONLY = 3  # warnings about constants folded or nodes placed are of no use to a caller
# Integers that say how large tensors are. ONNX Runtime computes them on the processor on purpose, where
# they are read: not what a warning of nodes left to the processor means.
_SHAPE_NODES = frozenset(
    (
        *(
            "Add",
            "And",
            "Cast",
            "Concat",
            "ConstantOfShape",
            "Div",
            "Equal",
            "Expand",
            "Floor",
            "Gather",
            "Less",
        ),
        *("Max", "Min", "Mod", "Mul", "Neg", "Not", "Pow", "Range", "ReduceProd", "Reshape", "Shape", "Size"),
        *("Slice", "Split", "Sqrt", "Squeeze", "Sub", "Unsqueeze", "Where"),
    )
)
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
        devices: Sequence[Any] = (),
        behind: Sequence[Any] = (),
        memory: DeviceMemory = PROCESSOR,
        recorded: bool = False,
        settings: onnxruntime.SessionOptions | None = None,
    ):
        """devices: a plugin's, in whose place execution_provider is only its name. behind: providers for what
        it leaves. memory: where bind's buffers lie. recorded: bind's runs are recorded, as the options ask.
        settings: in place of session_options'.
        """
        self.provider = provider
        self.precision: Precision = precision
        self._file = path.name
        onnxruntime.disable_telemetry_events()  # on in its own wheels
        settings, providers = settings or session_options(threads), [(execution_provider, options), *behind]
        if devices:
            settings.add_provider_for_devices(list(devices), options)
            providers = []
        if memory is not PROCESSOR:
            settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            # Left to itself it runs whatever a provider fails at on the processor, and prints a line.
            self._session = onnxruntime.InferenceSession(
                str(path), settings, providers=providers or None, enable_fallback=0
            )
        except Exception as error:  # the bindings raise a dozen unrelated classes
            raise failure(f"{path.name}: {provider} cannot open it", error, PackInvalid) from error
        used = self._session.get_providers()
        if used[:1] != [execution_provider]:
            raise ProviderUnavailable(
                f"{path.name}: asked for {execution_provider}, got {', '.join(used)} in silence; "
                "check the driver and that only one onnxruntime package is installed (faceavatar doctor)"
            )
        self.inputs = _specs(self._session.get_inputs())
        self.outputs = _specs(self._session.get_outputs())
        assigned = [] if memory is PROCESSOR else self._session.get_provider_graph_assignment_info()
        self.warnings: tuple[str, ...] = nodes_left(
            path.name,
            execution_provider,
            Counter((part.ep_name, node.op_type) for part in assigned for node in part.get_nodes()),
        )
        captures = CaptureIds() if recorded else None
        self._pool = BoundPool(self._session, self._file, provider, memory, captures)

    def _run_and_give_back(self, feeds: dict[str, NDArray[Any]], told: OutOfMemory) -> list[Any]:
        """Once more, after a run that found no memory: however it ends, what the arena took is returned.

        Else it would keep all that it had got, and the next request would find none.
        """
        if self.provider != "cpu":
            raise told
        try:
            return list(self._session.run(list(self.outputs), feeds, _giving_back()))
        except Exception as error:
            raise failure(f"{self._file} failed on {self.provider}", error) from error

    @contextmanager
    def bind(self, shapes: Any) -> Iterator[Bound]:
        """Buffers on the device for runs of these shapes (anything with ==), and runs on them; see Bound."""
        with self._pool.lend(shapes) as bound:
            yield bound

    def run(self, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        try:
            values = self._session.run(list(self.outputs), feeds)
        except Exception as error:
            told = failure(f"{self._file} failed on {self.provider}", error)
            if not isinstance(told, OutOfMemory):
                raise told from error
            values = self._run_and_give_back(feeds, told)
        return {name: np.asarray(value) for name, value in zip(self.outputs, values, strict=True)}


def nodes_left(file: str, provider: str, assigned: Mapping[tuple[str, str], int]) -> tuple[str, ...]:
    """A sentence for each other provider that a provider left nodes to; arithmetic on shapes does not count.

    assigned: how many nodes of (provider, operator).
    """
    total, said = sum(assigned.values()), []
    for other in sorted({name for name, _ in assigned} - {provider}):
        left = {
            kind: count
            for (name, kind), count in assigned.items()
            if name == other and kind not in _SHAPE_NODES
        }
        if left:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(left.items()))
            share = 100 * sum(left.values()) / total
            count = sum(left.values())
            said.append(
                f"{file}: {provider} left {count} of {total} nodes ({share:.2g} %) to {other}: {kinds}"
            )
    return tuple(said)


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


def _giving_back() -> onnxruntime.RunOptions:
    """For a run after which the arena returns what it does not use to the system."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """All graph optimisations, the memory arena on (off costs 1.3 to 1.5 times the time), no chatter.

    Threads stop waiting busily when their run ends: each session has its own, and those of one graph took the
    cores from the next (two threads were slower than one; docs/decisions.md).
    No memory patterns: they plan a run's memory as one block, which the second run of a shape takes beside
    all that the first one took piece by piece: twice the memory for no time (docs/decisions.md).
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_cpu_mem_arena = True
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = _ERRORS_ONLY
    return options


def _specs(tensors: Sequence[Any]) -> Mapping[str, TensorSpec]:
    return {
        tensor.name: TensorSpec(_DTYPES.get(tensor.type, tensor.type), _shape(tensor)) for tensor in tensors
    }


def _shape(tensor: Any) -> tuple[int | str, ...]:
    return tuple(side if isinstance(side, int) else str(side) for side in tensor.shape)
