"""Builds a complete pack of a few kilobytes in a fraction of a second, for the tests.

Every role is there with its real signature, and every input of every graph matters to its output; the weights
are random but fixed. Run as a script it writes the pack to a folder: python tests/tiny_pack.py FOLDER
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from faceavatar.backends import Session

TOON = Path(__file__).parents[1] / "engine" / "faceavatar" / "packs" / "toon"
DETECTOR, TOKENIZER = "face_detection_yunet.onnx", "tokenizer.json"
FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
OPSET, IR = 17, 9
HIDDEN, CONTEXT, EMBEDDING, TOKENS, WINDOW, WORDS = 16, 24, 20, 4, 77, 257
MATTE = 256


@dataclass(frozen=True)
class Shape:
    """The parts of a pack's geometry that tests vary."""

    channels: int = 8
    downsample: int = 64
    native: tuple[tuple[int, int], ...] = ((512, 512),)
    multiple_of: int = 64
    policy: str = "extend"
    align: str = "head"
    align_size: int = 128


Signature = dict[str, tuple[int, list[Any]]]

TOON_LIKE = Shape()
SD_LIKE = Shape(
    channels=4, downsample=8, native=(), multiple_of=8, policy="cover", align="arcface", align_size=112
)


class Graph:
    """A graph under construction: op() adds a node and returns its output's name, weight() a constant."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def ops(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """A node of several outputs."""
        names = [f"{kind.lower()}_{len(self._nodes)}_{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def weight(self, *shape: int, scale: float = 1.0) -> str:
        fan_in = int(np.prod(shape[1:])) if len(shape) == 4 else shape[0]
        return self.constant(self._random.normal(size=shape) * scale / np.sqrt(fan_in))

    def conv(self, x: str, inside: int, outside: int, scale: float = 1.0, output: str = "") -> str:
        weight = self.weight(outside, inside, 3, 3, scale=scale)
        return self.op("Conv", x, weight, output=output, pads=[1, 1, 1, 1])

    def model(self, inputs: Signature, outputs: Signature) -> onnx.ModelProto:
        graph = helper.make_graph(self._nodes, "tiny", _infos(inputs), _infos(outputs), self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        onnx.checker.check_model(model)
        return model


def _infos(tensors: Signature) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, dtype, shape) for name, (dtype, shape) in tensors.items()]


def text_encoder(half: bool = False) -> onnx.ModelProto:
    """half: its states overflow on their way out, in fp16."""
    g = Graph(1)
    words = g.op("Mod", "input_ids", g.constant(WORDS, np.int64))
    x = g.op("Add", g.op("Gather", g.weight(WORDS, CONTEXT, scale=8.0), words), g.weight(WINDOW, CONTEXT))
    mean = g.op("ReduceMean", x, axes=[1], keepdims=1)
    both = g.op(
        "Add", g.op("MatMul", x, g.weight(CONTEXT, CONTEXT)), g.op("MatMul", mean, g.weight(CONTEXT, CONTEXT))
    )
    if half:
        x = g.op("Cast", g.op("Tanh", both), to=TensorProto.FLOAT16)
        for factor in (2e4, 2e4, 1 / 2e4, 1 / 2e4):
            x = _kept(g, g.op("Mul", x, g.constant(factor, np.float16)))
        g.op("Cast", x, to=FLOAT, output="last_hidden_state")
    else:
        g.op("Tanh", both, output="last_hidden_state")
    return g.model(
        {"input_ids": (INT, ["batch", WINDOW])}, {"last_hidden_state": (FLOAT, ["batch", WINDOW, CONTEXT])}
    )


def face_encoder(size: int) -> onnx.ModelProto:
    g = Graph(2)
    cells = g.op("AveragePool", "aligned_face", kernel_shape=[size // 8] * 2, strides=[size // 8] * 2)
    g.op("MatMul", g.op("Flatten", cells), g.weight(3 * 64, EMBEDDING, scale=3.0), output="face_embeds")
    return g.model(
        {"aligned_face": (FLOAT, ["batch", 3, size, size])}, {"face_embeds": (FLOAT, ["batch", EMBEDDING])}
    )


def face_projection() -> onnx.ModelProto:
    g = Graph(3)
    flat = g.op(
        "Add",
        g.op("MatMul", "face_embeds", g.weight(EMBEDDING, TOKENS * CONTEXT)),
        g.weight(TOKENS * CONTEXT),
    )
    rows = g.op("Reshape", flat, g.constant([-1, TOKENS, CONTEXT], np.int64))
    g.op("LayerNormalization", rows, g.constant(np.ones(CONTEXT)), axis=-1, output="face_tokens")
    return g.model(
        {"face_embeds": (FLOAT, ["batch", EMBEDDING])}, {"face_tokens": (FLOAT, ["batch", TOKENS, CONTEXT])}
    )


def unet(
    channels: int, poison: bool = False, peak: float | None = None, half: bool = False
) -> onnx.ModelProto:
    """poison: it divides by zero. peak: it reaches this value on its way, and comes back; half: in fp16."""
    g = Graph(4)
    time = g.op("Div", g.op("Cast", "timestep", to=FLOAT), g.constant(1000.0))
    time = g.op(
        "Sin",
        g.op("MatMul", g.op("Unsqueeze", time, g.constant([1], np.int64)), g.weight(1, HIDDEN, scale=5)),
    )
    time = g.op("Unsqueeze", time, g.constant([2, 3], np.int64))
    x = g.op("Tanh", g.op("Add", g.conv("sample", channels, HIDDEN), time))
    flat = g.op("Transpose", g.op("Reshape", x, g.constant([0, HIDDEN, -1], np.int64)), perm=[0, 2, 1])
    queries = g.op("MatMul", flat, g.weight(HIDDEN, HIDDEN, scale=1.0))
    words = _attend(g, queries, "encoder_hidden_states")
    looks = g.op("Mul", _attend(g, queries, "face_tokens"), "face_scale")
    seen = g.op("Transpose", g.op("Add", words, looks), perm=[0, 2, 1])
    x = g.op("Add", x, g.op("Reshape", seen, g.op("Shape", x)))
    if poison:
        x = g.op("Div", x, g.constant(0.0))
    if peak is not None:
        kind = np.float16 if half else np.float32
        up, down = (np.eye(HIDDEN)[..., None, None] * scale for scale in (peak / 4, 4 / peak))
        x = g.op("Clip", x, g.constant(-4.0), g.constant(4.0))
        x = g.op("Cast", x, to=TensorProto.FLOAT16) if half else x
        x = g.op("Conv", _kept(g, g.op("Conv", x, g.constant(up, kind))), g.constant(down, kind))
        x = g.op("Cast", x, to=FLOAT) if half else x
    g.conv(x, HIDDEN, channels, scale=0.5, output="noise_pred")
    latents: tuple[int, list[Any]] = (FLOAT, ["batch", channels, "height", "width"])
    inputs: Signature = {
        "sample": latents,
        "timestep": (INT, ["batch"]),
        "encoder_hidden_states": (FLOAT, ["batch", "tokens", CONTEXT]),
        "face_tokens": (FLOAT, ["batch", TOKENS, CONTEXT]),
        "face_scale": (FLOAT, [1]),
    }
    return g.model(inputs, {"noise_pred": latents})


def _kept(g: Graph, x: str) -> str:
    """x in its own type: ONNX Runtime computes in float on a processor, and only moves halves about."""
    return g.ops("Split", g.op("Concat", x, x, axis=0), outputs=2, axis=0)[0]


def _attend(g: Graph, queries: str, context: str) -> str:
    keys = g.op("Transpose", g.op("MatMul", context, g.weight(CONTEXT, HIDDEN, scale=2.0)), perm=[0, 2, 1])
    values = g.op("MatMul", context, g.weight(CONTEXT, HIDDEN, scale=2.0))
    return g.op("MatMul", g.op("Softmax", g.op("MatMul", queries, keys), axis=-1), values)


def vae_decoder(channels: int, downsample: int) -> onnx.ModelProto:
    g = Graph(5)
    small = g.op("Tanh", g.conv("latents", channels, 3, scale=0.05))
    scales = g.constant([1, 1, downsample, downsample])
    g.op("Resize", small, "", scales, mode="nearest", output="image")
    return g.model(
        {"latents": (FLOAT, ["batch", channels, "height", "width"])},
        {"image": (FLOAT, ["batch", 3, "image_height", "image_width"])},
    )


def vae_encoder(channels: int, downsample: int) -> onnx.ModelProto:
    g = Graph(8)
    grain = [downsample] * 2
    small = g.op("AveragePool", "image", kernel_shape=grain, strides=grain)
    g.conv(small, 3, channels, output="latents")
    sides = {"image": ["batch", 3, "height", "width"], "latents": ["batch", channels, "h", "w"]}
    return g.model({"image": (FLOAT, sides["image"])}, {"latents": (FLOAT, sides["latents"])})


def matting() -> onnx.ModelProto:
    """A disc in the middle is the person, its rim moved a little by the picture's brightness."""
    g = Graph(6)
    rows, columns = np.mgrid[:MATTE, :MATTE] - (MATTE - 1) / 2
    disc = 4 - np.hypot(rows, columns)[None, None] / 20
    light = g.op("Conv", "image", g.constant(np.full((1, 3, 1, 1), 0.2)))
    g.op("Clip", g.op("Add", light, g.constant(disc)), g.constant(0.0), g.constant(1.0), output="alpha")
    return g.model(
        {"image": (FLOAT, ["batch", 3, MATTE, MATTE])}, {"alpha": (FLOAT, ["batch", 1, MATTE, MATTE])}
    )


def build(folder: Path, shape: Shape = TOON_LIKE, poison: bool = False) -> Path:
    """Write the pack and return its folder. poison: the unet divides by zero."""
    folder.mkdir(parents=True, exist_ok=True)
    models = {
        "text_encoder": text_encoder(),
        "face_encoder": face_encoder(shape.align_size),
        "face_projection": face_projection(),
        "unet": unet(shape.channels, poison),
        "vae_decoder": vae_decoder(shape.channels, shape.downsample),
        "matting": matting(),
    }
    for role, model in models.items():
        (folder / f"{role}.onnx").write_bytes(model.SerializeToString(deterministic=True))
    for name in (DETECTOR, TOKENIZER):
        shutil.copyfile(TOON / name, folder / name)
    write_manifest(folder, manifest(folder, models, shape))
    return folder


def add_vae_encoder(folder: Path, shape: Shape = TOON_LIKE) -> None:
    """Let the pack begin with a photo."""
    model = vae_encoder(shape.channels, shape.downsample)
    replace_graph(folder, "vae_encoder", model, **_entry("vae_encoder", model))


def poison(folder: Path, role: str) -> None:
    """Have the graph of a role divide what it answers by zero."""
    path = folder / f"{role}.onnx"
    model = onnx.load(path)
    for output in model.graph.output:
        for node in model.graph.node:
            node.output[:] = [f"{name}_clean" if name == output.name else name for name in node.output]
        zero = numpy_helper.from_array(np.zeros(1, np.float32), f"{output.name}_zero")
        model.graph.initializer.append(zero)
        model.graph.node.append(helper.make_node("Div", [f"{output.name}_clean", zero.name], [output.name]))
    replace_graph(folder, role, model)


def replace_graph(folder: Path, role: str, model: onnx.ModelProto, file: str = "", **entry: Any) -> None:
    """Put another graph in a role's place (or beside it, under another file's name), and list it."""
    file = file or f"{role}.onnx"
    (folder / file).write_bytes(model.SerializeToString(deterministic=True))

    def listed(content: dict[str, Any]) -> None:
        content["files"][file] = file_entry(folder / file)
        content["graphs"][role] = content["graphs"].get(role, {"file": file}) | entry

    change_manifest(folder, listed)


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    (folder / "pack.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Edit a pack's manifest in place."""
    content = json.loads((folder / "pack.json").read_text(encoding="utf-8"))
    change(content)
    write_manifest(folder, content)


def file_entry(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return {
        "sha256": digest,
        "size": len(content),
        "license": "Apache-2.0",
        "attribution": "made by a script",
    }


def manifest(folder: Path, models: dict[str, onnx.ModelProto], shape: Shape) -> dict[str, Any]:
    gray = {"mean": [127.5] * 3, "std": [127.5] * 3}
    return {
        "schema_version": 1,
        "name": "tiny",
        "version": "0.0.1",
        "family": "tiny",
        "description": "random weights, for tests",
        "files": {
            path.name: file_entry(path) for path in sorted(folder.iterdir()) if path.name != "pack.json"
        },
        "graphs": {role: _entry(role, model) for role, model in models.items()},
        "text": {
            "tokenizer": TOKENIZER,
            "max_length": WINDOW,
            "bos_token_id": 49406,
            "eos_token_id": 49407,
            "pad_token_id": 49407,
        },
        "scheduler": SCHEDULE,
        "latents": {
            "channels": shape.channels,
            "downsample": shape.downsample,
            "scaling_factor": 0.5,
            "shift_factor": 0.1,
        },
        "sizes": {
            "native": [list(size) for size in shape.native],
            "multiple_of": shape.multiple_of,
            "policy": shape.policy,
        },
        "face": {
            "detector": {"kind": "yunet", "file": DETECTOR},
            "alignment": {"kind": shape.align, "size": shape.align_size},
            "encoder": {**gray, "color": "RGB"},
            "adapter": {"kind": "faceid", "tokens": TOKENS, "embedding_size": EMBEDDING, "normalize": False},
        },
        "matting": {"size": [MATTE, MATTE], **gray, "alpha": "alpha"},
        "defaults": {
            "num_inference_steps": 4,
            "guidance_scale": 3.0,
            "scheduler": "dpmpp_2m",
            "face_scale": 1.0,
        },
    }


SCHEDULE = {
    "name": "dpmpp_2m",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "steps_offset": 0,
    "set_alpha_to_one": True,
    "rescale_betas_zero_snr": True,
}


def _entry(role: str, model: onnx.ModelProto) -> dict[str, Any]:
    sides = (("inputs", model.graph.input), ("outputs", model.graph.output))
    stated = {side: {info.name: _tensor(info) for info in infos} for side, infos in sides}
    return {"file": f"{role}.onnx", "precision": "fp32", **stated}


def _tensor(info: onnx.ValueInfoProto) -> dict[str, Any]:
    kind = info.type.tensor_type
    shape = [side.dim_param or side.dim_value for side in kind.shape.dim]
    return {"dtype": "int64" if kind.elem_type == INT else "float32", "shape": shape}


def photo(name: str) -> NDArray[np.uint8]:
    """A photo of the fixtures, uint8 RGB (H, W, 3)."""
    from PIL import Image

    path = Path(__file__).parent / "fixtures" / "photos" / f"{name}.jpg"
    return np.asarray(Image.open(path).convert("RGB"))


class Recording:
    """A session that remembers what it was fed, and otherwise is the one it wraps."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.inputs, self.outputs, self.provider = session.inputs, session.outputs, session.provider
        self.precision, self.warnings = session.precision, session.warnings
        self.feeds: list[dict[str, NDArray[Any]]] = []

    def run(self, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.feeds.append(feeds)
        return self._session.run(feeds)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
