"""A decoder in two graphs, so that a large picture can be decoded tile by tile and come out as if whole.

`python -m faceavatar_export.tiles PACK` adds them to a pack. The first, vae_decoder_low, is all up to twice
the latents' size, with the attention: small, and run whole. The second, vae_decoder_tile, is the rest, which
takes nearly all memory. It is convolutions, which see a few cells around, and group norms, which see the
whole picture: their means and variances are inputs here, and those of the tile's own core are outputs, so
that the engine can bring the tiles' together. Both share the decoder's file of weights.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from faceavatar.errors import FaceAvatarError, PackInvalid
from faceavatar.pack import MANIFEST, Pack
from faceavatar_export.pack_writer import Provenance, describe_file

LOW, TILE = "vae_decoder_low", "vae_decoder_tile"
CUT = 1  # the Resize, counted from 0, before which the second graph begins
HALF = "half"  # the tensor between the two, at twice the latents' size


def write_tiles(path: Path) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Writes NAME_low.onnx and NAME_tile.onnx beside NAME.onnx; gives both models, without weights.

    Raises PackInvalid for a graph that is not of the form of Stable Diffusion's decoders.
    """
    whole = onnx.load(path, load_external_data=False)
    resizes = [node for node in whole.graph.node if node.op_type == "Resize"]
    if len(resizes) <= CUT + 1 or not any(_norms(whole.graph)):
        raise PackInvalid(
            f"{path.name}: expected a decoder with group norms that doubles its size three times"
        )
    between = resizes[CUT].input[0]
    sides: list[Any] = [1, _channels(whole, between), "half_height", "half_width"]
    half = helper.make_tensor_value_info(HALF, TensorProto.FLOAT, sides)
    image = helper.make_tensor_value_info(
        whole.graph.output[0].name, TensorProto.FLOAT, [1, 3, "image_height", "image_width"]
    )
    low = _part(whole, [whole.graph.input[0]], [between], [half], {between: HALF})
    tile = _part(whole, [half], [image.name], [image], {between: HALF})
    _open_norms(tile)
    for role, model in ((LOW, low), (TILE, tile)):
        onnx.save(model, path.with_name(f"{role}.onnx"))
    return low, tile


def add_tiles(folder: Path) -> None:
    """Adds both graphs to a finished pack. Raises PackInvalid and its kin."""
    pack = Pack.load(folder)
    graph = pack.graph("vae_decoder")
    models = write_tiles(pack.file(graph.file))
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    made_of = manifest["files"][graph.file]
    for role, model in zip((LOW, TILE), models, strict=True):
        path = folder / f"{role}.onnx"
        provenance = Provenance(made_of["license"], made_of["attribution"])
        manifest["files"][path.name] = describe_file(path, provenance)
        manifest["graphs"][role] = {
            "file": path.name,
            "precision": graph.precision,
            "inputs": {one.name: _tensor(one) for one in model.graph.input},
            "outputs": {one.name: _tensor(one) for one in model.graph.output},
        }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _part(
    whole: onnx.ModelProto,
    inputs: list[onnx.ValueInfoProto],
    wanted: list[str],
    outputs: list[onnx.ValueInfoProto],
    renamed: dict[str, str],
) -> onnx.ModelProto:
    """The nodes between inputs and wanted, with the weights that they read."""
    known = {renamed.get(one.name, one.name) for one in inputs}
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in whole.graph.node]
    for node in nodes:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    maker = {name: index for index, node in enumerate(nodes) for name in node.output}
    need, used = [renamed.get(name, name) for name in wanted], set[int]()
    while need:
        name = need.pop()
        if name in known or name not in maker or maker[name] in used:
            continue
        used.add(maker[name])
        need.extend(nodes[maker[name]].input)
    kept = [nodes[index] for index in sorted(used)]
    read = {name for node in kept for name in node.input}
    weights = [one for one in whole.graph.initializer if one.name in read]
    graph = helper.make_graph(kept, whole.graph.name, inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=whole.opset_import, ir_version=whole.ir_version)


def _open_norms(model: onnx.ModelProto) -> None:
    """Gives every group norm its means and variances from outside, and its own core's to the outside.

    Added inputs: `norms` (K, 2, G) float32, mean and variance of each norm's groups; `own` (1,) bool, whether
    the tile's own are used in their place; `core` (4,) int64: top, left, bottom, right of the core in cells
    of the tile's input. Added output: `own_norms` (K, 2, G), of the core alone.
    """
    graph = model.graph
    level = _levels(graph)
    maker = {name: node for node in graph.node for name in node.output}
    norms, nodes, given = list(_norms(graph)), list[onnx.NodeProto](), list[str]()
    groups = _groups(graph, norms[0])
    constants = _Constants(graph)
    for node in graph.node:
        if node.op_type != "InstanceNormalization":
            nodes.append(node)
            continue
        made, own = _open_norm(node, maker[node.input[0]].input[0], level, len(given), groups, constants)
        nodes.extend(made)
        given.append(own)
    nodes.append(helper.make_node("Concat", given, ["own_norms"], axis=0))
    del graph.node[:]
    graph.node.extend(nodes)
    shape = [len(given), 2, groups]
    graph.input.append(helper.make_tensor_value_info("norms", TensorProto.FLOAT, shape))
    graph.input.append(helper.make_tensor_value_info("own", TensorProto.BOOL, [1]))
    graph.input.append(helper.make_tensor_value_info("core", TensorProto.INT64, [4]))
    graph.output.append(helper.make_tensor_value_info("own_norms", TensorProto.FLOAT, shape))


def _open_norm(
    node: onnx.NodeProto, x: str, level: dict[str, int], index: int, groups: int, constants: _Constants
) -> tuple[list[onnx.NodeProto], str]:
    """The nodes in one norm's place, and the name of its own mean and variance (1, 2, G)."""
    name = f"norm_{index}"
    epsilon = next((one.f for one in node.attribute if one.name == "epsilon"), 1e-5)
    scale = constants.of(np.int64(2 ** level[x]))
    two, four, axes = (constants.of(np.array(value, np.int64)) for value in ([2], [4], [2, 3]))
    first = constants.of(np.array([0], np.int64))

    def op(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [f"{name}_{output}"], f"{name}_{output}", **attributes)

    def at(output: str) -> str:
        return f"{name}_{output}"

    nodes = [
        op("Mul", ["core", scale], "place"),
        op("Slice", [at("place"), first, two], "begin"),
        op("Slice", [at("place"), two, four], "end"),
        op("Slice", [x, at("begin"), at("end"), axes], "core"),
        op("Reshape", [at("core"), constants.of(np.array([0, groups, -1], np.int64))], "flat"),
        op("ReduceMean", [at("flat"), two], "mean", keepdims=1),
        op("Sub", [at("flat"), at("mean")], "centred"),
        op("Mul", [at("centred"), at("centred")], "squared"),
        op("ReduceMean", [at("squared"), two], "variance", keepdims=1),
        op("Concat", [at("mean"), at("variance")], "both", axis=2),
        op("Transpose", [at("both")], "own", perm=[0, 2, 1]),
        op("Gather", ["norms", constants.of(np.array([index], np.int64))], "theirs", axis=0),
        op("Where", ["own", at("own"), at("theirs")], "used"),
        op("Transpose", [at("used")], "columns", perm=[0, 2, 1]),
        op("Slice", [at("columns"), first, constants.of(np.array([1], np.int64)), two], "used_mean"),
        op("Slice", [at("columns"), constants.of(np.array([1], np.int64)), two, two], "used_variance"),
        op("Add", [at("used_variance"), constants.of(np.float32(epsilon))], "positive"),
        op("Sqrt", [at("positive")], "deviation"),
        op("Sub", [node.input[0], at("used_mean")], "moved"),
        helper.make_node("Div", [at("moved"), at("deviation")], list(node.output)),
    ]
    return nodes, at("own")


class _Constants:
    """Adds constants to a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph

    def of(self, value: Any) -> str:
        name = f"tile_constant_{len(self._graph.initializer)}"
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def _norms(graph: onnx.GraphProto) -> Iterator[str]:
    return (node.name or node.output[0] for node in graph.node if node.op_type == "InstanceNormalization")


def _groups(graph: onnx.GraphProto, name: str) -> int:
    node = next(one for one in graph.node if name in (one.name, one.output[0]))
    weight = next(one for one in graph.initializer if one.name == node.input[1])
    return int(weight.dims[0])


def _levels(graph: onnx.GraphProto) -> dict[str, int]:
    """How often each tensor was doubled on its way."""
    level: dict[str, int] = {HALF: 0}
    for node in graph.node:
        most = max((level.get(name, 0) for name in node.input), default=0)
        for name in node.output:
            level[name] = most + (node.op_type == "Resize")
    return level


def _channels(model: onnx.ModelProto, name: str) -> int:
    inferred = onnx.shape_inference.infer_shapes(model)
    found = next(one for one in inferred.graph.value_info if one.name == name)
    return int(found.type.tensor_type.shape.dim[1].dim_value)


def _tensor(info: onnx.ValueInfoProto) -> dict[str, Any]:
    kind = info.type.tensor_type
    shape = [side.dim_param or side.dim_value for side in kind.shape.dim]
    return {"dtype": helper.tensor_dtype_to_np_dtype(kind.elem_type).name, "shape": shape}


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("pack", type=Path)
    try:
        add_tiles(parser.parse_args().pack)
    except FaceAvatarError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
