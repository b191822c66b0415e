"""How much arithmetic one run of a graph is, for benchmarks: its convolutions and matrix products, counted.

Read with OpenVINO, whose shape inference goes through what exporters leave open (sizes computed in the graph)
and which maps the weights and does not load them. Counts the graph as it is written, not what an engine makes
of it: a fused or padded kernel is still the same work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from faceavatar.backends.session import first_line
from faceavatar.errors import MissingExtra, PackInvalid


def count_flops(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> float:
    """Floating-point operations of one run of an ONNX file, a multiplication and an addition being two.

    shapes: of every input. Elementwise operators, norms and activations are left out: in these nets they are
    under a hundredth of the operations. Raises MissingExtra without openvino, PackInvalid for a graph that it
    cannot read or whose sizes stay unknown.
    """
    if find_spec("openvino") is None:
        raise MissingExtra("openvino", "openvino")
    import openvino

    try:
        model = openvino.Core().read_model(str(path))
        model.reshape({name: list(shape) for name, shape in shapes.items()})
        operators = model.get_ordered_ops()
        kinds = [(op, op.get_type_name()) for op in operators]
        return float(sum(_FLOPS[kind](op) for op, kind in kinds if kind in _FLOPS))
    except Exception as error:  # RuntimeError and several classes of the bindings
        raise PackInvalid(f"{path.name}: its operations cannot be counted: {first_line(error)}") from error


def _size(shape: Iterable[int]) -> int:
    return math.prod(int(side) for side in shape)


def _matmul(op: Any) -> int:
    shape = list(op.input_value(0).get_shape())
    inner = shape[-2] if op.get_attributes()["transpose_a"] and len(shape) > 1 else shape[-1]
    return 2 * _size(op.output(0).get_shape()) * int(inner)


def _einsum(op: Any) -> int:
    """Two operands: every combination of the letters' values is one multiplication and one addition."""
    operands = op.get_attributes()["equation"].replace(" ", "").split("->")[0].split(",")
    sides: dict[str, int] = {}
    for place, letters in enumerate(operands):
        sides |= dict(zip(letters, op.input_value(place).get_shape(), strict=True))
    return 2 * math.prod(sides.values())


def _convolution(op: Any) -> int:
    """The kernel is (out, in, ...), or (groups, out, in, ...): what each output value is summed over."""
    kernel = list(op.input_value(1).get_shape())
    grouped = op.get_type_name().startswith("Group")
    return 2 * _size(op.output(0).get_shape()) * _size(kernel[2 if grouped else 1 :])


def _transposed_convolution(op: Any) -> int:
    kernel = list(op.input_value(1).get_shape())
    grouped = op.get_type_name().startswith("Group")
    return 2 * _size(op.input_value(0).get_shape()) * _size(kernel[2 if grouped else 1 :])


def _attention(op: Any) -> int:
    """Scores, then their weighted sum of the values."""
    query, key, value = (list(op.input_value(place).get_shape()) for place in range(3))
    scores = _size(query[:-1]) * int(key[-2])
    return 2 * scores * (int(query[-1]) + int(value[-1]))


_FLOPS: Mapping[str, Callable[[Any], int]] = {
    "MatMul": _matmul,
    "Einsum": _einsum,
    "Convolution": _convolution,
    "GroupConvolution": _convolution,
    "ConvolutionBackpropData": _transposed_convolution,
    "GroupConvolutionBackpropData": _transposed_convolution,
    "ScaledDotProductAttention": _attention,
}
