"""Weights read back from the shipped pack's graphs: they agree with the graphs, and what is lost is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from faceavatar.pack import EMBEDDED
from faceavatar_export import graphs
from faceavatar_export.toon import warm_start
from faceavatar_export.toon.autoencoder import Decoder
from faceavatar_export.toon.export_pack import drawn_people
from faceavatar_export.toon.matting_coarse import CoarseAlpha, CoarseNet
from faceavatar_export.toon.matting_net import SIZE, MattingNet
from faceavatar_export.toon.text_encoder import BOS, EOS, WINDOW, TextEncoder
from faceavatar_export.toon.train_unet import Model
from faceavatar_export.verify import relative_error

PACK = EMBEDDED / "toon"
INPUTS = {"x": torch.randn(3, 64, generator=torch.Generator().manual_seed(3))}


class Twins(nn.Module):
    """Two matrices of one shape without names in a graph: only their order tells them apart."""

    def __init__(self) -> None:
        super().__init__()
        self.second, self.first = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.second(torch.tanh(self.first(x))))


@pytest.fixture(scope="module")
def text() -> TextEncoder:
    return warm_start.load_text(PACK)


@pytest.fixture
def twins(tmp_path: Path) -> tuple[Twins, Path]:
    """The module and its graph as the exporter writes one: transposed, numbered in the order of the run."""
    torch.manual_seed(0)
    module, path = Twins(), tmp_path / "twins.onnx"
    first, second = (layer.weight.detach().numpy().T.copy() for layer in (module.first, module.second))
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "val_9"], ["a"]),
            helper.make_node("Tanh", ["a"], ["b"]),
            helper.make_node("MatMul", ["b", "val_10"], ["y"]),
        ],
        "twins",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 64])],
        [numpy_helper.from_array(second, "val_10"), numpy_helper.from_array(first, "val_9")],
    )
    opset = [helper.make_opsetid("", graphs.OPSET)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return module, path


def test_the_unet_agrees_with_its_graph_on_other_inputs() -> None:
    model = Model()
    warm_start.load_unet(PACK, model)
    generator = torch.Generator().manual_seed(5)
    inputs = {
        "sample": torch.randn(1, 64, 4, 6, generator=generator),
        "timestep": torch.tensor([640]),
        "encoder_hidden_states": torch.randn(1, 2 * WINDOW, 192, generator=generator),
        "face_tokens": torch.randn(1, 4, 192, generator=generator),
        "face_scale": torch.tensor([0.4]),
    }
    assert relative_error(model.unet, PACK / "unet.onnx", inputs) < 1e-4
    embeds = torch.randn(2, 24, generator=generator)
    path = PACK / "face_projection.onnx"
    assert relative_error(model.projection, path, {"face_embeds": embeds}) < 1e-4


def test_the_text_encoder_knows_the_packs_tokens(text: TextEncoder) -> None:
    assert text.known.dtype == torch.int64
    assert text.known.unique().tolist() == list(range(text.token.num_embeddings))
    assert text.known[[BOS, EOS]].all()
    assert not text.token.weight[0].any()
    ids = torch.full((1, WINDOW), EOS)
    ids[0, 0], ids[0, 1:9] = BOS, text.known.nonzero()[:8, 0]
    assert relative_error(text, PACK / "text_encoder.onnx", {"input_ids": ids}) < 1e-4


def test_one_wrong_word_does_not_pass_for_the_packs_text_encoder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = warm_start.constants(PACK / "text_encoder.onnx")
    values["token.weight"][[120, 121]] = values["token.weight"][[121, 120]]
    monkeypatch.setattr(warm_start, "constants", lambda path: values)
    with pytest.raises(ValueError, match=r"text_encoder\.onnx: read back, it is .* off its graph"):
        warm_start.load_text(PACK)


def test_the_decoder_and_the_matting_net_agree_with_their_graphs() -> None:
    generator = torch.Generator().manual_seed(5)
    decoder, matting = Decoder(), MattingNet()
    warm_start.load_decoder(PACK, decoder)
    assert bool((decoder.std > 0).all())
    latents = torch.randn(1, 64, 2, 3, generator=generator)
    assert relative_error(decoder, PACK / "vae_decoder.onnx", {"latents": latents}) < 1e-4
    warm_start.load_matting(PACK, matting)
    assert relative_error(matting, PACK / "matting.onnx", {"image": drawn_people(2, SIZE, SIZE)}) < 1e-4


def test_of_a_pack_with_the_coarse_half_alone_that_half_is_read(tmp_path: Path) -> None:
    torch.manual_seed(3)
    half, again = CoarseAlpha(CoarseNet()), MattingNet()
    image = torch.rand(2, 3, 128, 128) * 2 - 1
    batch = {0: "batch"}
    path = tmp_path / "matting.onnx"
    graphs.export_graph(half, {"image": image}, ["alpha"], {"image": batch}, path, {"alpha": batch})
    warm_start.load_matting(tmp_path, again)
    assert relative_error(CoarseAlpha(again.coarse), path, {"image": image}) < 1e-4


def test_matrices_without_names_come_back_in_the_order_of_the_run(twins: tuple[Twins, Path]) -> None:
    module, path = twins
    again = Twins()
    warm_start.fill(again, path, INPUTS)
    for key, value in module.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, atol=0, rtol=0)
    assert again.training


def test_swapped_matrices_do_not_pass(twins: tuple[Twins, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    values = warm_start.constants(twins[1])
    first, second = (name for name, value in values.items() if value.shape == (64, 64))
    values[first], values[second] = values[second], values[first]
    monkeypatch.setattr(warm_start, "constants", lambda path: values)
    with pytest.raises(ValueError, match=r"twins\.onnx: read back, it is .* off its graph"):
        warm_start.fill(Twins(), twins[1], INPUTS)


def test_every_weight_that_is_not_there_is_named(twins: tuple[Twins, Path]) -> None:
    other = nn.Sequential(nn.Linear(64, 3), nn.Tanh(), nn.Linear(3, 5))
    with pytest.raises(ValueError, match=r"0\.weight \(3, 64\), 0\.bias \(3,\), 2\.weight \(5, 3\), 2\.bias"):
        warm_start.fill(other, twins[1], INPUTS)


def test_int8_storage_is_read_as_the_runtime_reads_it(twins: tuple[Twins, Path]) -> None:
    module, path = twins
    graphs.store_weights_as_int8(path)
    assert set(warm_start.constants(path)) == {"val_9", "val_10"}
    again = Twins()
    warm_start.fill(again, path, INPUTS)
    assert 0 < (again.first.weight - module.first.weight).abs().max().item() < 0.001


def test_a_graph_without_a_token_table_is_refused(tmp_path: Path) -> None:
    model = onnx.load(PACK / "text_encoder.onnx")
    (table,) = (t for t in model.graph.initializer if list(t.dims) == [49408])
    table.CopyFrom(numpy_helper.from_array(np.zeros(7, np.int64), table.name))
    onnx.save(model, tmp_path / "text_encoder.onnx")
    with pytest.raises(ValueError, match=r"text_encoder\.onnx: 0 constants of shape \(49408,\) for known"):
        warm_start.load_text(tmp_path)


def test_the_command_writes_what_the_stages_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["warm_start", str(PACK), str(tmp_path)])
    warm_start.main()
    warm = torch.load(tmp_path / "warm.pt", weights_only=True)
    Model().load_state_dict(warm["unet"])
    TextEncoder(warm["text"]["known"]).load_state_dict(warm["text"])
    Decoder().load_state_dict(warm["decoder"])
    MattingNet().load_state_dict(warm["matting"])
