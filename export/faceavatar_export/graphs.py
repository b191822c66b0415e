"""torch modules become ONNX graphs: one call, dynamic dimensions with names, weights stored small.

Knows nothing of diffusion. The dynamo exporter names dimensions by itself (`s53`): they are renamed here to
what the manifest calls them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxscript import optimizer
from torch import Tensor, nn

OPSET = 18
BF16_OPSET = 22  # the first one whose Conv takes bfloat16
INT8_MIN_SIZE = 4096


def export_graph(
    module: nn.Module,
    example: Mapping[str, Tensor],
    outputs: Sequence[str],
    axes: Mapping[str, Mapping[int, str]],
    path: Path,
    output_axes: Mapping[str, Mapping[int, str]],
    external_data: bool = False,
    opset: int = OPSET,
) -> None:
    """Writes `module` to `path` with named inputs, outputs and dynamic axes.

    `example` gives the positional inputs in order; the sizes of dynamic axes in it must be above 1, or the
    exporter takes them for constants. `axes` and `output_axes` name the dynamic axes, as in
    {"sample": {0: "batch", 2: "height"}}. With `external_data` the weights go to one file beside the graph,
    its name plus ".data": a protobuf holds no more than 2 GB.
    """
    module = module.eval()
    dynamic = {name: dict.fromkeys(axes.get(name, {}), torch.export.Dim.DYNAMIC) for name in example}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own deprecations, nothing about this graph
        # Captured here: left to itself the exporter first tries a mode that fails on a UNet's sizes, then
        # compiles every frame, and takes twice as long for the same nodes.
        captured = torch.export.export(
            module, tuple(example.values()), dynamic_shapes=tuple(dynamic.values()), strict=False
        )
        program = torch.onnx.export(
            captured,
            dynamo=True,
            opset_version=opset,
            input_names=list(example),
            output_names=list(outputs),
            verbose=False,
            optimize=False,
        )
    assert program is not None
    # Of the exporter's own optimisation only this is worth its time: its rewriting takes a third of a UNet's
    # export, and what it fuses every runtime fuses when it loads (docs/decisions.md).
    optimizer.fold_constants(program.model)
    optimizer.remove_unused_nodes(program.model)
    program.save(str(path), external_data=external_data)
    del program
    # Only the skeleton is read back: the weights of a large graph stay in their file.
    model = onnx.load(path, load_external_data=not external_data)
    _name_axes(model.graph.input, axes)
    _name_axes(model.graph.output, output_axes)
    del model.graph.value_info[:]  # they still carry the exporter's dimension names
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.save(model, path)


def _name_axes(values: Sequence[onnx.ValueInfoProto], axes: Mapping[str, Mapping[int, str]]) -> None:
    for value in values:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if axis in axes.get(value.name, {}):
                dim.dim_param = axes[value.name][axis]


def _channel_axis(weights: np.ndarray) -> int:
    """The axis (0 or 1) along which separate int8 scales lose less."""
    errors = []
    for axis in (0, 1):
        scale = _scales(weights, axis)
        errors.append(float(np.square(np.rint(weights / scale) * scale - weights).sum()))
    return int(np.argmin(errors))


def _scales(weights: np.ndarray, axis: int) -> np.ndarray:
    others = tuple(i for i in range(weights.ndim) if i != axis)
    scales: np.ndarray = np.maximum(np.abs(weights).max(axis=others, keepdims=True), 1e-12) / 127
    return scales.astype(np.float32)


def store_weights_as_int8(path: Path, external_data: bool = False) -> None:
    """Rewrites a graph so that large matrices and kernels lie in the file as int8 with a scale a channel.

    Cast and Mul of constants, not DequantizeLinear: every runtime folds them into float32 weights when it
    loads, so the arithmetic of the run stays float32 and only the file is small. With `external_data` the
    weights are and stay in one file beside the graph, its name plus ".data".
    """
    model = onnx.load(path)
    graph = model.graph
    casts: list[onnx.NodeProto] = []
    kept: list[TensorProto] = []
    for tensor in graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.dtype != np.float32 or weights.ndim < 2 or weights.size < INT8_MIN_SIZE:
            kept.append(tensor)
            continue
        scale = _scales(weights, _channel_axis(weights))
        small = np.rint(weights / scale).astype(np.int8)
        name = tensor.name
        kept += [
            numpy_helper.from_array(small, name + ".int8"),
            numpy_helper.from_array(scale, name + ".scale"),
        ]
        casts += [
            helper.make_node("Cast", [name + ".int8"], [name + ".cast"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [name + ".cast", name + ".scale"], [name]),
        ]
    nodes = [*casts, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    if external_data:
        beside = path.with_name(f"{path.name}.data")
        beside.unlink(missing_ok=True)
        # Not by onnx.save, which looks for a file of that name in the working directory and refuses there.
        onnx_ir.save(onnx_ir.from_proto(model), path, external_data=beside.name)
    else:
        onnx.save(model, path)
    onnx.checker.check_model(path)


def signature(path: Path) -> tuple[dict[str, dict[str, object]], dict[str, dict[str, object]]]:
    """A graph's inputs and outputs as the manifest has them: {name: {"dtype": "float32", "shape": [...]}}."""
    graph = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}

    def describe(values: Sequence[onnx.ValueInfoProto]) -> dict[str, dict[str, object]]:
        found: dict[str, dict[str, object]] = {}
        for value in values:
            if value.name not in constants:
                tensor = value.type.tensor_type
                dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
                found[value.name] = {
                    "dtype": dtype,
                    "shape": [d.dim_param or d.dim_value for d in tensor.shape.dim],
                }
        return found

    return describe(graph.input), describe(graph.output)
