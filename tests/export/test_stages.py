"""The training stages on a handful of drawings: they train, go on, and keep to the device they are given."""

from __future__ import annotations

import csv
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from faceavatar_export.toon import (
    classifier,
    distill,
    draw,
    encode_latents,
    keyed_figures,
    matting_data,
    refine_decoder,
    train_autoencoder,
    train_matting,
    train_unet,
)
from faceavatar_export.toon.autoencoder import Autoencoder
from faceavatar_export.toon.conditions import Conditions
from faceavatar_export.toon.draw import load_scenes
from faceavatar_export.toon.identity import STYLES
from faceavatar_export.toon.matting_coarse import CoarseNet
from faceavatar_export.toon.settings import read_settings
from faceavatar_export.toon.text_encoder import VOCABULARY, TextEncoder
from faceavatar_export.toon.training import Pace, load_checkpoint, save_checkpoint

CPU, HELD_OUT, DRAWN = torch.device("cpu"), 4, 16
TOKENIZER = Path(__file__).parents[2] / "engine" / "faceavatar" / "packs" / "toon" / "tokenizer.json"
STAGES: dict[str, type[Pace]] = {
    "autoencoder": train_autoencoder.Settings,
    "refine": refine_decoder.Settings,
    "matting": train_matting.Settings,
    "unet": train_unet.Settings,
    "distill": distill.Settings,
    "classifier": classifier.Settings,
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets of drawings, a run with an untrained text encoder and a codec of a moment's training."""
    work = tmp_path_factory.mktemp("work")
    draw.draw_set(work / "ae", 4, 512, 1, True, 1)
    draw.draw_set(work / "unet", DRAWN, 256, 2, False, 1)
    torch.manual_seed(0)
    known = torch.zeros(VOCABULARY, dtype=torch.int64)
    (work / "run").mkdir()
    torch.save(known, work / "run" / "known_tokens.pt")
    save_checkpoint(work / "run" / "text.pt", 1, 1.0, encoder=TextEncoder(known))
    settings = train_autoencoder.Settings(0.002, 2, 128, 1e-3, 0.1, 0.3)
    train_autoencoder.train(work / "ae", work / "run", settings, CPU)
    encode_latents.encode(work / "unet", work / "run" / "autoencoder.pt", None, CPU, 1)
    return work


def rows_of(log: Path) -> list[dict[str, str]]:
    with log.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("stage", STAGES)
def test_the_shipped_file_has_every_number_of_a_stage(stage: str, device: str) -> None:
    settings: Pace = read_settings(STAGES[stage], stage, device)
    assert 1 <= settings.minutes <= 240
    assert 0 < settings.lr < 0.01


def test_a_codec_measures_its_latents_and_is_then_finished(work: Path) -> None:
    latents = np.load(work / "unet" / "latents.npy")
    assert latents.shape == (DRAWN, 64, 8, 8)
    assert latents.dtype == np.float16
    assert 0.3 < latents.astype(np.float32).std() < 3
    assert not (work / "unet" / "latents.part.npy").exists()
    with pytest.raises(ValueError, match="refine_decoder"):
        train_autoencoder.train(
            work / "ae", work / "run", train_autoencoder.Settings(1, 2, 128, 1e-3, 0.1, 0.3), CPU
        )


def test_a_warm_codec_keeps_its_decoder_while_the_encoder_is_new(work: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    decoder = Autoencoder().decoder
    decoder.mean.fill_(0.25)
    torch.save({"decoder": decoder.state_dict()}, tmp_path / "warm.pt")
    settings = train_autoencoder.Settings(0.002, 2, 128, 1e-2, 0.1, frozen_share=1.0)
    for minutes in (0.002, 0.004):  # the second start goes on from the first one's checkpoint
        now = replace(settings, minutes=minutes)
        train_autoencoder.train(work / "ae", tmp_path, now, CPU, tmp_path / "warm.pt")
    trained = Autoencoder()
    assert load_checkpoint(tmp_path / "autoencoder.pt", model=trained)[0] >= 1
    for mine, theirs in zip(
        trained.decoder.state_dict().values(), decoder.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=0, rtol=0)


def test_a_refined_decoder_leaves_the_encoder_and_the_latents_statistics_alone(work: Path) -> None:
    refine_decoder.refine(work / "ae", work / "run", refine_decoder.Settings(0.002, 2, 1e-3, 0.15), CPU)
    before, after = Autoencoder(), Autoencoder()
    load_checkpoint(work / "run" / "autoencoder.pt", model=before)
    assert load_checkpoint(work / "run" / "refined.pt", model=after)[0] >= 1
    torch.testing.assert_close(after.encoder.state_dict(), before.encoder.state_dict(), atol=0, rtol=0)
    torch.testing.assert_close(after.decoder.std, before.decoder.std, atol=0, rtol=0)
    pairs = zip(after.decoder.parameters(), before.decoder.parameters(), strict=True)
    assert any(not torch.equal(mine, theirs) for mine, theirs in pairs)


MATTING = train_matting.Settings(0.004, 4, 2e-3, 0.9, 0.15, 0.4, 0.3, 0.5)


@pytest.mark.parametrize("part", train_matting.PARTS)
def test_each_part_of_matting_goes_on_where_it_stopped(work: Path, part: str) -> None:
    file = work / "run" / f"matting_{part}.pt"
    train_matting.train(work / "ae", work / "run", MATTING, CPU, parts=(part,))
    first, spent = load_checkpoint(file)
    longer = replace(MATTING, minutes=spent / 60 + 0.004)
    train_matting.train(work / "ae", work / "run", longer, CPU, parts=(part,))
    second, total = load_checkpoint(file)
    assert second > first >= 1
    assert total > spent


def test_matting_learns_from_figures_that_a_pack_made_where_there_is_no_codec(
    work: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=r"autoencoder\.pt: not there; .* or give figures .* --made"):
        train_matting.train(work / "ae", tmp_path, MATTING, CPU)
    with pytest.raises(
        FileNotFoundError, match=r"matting_coarse\.pt: not there; .* the coarse half, .* in this order"
    ):
        train_matting.train(work / "ae", tmp_path, MATTING, CPU, made=work / "ae", parts=("fine",))
    train_matting.train(work / "ae", tmp_path, MATTING, CPU, made=work / "ae", parts=("coarse",))
    assert load_checkpoint(tmp_path / "matting_coarse.pt")[0] >= 1


def test_a_batch_for_matting_is_a_picture_and_the_figure_that_is_in_it(work: Path) -> None:
    figures = train_matting.load_figures(work / "ae", None, 0.0)
    images, cut, styles = matting_data.make_batch(figures, 24, 128, np.random.default_rng(0))
    assert images.shape == (24, 128, 128, 3)
    assert cut.shape == (24, 128, 128, 4)
    assert images.dtype == cut.dtype == np.uint8
    alphas = cut[..., 3]
    assert 0.1 < (alphas > 127).mean() < 0.8
    assert (cut[..., :3] <= alphas[..., None]).all()  # colours are times alpha
    seen = np.abs(images.astype(int) - cut[..., :3])[alphas == 255]
    assert np.median(seen) <= 1  # but for noise and ringing the picture is the figure where it is whole
    assert not any(np.array_equal(images[0], other) for other in images[1:])
    drawn = [STYLES.index(scene.style) for _, scene in load_scenes(work / "ae")]
    assert set(styles) == set(drawn)
    pictures = figures.sets[0].pictures
    last = matting_data.FigureSet(pictures[3:], np.array([drawn[3]]))
    one = matting_data.Figures((last,), (1.0,))
    assert matting_data.make_batch(one, 2, 128, np.random.default_rng(0))[2].tolist() == [drawn[3]] * 2
    small = matting_data.shrunk(pictures, 128)
    assert small.shape == (4, 128, 128, 4)
    alpha = small[..., 3].astype(np.float32) / 255
    whole = pictures[..., 3].reshape(4, 128, 4, 128, 4).mean(axis=(2, 4)) / 255
    assert np.abs(alpha - whole).max() < 0.01


def test_strands_of_hair_are_part_of_the_figure_and_leave_it_as_it_was_below() -> None:
    figure = np.zeros((256, 256, 4), np.uint8)
    figure[100:, 60:200] = (90, 50, 20, 255)
    loose = matting_data._loosened(figure, np.random.default_rng(5))
    more = loose[..., 3].astype(int) - figure[..., 3]
    assert more.min() >= -1  # rounding
    assert 100 < (more > 20).sum() < 10_000
    assert not (more[150:] > 20).any()
    assert (loose[..., :3] <= loose[..., 3:]).all()
    np.testing.assert_array_equal(matting_data._loosened(figure * 0, np.random.default_rng(5)), 0)


def test_keyed_figures_are_written_with_the_scenes_that_they_show_and_as_many_as_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [[(np.full((512, 512, 4), index, np.uint8), *draw.sample(81, index))] for index in range(5)]
    tries = [found[0], [], found[1] + found[2], found[3] + found[4]]
    monkeypatch.setattr(keyed_figures, "make", lambda engine, seed, start: tries.pop(0))
    keyed_figures.write("toon", tmp_path, 4, 81)
    (figures,) = train_matting.load_figures(tmp_path, None, 0.0).sets
    assert figures.pictures[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert load_scenes(tmp_path) == [draw.sample(81, index) for index in range(4)]
    assert figures.styles.tolist() == [STYLES.index(draw.sample(81, i)[1].style) for i in range(4)]


def test_a_key_finds_the_alpha_of_a_figure_before_a_plain_colour() -> None:
    y, x = np.mgrid[:512, :512] - 256.0
    truth = np.clip((150 - np.hypot(y, x)) / 2 + 0.5, 0, 1)
    image = np.array([200, 60, 40]) * truth[..., None] + np.array([60, 160, 220]) * (1 - truth[..., None])
    rgba = keyed_figures.key(np.rint(image).astype(np.uint8))
    assert rgba is not None
    error = np.abs(rgba[..., 3] / 255 - truth)
    assert error.max() < 0.15
    assert error.mean() < 0.002
    assert np.abs(rgba[truth > 0][:, :3].astype(int) - (200, 60, 40)).max() <= 2
    stripes = np.where((x // 32 % 2 == 0)[..., None], image, 255 - image)
    assert keyed_figures.key(stripes.astype(np.uint8)) is None
    bare = np.full((512, 512, 3), 90, np.uint8)
    assert keyed_figures.key(bare) is None


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A UNet stage for a dozen drawings, without the samples, which take long; their steps are listed."""
    sheets: list[int] = []
    monkeypatch.setattr(train_unet, "HELD_OUT", HELD_OUT)
    monkeypatch.setattr(train_unet, "HELD_OUT_EVERY", 1)
    monkeypatch.setattr(train_unet, "write_sheet", lambda *arguments: sheets.append(1))
    return sheets


def test_the_unet_starts_from_warm_weights_once_and_then_from_its_own(
    work: Path, small: list[int], tmp_path: Path
) -> None:
    for name in ("known_tokens.pt", "text.pt", "autoencoder.pt"):
        (tmp_path / name).symlink_to(work / "run" / name)
    torch.manual_seed(9)
    warm = train_unet.Model()
    torch.save({"unet": warm.state_dict()}, tmp_path / "warm.pt")
    settings = train_unet.Settings(0.001, 4, 0.0, 0.99, 2.5, 1.5)  # at a rate of 0 weights stay
    file = tmp_path / "unet.pt"
    train_unet.train(work / "unet", tmp_path, TOKENIZER, settings, CPU, tmp_path / "warm.pt")
    state = torch.load(file, weights_only=True)
    assert set(state) == {"model", "average", "optimizer", "step", "seconds"}
    for name, weight in warm.state_dict().items():
        torch.testing.assert_close(state["model"][name], weight, atol=0, rtol=0)
        torch.testing.assert_close(state["average"][f"module.{name}"], weight, atol=0, rtol=0)
    torch.save({"unet": {}}, tmp_path / "warm.pt")  # would fail, were it read again
    longer = replace(settings, minutes=state["seconds"] / 60 + 0.001)
    train_unet.train(work / "unet", tmp_path, TOKENIZER, longer, CPU, tmp_path / "warm.pt")
    assert load_checkpoint(file)[0] > state["step"]
    assert len(small) == 2


def test_the_held_out_loss_is_of_pictures_that_no_step_sees_and_repeats(work: Path, small: list[int]) -> None:
    material = train_unet.load_material(work / "unet", 3.0)
    assert list(material.held) == list(range(DRAWN - HELD_OUT, DRAWN))
    assert len(material.weights) == DRAWN - HELD_OUT
    torch.manual_seed(0)
    model, maker = train_unet.Model(), train_unet.load_text(work / "run", TOKENIZER)
    cells = train_unet.face_weights(2.5, CPU)
    first, second = (train_unet.held_out_loss(model, cells, material, maker) for _ in range(2))
    assert first == second
    assert first > 0


def test_a_half_encoded_set_is_not_trained_on(work: Path, tmp_path: Path) -> None:
    for name in ("scenes.jsonl", "embeddings.npy"):
        (tmp_path / name).symlink_to(work / "unet" / name)
    np.save(tmp_path / "latents.npy", np.load(work / "unet" / "latents.npy")[:-1])
    with pytest.raises(ValueError, match="15 latents of 16 pictures; run encode_latents"):
        train_unet.load_material(tmp_path, 1.0)


def on_meta(*shape: int) -> Tensor:
    return torch.randn(*shape, device="meta")


def unet_loss(model: nn.Module) -> Tensor:
    assert isinstance(model, train_unet.Model)
    told = Conditions(torch.randn(2, 77, 192), torch.randn(2, 24))
    batch = torch.randn(2, 64, 8, 8), told, torch.randn(2, 64, 8, 8), torch.tensor([3, 999])
    return train_unet.batch_loss(model, train_unet.face_weights(2.5, torch.device("meta")), batch).mean()


def codec_loss(model: nn.Module) -> Tensor:
    assert isinstance(model, Autoencoder)
    return train_autoencoder.losses(model, on_meta(2, 3, 256, 256), 0.1)[0]


def refined_loss(model: nn.Module) -> Tensor:
    assert isinstance(model, Autoencoder)
    return refine_decoder.losses(model, on_meta(2, 3, 512, 512), 0.1, np.random.default_rng(0))[0]


def coarse_loss(model: nn.Module) -> Tensor:
    assert isinstance(model, CoarseNet)
    image = train_matting.as_made(on_meta(4, 3, 128, 128), Autoencoder().to("meta"), 0.1)
    style = torch.zeros(4, dtype=torch.long, device="meta")
    return train_matting.coarse_losses(model, image, on_meta(4, 4, 128, 128), style)[0]


@pytest.mark.parametrize(
    ("kind", "loss_of"),
    [
        (train_unet.Model, unet_loss),
        (Autoencoder, codec_loss),
        (Autoencoder, refined_loss),
        (CoarseNet, coarse_loss),
    ],
)
def test_a_step_makes_every_tensor_on_the_device_of_its_model(
    kind: type[nn.Module], loss_of: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch refuses to mix the meta device with the CPU as it does with a GPU; it knows no autocast, though.
    monkeypatch.setattr(torch, "autocast", lambda *arguments: nullcontext())
    model = kind().to("meta")
    assert callable(loss_of)
    loss_of(model).backward()
    assert all(p.grad is None or p.grad.device.type == "meta" for p in model.parameters())
    assert any(p.grad is not None for p in model.parameters())
