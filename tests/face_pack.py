"""Builds a folder of the form of insightface's packs: a detector in SCRFD's layout and an ArcFace-like net.

The detector really finds faces: it is the embedded YuNet, fed as SCRFD is fed, its four kinds of outputs
brought to SCRFD's three. The recogniser has random weights, and gives different faces different numbers.
Run as a script it writes the pack to a folder: python tests/face_pack.py FOLDER
"""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from tiny_pack import DETECTOR, FLOAT, TOON, Graph, change_manifest, file_entry

SCRFD, ARCFACE, OTHER = "det_10g.onnx", "w600k_r50.onnx", "genderage.onnx"
STRIDES = (8, 16, 32)


def scrfd(side: int | None = None) -> onnx.ModelProto:
    """YuNet in SCRFD's layout: RGB (x - 127.5) / 128 in, two anchors a cell, distances in strides out.

    side: a fixed side of the input in place of a free one.
    """
    model = onnx.load(TOON / DETECTOR)
    graph = model.graph
    nodes, constants = _without_quantisation(graph)

    def constant(name: str, value: object, dtype: type = np.float32) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    # YuNet takes BGR of 0..255. Its own graph comes first in the list, so what feeds it is put before.
    pixels = [
        helper.make_node("Mul", ["input.1", constant("in_scale", 128.0)], ["in_scaled"]),
        helper.make_node("Add", ["in_scaled", constant("in_mean", 127.5)], ["in_rgb"]),
        helper.make_node(
            "Gather", ["in_rgb", constant("bgr", [2, 1, 0], np.int64)], [graph.input[0].name], axis=1
        ),
    ]
    half, zero = constant("half", 0.5), constant("zero", 0.0)
    one = constant("one", 1.0)
    outputs: dict[str, list[str]] = {"score": [], "bbox": [], "kps": []}
    for stride in STRIDES:
        clipped = [
            node("Clip", [f"{kind}_{stride}", zero, one], f"{kind}_clipped_{stride}")
            for kind in ("cls", "obj")
        ]
        score = node("Sqrt", [node("Mul", clipped, f"product_{stride}")], f"root_{stride}")
        weaker = node("Mul", [score, half], f"weaker_{stride}")  # the second anchor of a cell sees less
        shift, size = f"shift_{stride}", f"size_{stride}"
        nodes.append(helper.make_node("Split", [f"bbox_{stride}"], [shift, size], axis=2, num_outputs=2))
        reach = node("Mul", [node("Exp", [size], f"exp_{stride}"), half], f"reach_{stride}")
        before, after = (
            node("Sub", [reach, shift], f"before_{stride}"),
            node("Add", [reach, shift], f"after_{stride}"),
        )
        box = node("Concat", [before, after], f"box_{stride}", axis=2)
        kinds = {
            "score": (score, weaker, 1),
            "bbox": (box, box, 4),
            "kps": (f"kps_{stride}", f"kps_{stride}", 10),
        }
        for kind, (first, second, width) in kinds.items():
            pair = node("Concat", [first, second], f"{kind}_pair_{stride}", axis=2)
            shape = constant(f"{kind}_shape_{stride}", [-1, width], np.int64)
            outputs[kind].append(node("Reshape", [pair, shape], f"{kind}_out_{stride}"))
    sides: list[str | int] = [1, 3, *([side, side] if side else ["?", "?"])]
    made = helper.make_graph(
        [*pixels, *nodes],
        "scrfd",
        [helper.make_tensor_value_info("input.1", FLOAT, sides)],
        [
            helper.make_tensor_value_info(name, FLOAT, [f"n{name[-2:]}", width])
            for kind, width in (("score", 1), ("bbox", 4), ("kps", 10))
            for name in outputs[kind]
        ],
        constants,
    )
    return helper.make_model(made, opset_imports=model.opset_import, ir_version=10)


def _without_quantisation(graph: onnx.GraphProto) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes and constants with the weights as floats: ONNX Runtime refuses the way they are stored."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type != "DequantizeLinear":
            nodes.append(node)
            continue
        settings = {attribute.name: attribute.i for attribute in node.attribute}
        stored, scale, zero = (values.pop(name) for name in node.input)
        if scale.ndim == stored.ndim and scale.size > 1:  # a scale for each block along an axis
            axis, block = settings["axis"], settings["block_size"]
            length = stored.shape[axis]
            scale, zero = (
                np.repeat(part, block, axis=axis).take(range(length), axis=axis) for part in (scale, zero)
            )
        values[node.output[0]] = ((stored.astype(np.float32) - zero) * scale).astype(np.float32)
    used = {name for node in nodes for name in node.input}
    kept = {name: np.ascontiguousarray(value) for name, value in values.items() if name in used}
    return nodes, [numpy_helper.from_array(value, name) for name, value in kept.items()]


def arcface(size: int = 512) -> onnx.ModelProto:
    """Random convolutions: RGB (x - 127.5) / 127.5 in, (B, 3, 112, 112); numbers out."""
    g = Graph(11)
    x = g.op("AveragePool", "input.1", kernel_shape=[4, 4], strides=[4, 4])
    mean = g.op("ReduceMean", x, axes=[2, 3], keepdims=1)
    x = g.op("Tanh", g.conv(g.op("Sub", x, mean), 3, 16, scale=3.0))
    for inside, outside in ((16, 32), (32, 32)):
        x = g.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
        x = g.op("Tanh", g.conv(x, inside, outside, scale=2.0))
    g.op("MatMul", g.op("Flatten", x), g.weight(32 * 7 * 7, size, scale=3.0), output="683")
    return g.model({"input.1": (FLOAT, ["None", 3, 112, 112])}, {"683": (FLOAT, ["None", size])})


def other() -> onnx.ModelProto:
    """One of the further models of a pack, which are of no use here: 96 pixels in, three numbers out."""
    g = Graph(12)
    pooled = g.op("Flatten", g.op("GlobalAveragePool", "data"))
    g.op("MatMul", pooled, g.weight(3, 3), output="fc1")
    return g.model({"data": (FLOAT, ["None", 3, 96, 96])}, {"fc1": (FLOAT, ["None", 3])})


def build(folder: Path, size: int = 512, side: int | None = None) -> Path:
    """Write the pack and return its folder.

    size: of the embedding. side: a fixed side of the detector's input.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in ((SCRFD, scrfd(side)), (ARCFACE, arcface(size)), (OTHER, other())):
        (folder / name).write_bytes(model.SerializeToString(deterministic=True))
    return folder


def into(pack: Path, faces: Path) -> Path:
    """Give a pack of tiny_pack's the face models of a folder in place of its own, and return its folder."""
    for name in (SCRFD, ARCFACE):
        shutil.copyfile(faces / name, pack / name)
    for name in (DETECTOR, "face_encoder.onnx"):
        (pack / name).unlink()

    def change(content: dict[str, Any]) -> None:
        files, face = content["files"], content["face"]
        del files[DETECTOR], files["face_encoder.onnx"], content["graphs"]["face_encoder"]
        files |= {name: file_entry(pack / name) for name in (SCRFD, ARCFACE)}
        face["detector"] = {"kind": "scrfd", "file": SCRFD}
        face["alignment"] = {"kind": "arcface", "size": 112}
        face["encoder"] = {"kind": "arcface", "file": ARCFACE}

    change_manifest(pack, change)
    return pack


def zipped(faces: Path, inside: str = "") -> bytes:
    """A pack's folder as InsightFace publishes it; `inside` a folder of the zip, as antelopev2 has one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(faces.iterdir()):
            archive.write(path, inside + path.name)
    return buffer.getvalue()


@contextmanager
def published(body: bytes, status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """A server on loopback that gives `body` for every path: its URL, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/pack.zip", asked
        finally:
            server.shutdown()
            thread.join()


def hashes(faces: Path) -> dict[str, str]:
    """The sha256 of the two files that are wanted of a pack."""
    return {name: hashlib.sha256((faces / name).read_bytes()).hexdigest() for name in (SCRFD, ARCFACE)}


if __name__ == "__main__":
    build(Path(sys.argv[1]))
