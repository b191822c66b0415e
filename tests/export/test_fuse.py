"""Fused attention: torch's numbers from ONNX Runtime's own operator, on the weights that are there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_pack
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar.backends import open_session
from faceavatar.errors import NumericalError, PackInvalid
from faceavatar.pack import Pack
from faceavatar_export.face_attention import FaceAttention, PlainAttention
from faceavatar_export.fuse import fuse_pack, write_fused
from faceavatar_export.fused_attention import fuse_attention
from faceavatar_export.graphs import export_graph

WIDTH, CONTEXT, HEADS = 32, 24, 4


class Block(nn.Module):
    """Self-attention, then text and face attention, as the UNets here have them."""

    def __init__(self) -> None:
        super().__init__()
        self.own = Attention(WIDTH, heads=HEADS, dim_head=WIDTH // HEADS, processor=PlainAttention())
        self.face = FaceAttention(WIDTH, CONTEXT)
        self.cross = Attention(WIDTH, CONTEXT, heads=HEADS, dim_head=WIDTH // HEADS, processor=self.face)

    def forward(self, sample: Tensor, text: Tensor, face_tokens: Tensor, face_scale: Tensor) -> Tensor:
        sample = sample + self.own(sample)
        return torch.as_tensor(
            sample + self.cross(sample, text, face_tokens=face_tokens, face_scale=face_scale)
        )


class Masked(nn.Module):
    def forward(self, q: Tensor) -> Tensor:
        rows = q.view(q.shape[0], q.shape[1], HEADS, -1).transpose(1, 2)
        out = nn.functional.scaled_dot_product_attention(rows, rows, rows, is_causal=True)
        return out.transpose(1, 2).reshape(q.shape)


def inputs(batch: int, length: int, words: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(length)
    return {
        "sample": torch.randn(batch, length, WIDTH, generator=draw),
        "text": torch.randn(batch, words, CONTEXT, generator=draw),
        "face_tokens": torch.randn(batch, 4, CONTEXT, generator=draw),
        "face_scale": torch.tensor([0.7]),
    }


@pytest.fixture(scope="module")
def block() -> Block:
    torch.manual_seed(3)
    return Block().eval()


@pytest.fixture(scope="module")
def graph(block: Block, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuse") / "block.onnx"
    rows = {0: "batch", 1: "length"}
    axes = {"sample": rows, "text": {0: "batch", 1: "words"}, "face_tokens": {0: "batch"}}
    export_graph(block, inputs(2, 9, 11), ["out"], axes, path, {"out": rows}, external_data=True)
    return path


@pytest.fixture(scope="module")
def fused(graph: Path) -> Path:
    path = write_fused(graph)
    assert path is not None
    return path


def test_self_text_and_face_attention_become_three_operators(graph: Path, fused: Path) -> None:
    plain, after = (
        Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)
        for path in (graph, fused)
    )
    assert (plain["Softmax"], plain["MultiHeadAttention"]) == (3, 0)
    assert (after["Softmax"], after["MultiHeadAttention"]) == (0, 3)
    assert after.total() < plain.total() / 2


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 9, 11), (3, 64, 154)])
def test_the_fused_graph_gives_torchs_numbers_at_every_shape(
    block: Block, fused: Path, shape: tuple[int, int, int]
) -> None:
    given = inputs(*shape)
    with torch.inference_mode():
        wanted = block(*given.values()).numpy()
    got = open_session(fused, "cpu").run({name: value.numpy() for name, value in given.items()})["out"]
    np.testing.assert_allclose(got, wanted, atol=2e-6, rtol=1e-5)


def test_the_weights_stay_in_the_one_file(graph: Path, fused: Path) -> None:
    weights = graph.with_name(f"{graph.name}.data")
    assert sorted(path.name for path in graph.parent.iterdir()) == sorted(
        [graph.name, fused.name, weights.name]
    )
    kept = [
        {entry.key: entry.value for entry in tensor.external_data}["location"]
        for tensor in onnx.load(fused, load_external_data=False).graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    assert kept
    assert set(kept) == {weights.name}


def test_masked_attention_is_left_as_it_is(tmp_path: Path) -> None:
    path, rows = tmp_path / "masked.onnx", {0: "batch", 1: "length"}
    export_graph(Masked(), {"q": torch.randn(2, 5, WIDTH)}, ["out"], {"q": rows}, path, {"out": rows})
    model = onnx.load(path)
    before = model.SerializeToString(deterministic=True)
    assert fuse_attention(model) == 0
    assert model.SerializeToString(deterministic=True) == before


def test_a_graph_that_holds_its_weights_is_not_doubled(tiny: Path) -> None:
    with pytest.raises(PackInvalid, match=r"unet\.onnx: its weights are inside, expected in a file beside"):
        fuse_pack(tiny)


def test_onnx_runtime_takes_the_fused_file_and_openvino_the_plain_one(tmp_path: Path) -> None:
    folder = tiny_pack.build(tmp_path / "pack")
    poisoned = folder / "unet.ort.onnx"  # told from the plain one by what comes of it
    poisoned.write_bytes(tiny_pack.unet(8, poison=True).SerializeToString(deterministic=True))

    def name_it(manifest: dict[str, dict[str, dict[str, object]]]) -> None:
        manifest["graphs"]["unet"]["fused"] = poisoned.name
        manifest["files"][poisoned.name] = tiny_pack.file_entry(poisoned)

    tiny_pack.change_manifest(folder, name_it)
    request = AvatarRequest(image=tiny_pack.photo("obama"), seed=1, height=256, width=256)
    with pytest.raises(NumericalError):
        AvatarEngine.load(folder, provider="cpu").generate(request)
    assert AvatarEngine.load(folder, provider="openvino").generate(request).images


def test_a_fused_file_must_be_listed_as_any_other(tmp_path: Path) -> None:
    folder = tiny_pack.build(tmp_path / "pack")
    tiny_pack.change_manifest(folder, lambda manifest: manifest["graphs"]["unet"].update(fused="x.onnx"))
    with pytest.raises(PackInvalid, match=r"the file 'x\.onnx' is used but not listed"):
        Pack.load(folder)
