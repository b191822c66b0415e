"""The step graph: one guidance step, from latents to the next latents, as one graph around a pack's UNet.

On a GPU latents then never leave the device. Guidance and the sampler's update are linear, so their
coefficients are inputs, and one graph serves every scheduler, step count and guidance scale
(faceavatar.device_loop feeds it). The weights are not stored again: the graph names the same file beside it
as the UNet's own does.

    python -m faceavatar_export.step_graph PACK        adds it to a pack that was exported before
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from faceavatar.backends import open_session
from faceavatar.errors import PackInvalid
from faceavatar.pack import MANIFEST, Pack
from faceavatar.schedulers.linear import STATE, TERMS
from faceavatar_export.fuse import BOUND, BOUNDS, UNPROVABLE, random_feeds
from faceavatar_export.graphs import signature
from faceavatar_export.pack_writer import Provenance, describe_file

ROLE, FILE, FUSED_FILE = "unet_step", "unet_step.onnx", "unet_step.ort.onnx"
_PREFIX = "step/"  # no exporter names anything so
_OLDEST_OPSET = 15  # the first whose Shape takes a part of the shape


def write_step_graph(unet: Path, target: Path) -> None:
    """Write the step graph of a UNet's ONNX file to `target`, in the same folder.

    Inputs, all float32: state (4, B, C, h, w), the latents and what the sampler keeps; input_scale and
    guidance (H, B, 1, 1, 1), for each of the H halves what the latents are multiplied by before the net and
    what its prediction counts; mix (4, 6, 1, 1, 1, 1), the sampler's step (see
    schedulers.linear.step_matrix); noise (B, C, h, w); and the UNet's own but for `sample`, with H * B
    rows. Outputs: new_state as state; guided (B, C, h, w), the combined prediction; magnitude (2,), the sums
    of the absolute values of guided and of the new latents, NaN or infinite where one of them is.
    Raises PackInvalid for a graph that is no UNet of a pack.
    """
    if unet.parent.resolve() != target.parent.resolve():
        raise PackInvalid(f"{target}: a step graph lies beside its UNet {unet}, whose weights it shares")
    model = onnx.load(unet, load_external_data=False)
    sample, predicted = _checked(unet, model)
    graph = model.graph
    sides = [side.dim_param or side.dim_value for side in sample.type.tensor_type.shape.dim]
    _rename_rows(graph, sides[0])
    own = [value for value in graph.input if value.name != "sample"]
    before, after, constants = _around(predicted.name)
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    latents: list[int | str] = ["pictures", *sides[1:]]
    graph.input.extend(
        [
            _info("state", [STATE, *latents]),
            _info("input_scale", ["halves", "pictures", 1, 1, 1]),
            _info("guidance", ["halves", "pictures", 1, 1, 1]),
            _info("mix", [STATE, TERMS, 1, 1, 1, 1]),
            _info("noise", latents),
            *own,
        ]
    )
    graph.output.extend(
        [_info("new_state", [STATE, *latents]), _info("guided", latents), _info("magnitude", [2])]
    )
    onnx.save(model, target)
    onnx.checker.check_model(str(target))


def add_step_graph(folder: Path) -> float:
    """Give a pack the optional graph unet_step, fused too where its unet is, and its manifest the entry.

    Gives the graph's error against the plain net and the sampler in numpy, relative root mean square; bf16
    packs, which nothing here can run, are not held to them and give NaN. Raises PackInvalid and its kin, also
    for an error above BOUND (for fp16 above BOUNDS'): the pack is then as it was.
    """
    pack = Pack.load(folder, check_hashes=False)
    unet = pack.graph("unet")
    sources = {FILE: unet.file} | ({} if unet.fused is None else {FUSED_FILE: unet.fused})
    for made, source in sources.items():
        write_step_graph(pack.file(source), pack.file(made))
    error = math.nan if unet.precision == UNPROVABLE else _error(pack.file(unet.file), pack.file(FILE))
    bound = BOUNDS.get(unet.precision, BOUND)
    if error > bound:
        for made in sources:
            pack.file(made).unlink()
        raise PackInvalid(
            f"{pack.name}: unet_step is {error:.2g} away from unet, allowed {bound:g}; the pack is as it was"
        )
    content = json.loads((pack.folder / MANIFEST).read_text(encoding="utf-8"))
    inputs, outputs = signature(pack.file(FILE))
    entry = {"file": FILE, "precision": unet.precision, "inputs": inputs, "outputs": outputs}
    content["graphs"][ROLE] = entry | ({"fused": FUSED_FILE} if unet.fused is not None else {})
    of = pack.manifest.files[unet.file]
    for made in sources:
        content["files"][made] = describe_file(pack.file(made), Provenance(of.license, of.attribution))
    (pack.folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return error


def _error(unet: Path, step: Path) -> float:
    """Of one guidance step of two pictures, against the plain net, guidance and the step in numpy."""
    session = open_session(unet, "cpu")
    feeds = random_feeds(session) | {"timestep": np.full(4, 500, session.inputs["timestep"].dtype)}
    pairs = {name: np.concatenate([array] * 2) for name, array in feeds.items() if len(array) == 2}
    draw = np.random.default_rng(1)
    latents, noise = draw.normal(size=(2, 2, *feeds["sample"].shape[1:])).astype(np.float32)
    predictions = session.run(feeds | pairs | {"sample": np.concatenate([latents] * 2)})["noise_pred"]
    del session  # a large net's weights need not be in memory twice
    guided = predictions[:2] + np.float32(5) * (predictions[2:] - predictions[:2])
    state, mix = np.zeros((STATE, *latents.shape), np.float32), draw.normal(size=(STATE, TERMS))
    state[0] = latents
    wanted = np.tensordot(mix, np.concatenate([state, guided[None], noise[None]]), 1)
    halves = np.ones((2, 2, 1, 1, 1), np.float32)
    given = {
        "state": state,
        "noise": noise,
        "mix": mix.astype(np.float32)[..., None, None, None, None],
        "input_scale": halves,
        "guidance": halves * np.array([-4, 5], np.float32)[:, None, None, None, None],
    }
    own = {name: array for name, array in (feeds | pairs).items() if name != "sample"}
    got = open_session(step, "cpu").run(own | given)["new_state"]
    return float(np.sqrt(np.mean((got - wanted) ** 2) / np.mean(wanted**2)))


def _checked(path: Path, model: ModelProto) -> tuple[ValueInfoProto, ValueInfoProto]:
    """The UNet's sample and noise_pred."""
    inputs = {value.name: value for value in model.graph.input}
    outputs = {value.name: value for value in model.graph.output}
    if "sample" not in inputs or "noise_pred" not in outputs:
        got = f"{', '.join(inputs)} -> {', '.join(outputs)}"
        raise PackInvalid(f"{path.name}: got a graph of {got}, expected a pack's UNet")
    sample, predicted = inputs["sample"], outputs["noise_pred"]
    if {value.type.tensor_type.elem_type for value in (sample, predicted)} != {TensorProto.FLOAT}:
        raise PackInvalid(f"{path.name}: sample and noise_pred must be float32; export the pack again")
    opset = next(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"})
    if opset < _OLDEST_OPSET:
        raise PackInvalid(f"{path.name}: got opset {opset}, expected {_OLDEST_OPSET} or later; export again")
    return sample, predicted


def _rename_rows(graph: GraphProto, batch: str | int) -> None:
    """What the UNet calls its batch is halves times pictures here. Runtimes plan memory by such names."""
    for value in graph.input:
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param and side.dim_param == batch:
                side.dim_param = "rows"


def _around(predicted: str) -> tuple[list[NodeProto], list[NodeProto], list[TensorProto]]:
    """The nodes before the UNet and after it, and their constants."""
    constants = {
        "zero": np.array(0, np.int64),
        "first": np.array([0], np.int64),
        "second": np.array([1], np.int64),
        "any": np.array([-1], np.int64),
    }
    named = {name: _PREFIX + name for name in constants}

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
        return helper.make_node(kind, inputs, [output], name=f"{_PREFIX}{kind}_{output}", **attributes)

    def size(of: str, output: str) -> list[NodeProto]:
        absolute, whole = f"{output}/absolute", f"{output}/whole"
        return [
            node("Abs", [of], absolute),
            node("ReduceSum", [absolute], whole, keepdims=0),
            node("Unsqueeze", [whole, named["first"]], output),
        ]

    before = [
        node("Gather", ["state", named["zero"]], _PREFIX + "latents", axis=0),
        node("Unsqueeze", [_PREFIX + "latents", named["first"]], _PREFIX + "one_half"),
        node("Mul", [_PREFIX + "one_half", "input_scale"], _PREFIX + "halves"),
        node("Shape", [_PREFIX + "halves"], _PREFIX + "halves_shape"),
        node("Shape", [_PREFIX + "halves"], _PREFIX + "picture_shape", start=2),
        node("Concat", [named["any"], _PREFIX + "picture_shape"], _PREFIX + "rows_shape", axis=0),
        node("Reshape", [_PREFIX + "halves", _PREFIX + "rows_shape"], "sample"),
    ]
    after = [
        node("Reshape", [predicted, _PREFIX + "halves_shape"], _PREFIX + "predictions"),
        node("Mul", [_PREFIX + "predictions", "guidance"], _PREFIX + "weighed"),
        node("ReduceSum", [_PREFIX + "weighed", named["first"]], "guided", keepdims=0),
        node("Unsqueeze", ["guided", named["first"]], _PREFIX + "guided_term"),
        node("Unsqueeze", ["noise", named["first"]], _PREFIX + "noise_term"),
        node("Concat", ["state", _PREFIX + "guided_term", _PREFIX + "noise_term"], _PREFIX + "terms", axis=0),
        node("Unsqueeze", [_PREFIX + "terms", named["first"]], _PREFIX + "terms_row"),
        # Not MatMul: where TF32 is on, it would round latents to 10 bits of mantissa.
        node("Mul", [_PREFIX + "terms_row", "mix"], _PREFIX + "mixed"),
        node("ReduceSum", [_PREFIX + "mixed", named["second"]], "new_state", keepdims=0),
        node("Gather", ["new_state", named["zero"]], _PREFIX + "new_latents", axis=0),
        *size("guided", _PREFIX + "guided_size"),
        *size(_PREFIX + "new_latents", _PREFIX + "latents_size"),
        node("Concat", [_PREFIX + "guided_size", _PREFIX + "latents_size"], "magnitude", axis=0),
    ]
    return before, after, [numpy_helper.from_array(value, named[name]) for name, value in constants.items()]


def _info(name: str, shape: list[int | str]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def main() -> None:
    """The command."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m faceavatar_export.step_graph PACK")
    error = add_step_graph(Path(sys.argv[1]))
    print(f"unet_step was written and pack.json names it; {error:.2g} away from unet")


if __name__ == "__main__":
    main()
