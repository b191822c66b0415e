"""Step caching: the shallow graph is a part of the whole one, and a run takes it where it should."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_pack
import torch
from tiny_pack import CONTEXT, TOKENS, Recording
from torch import Tensor, nn

from faceavatar import AvatarEngine, AvatarRequest, InvalidRequest
from faceavatar.backends import open_session
from faceavatar.errors import MissingGraph, PackInvalid
from faceavatar.pack import Pack, verify
from faceavatar.unet import StepCache, UNet
from faceavatar_export.graphs import export_graph
from faceavatar_export.step_cache import add_step_cache

CHANNELS, INNER, DEEP = 8, 16, 24
PHOTO = tiny_pack.photo("obama")


class Skips(nn.Module):
    """A UNet's outline: deep layers that hear the text, a skip connection, and a face beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.time = nn.Conv2d(CHANNELS, INNER, 3, padding=1), nn.Linear(1, INNER)
        self.deep, self.words = nn.Conv2d(INNER, DEEP, 3, padding=1), nn.Linear(CONTEXT, DEEP)
        self.join, self.looks = nn.Conv2d(DEEP + INNER, INNER, 3, padding=1), nn.Linear(CONTEXT, INNER)
        self.last = nn.Conv2d(INNER, CHANNELS, 3, padding=1)

    def forward(
        self, sample: Tensor, timestep: Tensor, text: Tensor, face_tokens: Tensor, face_scale: Tensor
    ) -> Tensor:
        x = self.first(sample) + self.time(timestep.float()[:, None] / 1000)[:, :, None, None]
        deep = torch.tanh(self.deep(x) + self.words(text.mean(1))[:, :, None, None])
        y = self.join(torch.cat([deep, x], 1))
        y = y + face_scale * self.looks(face_tokens.mean(1))[:, :, None, None]
        return torch.as_tensor(self.last(torch.tanh(y)))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack whose UNet has a skip connection, and weights beside it."""
    folder = tiny_pack.build(tmp_path_factory.mktemp("packs") / "skips")
    torch.manual_seed(4)
    given = {
        "sample": torch.randn(2, CHANNELS, 5, 7),
        "timestep": torch.tensor([900, 20]),
        "encoder_hidden_states": torch.randn(2, 77, CONTEXT),
        "face_tokens": torch.randn(2, TOKENS, CONTEXT),
        "face_scale": torch.tensor([0.7]),
    }
    rows, grid = {0: "batch"}, {0: "batch", 2: "height", 3: "width"}
    axes = {
        "sample": grid,
        "timestep": rows,
        "encoder_hidden_states": {0: "batch", 1: "tokens"},
        "face_tokens": rows,
    }
    export_graph(
        *(Skips().eval(), given, ["noise_pred"], axes, folder / "unet.onnx", {"noise_pred": grid}),
        external_data=True,
    )
    tiny_pack.change_manifest(folder, lambda manifest: _list(folder, manifest))
    return folder


def _list(folder: Path, manifest: dict[str, Any]) -> None:
    for name in ("unet.onnx", "unet.onnx.data"):
        manifest["files"][name] = tiny_pack.file_entry(folder / name)


@pytest.fixture(scope="module")
def pack(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(plain, tmp_path_factory.mktemp("packs") / "cached"))
    assert add_step_cache(folder) < 1e-6
    return folder


@pytest.fixture(scope="module")
def cached(pack: Path) -> AvatarEngine:
    return AvatarEngine.load(pack, provider="cpu")


def ask(**fields: Any) -> AvatarRequest:
    wanted: dict[str, Any] = {"image": PHOTO, "seed": 3, "num_inference_steps": 6, "guidance_scale": 4.0}
    return AvatarRequest(**wanted | fields)


def calls(cached: AvatarEngine, pack: Path, request: AvatarRequest) -> list[tuple[str, int]]:
    """Which graph each step of a run took, and with how many rows."""
    made: list[tuple[str, int]] = []

    class Noting(Recording):
        def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
            made.append(("shallow" if "deep" in feeds else "whole", len(feeds["sample"])))
            return super().run(feeds)

    engine = AvatarEngine.load(pack, provider="cpu")
    engine.nets.unet = UNet(Noting(engine.unet.session))
    engine.nets._shallow = Noting(engine.pack.open("unet_shallow", "cpu"))
    np.testing.assert_array_equal(engine.generate(request).images, cached.generate(request).images)
    return made


def test_the_whole_graph_answers_as_before_and_the_shallow_one_is_part_of_it(plain: Path, pack: Path) -> None:
    draw = np.random.default_rng(1)
    feeds = {
        "sample": draw.normal(size=(3, CHANNELS, 9, 6)).astype(np.float32),
        "timestep": np.array([800, 500, 10]),
        "encoder_hidden_states": draw.normal(size=(3, 154, CONTEXT)).astype(np.float32),
        "face_tokens": draw.normal(size=(3, TOKENS, CONTEXT)).astype(np.float32),
        "face_scale": np.array([0.4], np.float32),
    }
    before = open_session(plain / "unet.onnx", "cpu").run(feeds)["noise_pred"]
    whole = open_session(pack / "unet.onnx", "cpu").run(feeds)
    np.testing.assert_array_equal(whole["noise_pred"], before)
    assert whole["deep"].shape == (3, DEEP, 9, 6)
    shallow = open_session(pack / "unet_shallow.onnx", "cpu")
    assert "encoder_hidden_states" not in shallow.inputs  # only its deep layers hear the text
    feeds.pop("encoder_hidden_states")
    np.testing.assert_allclose(shallow.run(feeds | {"deep": whole["deep"]})["noise_pred"], before, atol=1e-6)


def test_both_graphs_share_one_file_of_weights_and_the_pack_still_verifies(pack: Path) -> None:
    assert [path.name for path in pack.glob("*.data")] == ["unet.onnx.data"]
    model = onnx.load(pack / "unet_shallow.onnx", load_external_data=False)
    assert not any("deep" in tensor.name for tensor in model.graph.initializer)
    assert verify(Pack.load(pack)) == []


def test_every_nth_step_is_whole_and_the_others_shallow(cached: AvatarEngine, pack: Path) -> None:
    kinds = [kind for kind, _ in calls(cached, pack, ask(step_cache=3))]
    assert kinds == ["whole", "shallow", "shallow"] * 2
    assert [kind for kind, _ in calls(cached, pack, ask())] == ["whole"] * 6


def test_where_guidance_ends_the_wanted_half_goes_on_and_where_it_begins_the_net_runs_whole(
    cached: AvatarEngine, pack: Path
) -> None:
    def rows(kind: str, *counts: int) -> list[tuple[str, int]]:
        return [(kind, count) for count in counts]

    ends = calls(cached, pack, ask(step_cache=4, guidance_interval=(0.0, 0.5), batch=2))
    assert ends == [("whole", 4), *rows("shallow", 4, 4, 2), ("whole", 2), ("shallow", 2)]
    begins = calls(cached, pack, ask(step_cache=4, guidance_interval=(0.5, 1.0)))
    assert begins == [("whole", 1), *rows("shallow", 1, 1), ("whole", 2), *rows("shallow", 2, 2)]


def test_an_old_word_of_the_deep_layers_moves_the_picture_a_little(cached: AvatarEngine) -> None:
    exact, saved, more = (np.array(cached.generate(ask(step_cache=n)).images, float) for n in (1, 2, 6))
    near, far = (float(np.abs(one - exact).mean()) for one in (saved, more))
    assert 0 < near < far < 20


def test_a_picture_does_not_depend_on_its_batch(cached: AvatarEngine) -> None:
    batch = cached.generate(ask(step_cache=2, batch=3, seed=7))
    alone = cached.generate(ask(step_cache=2, seed=9))
    np.testing.assert_array_equal(batch.images[2], alone.images[0])


def test_runs_that_save_differently_are_not_drawn_together(cached: AvatarEngine) -> None:
    one, other = cached.prepare(ask()), cached.prepare(ask(step_cache=2))
    with pytest.raises(InvalidRequest, match="equal keys"):
        cached.generate_together([one, other])


def test_a_pack_without_the_shallow_graph_says_how_to_add_it(engine: AvatarEngine) -> None:
    with pytest.raises(
        MissingGraph, match=r"must be 1; add it: python -m faceavatar_export\.step_cache PACK"
    ):
        engine.generate(ask(step_cache=2))


def test_a_second_time_is_refused_and_a_pack_that_holds_its_weights_too(pack: Path, tmp_path: Path) -> None:
    with pytest.raises(PackInvalid, match="gives deep already"):
        add_step_cache(pack)
    folder = tiny_pack.build(tmp_path / "pack")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(PackInvalid, match="its weights are inside"):
        add_step_cache(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_shallow_graph_that_takes_what_unet_does_not_give_is_refused(pack: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pack, tmp_path / "pack"))
    content = json.loads((folder / "pack.json").read_text())
    content["graphs"]["unet_shallow"]["inputs"]["deep"]["shape"][1] = DEEP + 1
    tiny_pack.write_manifest(folder, content)
    with pytest.raises(PackInvalid, match="deep of unet_shallow and an output of unet go together"):
        Pack.load(folder)


def test_a_cache_belongs_to_one_run(cached: AvatarEngine) -> None:
    shallow = Recording(cached.pack.open("unet_shallow", "cpu"))
    conditions = {
        "encoder_hidden_states": np.zeros((1, 77, CONTEXT), np.float32),
        "face_tokens": np.zeros((1, TOKENS, CONTEXT), np.float32),
        "face_scale": np.ones(1, np.float32),
    }
    sample = np.ones((1, CHANNELS, 8, 8), np.float32)
    for _ in range(2):
        StepCache(cached.unet, shallow, 2)(sample, 500.0, conditions)
    assert shallow.feeds == []
