"""DeepCache's two graphs from a pack's UNet: the whole one tells what its deep layers say, the shallow one
takes that word in their place. Both, and their fused forms, share the weights' file.

The cut is before the last resnet of the last upward block: all that is left is the first convolution, that
resnet with its attention, and the last convolution (branch 0 of Ma et al. 2023, arXiv 2312.00858).

    python -m faceavatar_export.step_cache PACK        adds them to a finished pack
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper

from faceavatar.errors import FaceAvatarError, PackInvalid
from faceavatar.pack import MANIFEST, Pack
from faceavatar_export.fuse import FUSED_ROLES, UNPROVABLE, random_feeds, write_fused
from faceavatar_export.fused_attention import prune
from faceavatar_export.graphs import signature
from faceavatar_export.pack_writer import Provenance, describe_file

ROLE, FILE, DEEP = "unet_shallow", "unet_shallow.onnx", "deep"
BOUND = 1e-4  # of the shallow graph's answer to the whole one's, of which it is a part


def write_step_cache(unet: Path, shallow: Path) -> None:
    """Rewrite a UNet's skeleton so that it also gives `deep` (B, D, h, w); write the shallow graph's.

    Raises PackInvalid for a graph that is no UNet with skip connections, or holds its weights itself.
    """
    whole = onnx.load(unet, load_external_data=False)
    if not any(one.data_location == onnx.TensorProto.EXTERNAL for one in whole.graph.initializer):
        raise PackInvalid(f"{unet.name}: its weights are inside, expected in a file beside it to be shared")
    join = _last_join(unet, whole.graph)
    deep = helper.make_tensor_value_info(
        DEEP, _element_type(whole.graph), ["batch", _channels(unet, whole.graph, join), "height", "width"]
    )
    cut = ModelProto()
    cut.CopyFrom(whole)
    whole.graph.output.append(deep)
    whole.graph.node.append(helper.make_node("Identity", [join.input[0]], [DEEP]))
    _last_join(unet, cut.graph).input[0] = DEEP
    prune(cut.graph)
    taken = {name for node in cut.graph.node for name in node.input}
    inputs = [value for value in cut.graph.input if value.name in taken]
    del cut.graph.input[:]
    cut.graph.input.extend([*inputs, deep])
    onnx.save(cut, shallow)
    onnx.save(whole, unet)


def add_step_cache(folder: Path) -> float:
    """Give a pack what `step_cache` needs; gives the relative error of the shallow graph's answer.

    The pack stays as it was where that is beyond its bound. Raises PackInvalid and its kin.
    """
    pack = Pack.load(folder)
    graph = pack.graph("unet")
    if DEEP in graph.outputs:
        raise PackInvalid(f"{pack.name}: its unet gives {DEEP} already")
    unet, shallow = pack.file(graph.file), pack.folder / FILE
    before = {path: path.read_bytes() for path in (unet, pack.folder / MANIFEST)}
    written = [shallow]
    try:
        write_step_cache(unet, shallow)
        fused = graph.fused is not None and ROLE in FUSED_ROLES and graph.precision != UNPROVABLE
        if graph.fused is not None:
            before[pack.file(graph.fused)] = pack.file(graph.fused).read_bytes()
            write_fused(unet)
        again = write_fused(shallow) if fused else None
        written += [] if again is None else [again]
        _describe(pack, again)
        error = _difference(Pack.load(folder), "openvino" if graph.precision == UNPROVABLE else "cpu")
        if not error <= BOUND:
            raise PackInvalid(f"{pack.name}: {ROLE} is {error:.2g} off the whole net, allowed {BOUND:g}")
    except BaseException:
        for path, content in before.items():
            path.write_bytes(content)
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return error


def _last_join(path: Path, graph: GraphProto) -> NodeProto:
    """The last place where a skip connection is laid beside what comes from below."""
    joins: list[NodeProto] = [
        node
        for node in graph.node
        if node.op_type == "Concat" and len(node.input) == 2 and node.attribute[0].i == 1
    ]
    if not joins or len(graph.output) != 1:
        raise PackInvalid(f"{path.name}: no skip connections with one output; expected a pack's UNet")
    return joins[-1]


def _channels(path: Path, graph: GraphProto, join: NodeProto) -> int:
    """D: what the convolution after the join takes, less what the skip connection brings."""
    weights = {tensor.name.removesuffix(".int8"): tensor.dims for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    first = next((node for node in convolutions if _takes_sample(graph, node)), None)
    after = next((node for node in convolutions if join.output[0] in node.input), None)
    if first is None or after is None:
        raise PackInvalid(f"{path.name}: nothing takes the last skip connection; expected a pack's UNet")
    return int(weights[after.input[1]][1] - weights[first.input[1]][0])


def _takes_sample(graph: GraphProto, node: NodeProto) -> bool:
    """Whether a node takes `sample`, in half precision through a cast."""
    return "sample" in node.input or any(
        one.op_type == "Cast" and one.input[0] == "sample" and one.output[0] == node.input[0]
        for one in graph.node
    )


def _element_type(graph: GraphProto) -> int:
    """What the net computes in: that of its first convolution's weights, wherever they are cast from."""
    first = next(node for node in graph.node if node.op_type == "Conv")
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    return int(kinds.get(first.input[1], onnx.TensorProto.FLOAT))


def _describe(pack: Pack, fused: Path | None) -> None:
    """Bring the manifest up to the files."""
    path = pack.folder / MANIFEST
    manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    unet = manifest["graphs"]["unet"]
    of_unet = manifest["files"][unet["file"]]
    provenance = Provenance(of_unet["license"], of_unet["attribution"])
    shallow = unet | {"file": FILE}
    shallow.pop("fused", None)
    if fused is not None:
        shallow["fused"] = fused.name
    for graph in (unet, shallow):
        graph["inputs"], graph["outputs"] = signature(pack.folder / graph["file"])
        for name in (graph["file"], graph.get("fused")):
            if name is not None:
                manifest["files"][name] = describe_file(pack.folder / name, provenance)
    manifest["graphs"][ROLE] = shallow
    path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _difference(pack: Pack, provider: str) -> float:
    """How far the shallow graph is from the whole one, given its `deep`: the same sums, so hardly at all."""
    whole = pack.open("unet", provider)
    feeds = random_feeds(whole)
    made = whole.run(feeds)
    del whole
    shallow = pack.open(ROLE, provider)
    given = feeds | {DEEP: made[DEEP]}
    got = shallow.run({name: given[name] for name in shallow.inputs})["noise_pred"]
    want = made["noise_pred"]
    error = float(np.sqrt(np.mean((got - want) ** 2) / np.mean(want**2)))
    return error if np.isfinite(error) else float("inf")


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pack", type=Path)
    try:
        error = add_step_cache(parser.parse_args().pack)
    except FaceAvatarError as problem:
        raise SystemExit(f"error: {problem}") from problem
    print(f"{FILE}: {error:.2g} away from the whole net at the step that it shares with it")


if __name__ == "__main__":
    main()
