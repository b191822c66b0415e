"""Exported graphs: names, dynamic dimensions, the same numbers as torch, small files. A net of 3 layers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from faceavatar.backends import open_session
from faceavatar_export import graphs
from faceavatar_export.verify import relative_error

GRID = {0: "batch", 2: "height", 3: "width"}


class Net(nn.Module):
    """Channels are mixed, and scaled by an input: picture (B, 8, h, w), scale (1,) -> (B, 16, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.mix = nn.Conv2d(8, 256, 3, padding=1), nn.Linear(256, 256)
        self.out = nn.Conv2d(256, 16, 1)

    def forward(self, picture: Tensor, scale: Tensor) -> Tensor:
        mixed: Tensor = self.mix(torch.tanh(self.conv(picture)).permute(0, 2, 3, 1))
        return torch.as_tensor(self.out(mixed.permute(0, 3, 1, 2) * scale))


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def graph(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "net.onnx"
    graphs.export_graph(net, inputs(2, 5, 6), ["mixed"], {"picture": GRID}, path, {"mixed": GRID})
    return path


@pytest.fixture
def small(graph: Path, tmp_path: Path) -> Path:
    path = Path(shutil.copy(graph, tmp_path / "small.onnx"))
    graphs.store_weights_as_int8(path)
    return path


def inputs(batch: int, height: int, width: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    return {
        "picture": torch.randn(batch, 8, height, width, generator=generator),
        "scale": torch.tensor([0.7]),
    }


@pytest.mark.parametrize("size", [(1, 3, 3), (2, 5, 6), (4, 9, 1)])
def test_a_graph_equals_torch_at_every_size(net: Net, graph: Path, size: tuple[int, int, int]) -> None:
    assert relative_error(net, graph, inputs(*size)) < 1e-5


def test_dimensions_have_the_names_of_the_manifest(graph: Path) -> None:
    ins, outs = graphs.signature(graph)
    assert ins == {
        "picture": {"dtype": "float32", "shape": ["batch", 8, "height", "width"]},
        "scale": {"dtype": "float32", "shape": [1]},
    }
    assert outs == {"mixed": {"dtype": "float32", "shape": ["batch", 16, "height", "width"]}}
    session = open_session(graph, "cpu")
    assert session.inputs["picture"].shape == ("batch", 8, "height", "width")


def test_a_graph_is_one_valid_file_without_traces_of_its_making(graph: Path) -> None:
    model = onnx.load(graph)
    onnx.checker.check_model(model, full_check=True)
    assert [file.name for file in graph.parent.iterdir()] == ["net.onnx"]
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert str(Path(__file__).parent).encode() not in graph.read_bytes()


def test_int8_storage_makes_the_file_a_quarter(graph: Path, small: Path) -> None:
    assert 0.22 < small.stat().st_size / graph.stat().st_size < 0.32


@pytest.mark.parametrize("size", [(1, 3, 3), (3, 6, 4)])
def test_int8_storage_changes_outputs_by_less_than_two_percent(
    net: Net, small: Path, size: tuple[int, int, int]
) -> None:
    assert 0 < relative_error(net, small, inputs(*size)) < 0.02


def test_int8_storage_keeps_the_signature_and_a_valid_graph(graph: Path, small: Path) -> None:
    onnx.checker.check_model(onnx.load(small), full_check=True)
    assert graphs.signature(small) == graphs.signature(graph)
    stored = {tensor.name: tensor.data_type for tensor in onnx.load(small).graph.initializer}
    assert sum(kind == onnx.TensorProto.INT8 for kind in stored.values()) == 3  # biases stay float32


def test_each_channel_has_its_own_scale() -> None:
    weights = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    weights[:, 7] *= 1000
    assert graphs._channel_axis(weights) == 1
    assert graphs._channel_axis(weights.T) == 0
    scales = graphs._scales(weights, 1)
    assert scales.shape == (1, 64)
    assert np.abs(np.rint(weights / scales)).max() == 127


def test_a_channel_of_zeros_stays_zeros() -> None:
    weights = np.zeros((64, 64), np.float32)
    assert np.isfinite(weights / graphs._scales(weights, 0)).all()


def test_a_graph_of_other_weights_is_told_from_the_right_one(graph: Path) -> None:
    torch.manual_seed(9)
    assert relative_error(Net(), graph, inputs(2, 5, 6)) > 0.5


def test_a_graph_of_another_shape_is_refused(graph: Path) -> None:
    class Wide(Net):
        def forward(self, picture: Tensor, scale: Tensor) -> Tensor:
            return super().forward(picture, scale).repeat(1, 2, 1, 1)

    with pytest.raises(ValueError, match=r"net\.onnx: shape .* torch gives"):
        relative_error(Wide(), graph, inputs(2, 5, 6))


def test_int8_weights_beside_a_graph_stay_beside_it_whatever_lies_in_the_working_directory(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pack" / "net.onnx"
    path.parent.mkdir()
    axes = {"picture": GRID}
    graphs.export_graph(net, inputs(2, 5, 6), ["mixed"], axes, path, {"mixed": GRID}, external_data=True)
    before = path.with_name("net.onnx.data").stat().st_size
    (tmp_path / "net.onnx.data").write_bytes(b"another graph's")
    monkeypatch.chdir(tmp_path)
    graphs.store_weights_as_int8(Path("pack/net.onnx"), external_data=True)
    assert path.with_name("net.onnx.data").stat().st_size < 0.3 * before
    assert path.stat().st_size < 10_000
    assert 1e-5 < relative_error(net, path, inputs(2, 5, 6)) < 0.02
