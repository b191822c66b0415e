"""A decoder cut in two decodes tile by tile what it decodes whole, and the engine does so where it must."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import onnx
import pytest
import tiny_pack
import torch
from numpy.typing import NDArray

import faceavatar.vae
from faceavatar import AvatarEngine, AvatarRequest, MissingGraph, OverBudget
from faceavatar.errors import PackInvalid
from faceavatar.image import to_uint8
from faceavatar.opening import Opening
from faceavatar.pack import Pack
from faceavatar.vae import TiledVaeDecoder, VaeDecoder
from faceavatar_export import graphs
from faceavatar_export.diffusion.modules import SdVaeDecoder
from faceavatar_export.tiles import add_tiles

PHOTO = Path(__file__).parents[1] / "fixtures" / "photos" / "astronaut.jpg"
WITHIN = 3  # of 255


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tests' pack with a real, narrow decoder of Stable Diffusion's form, whole and in two."""
    folder = tiny_pack.build(tmp_path_factory.mktemp("packs") / "tiled", tiny_pack.SD_LIKE)
    torch.manual_seed(0)
    module = SdVaeDecoder(checkpoints._vae(0.5), torch.float32)
    path, image = folder / "vae_decoder.onnx", {0: "batch", 2: "image_height", 3: "image_width"}
    sides = {"latents": {0: "batch", 2: "height", 3: "width"}}
    graphs.export_graph(
        module, {"latents": torch.randn(2, 4, 6, 8)}, ["image"], sides, path, {"image": image}
    )
    tiny_pack.replace_graph(folder, "vae_decoder", onnx.load(path))
    add_tiles(folder)
    return folder


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that a small picture has several."""
    monkeypatch.setattr(faceavatar.vae, "CORE", 24)


def latents(kind: str) -> NDArray[np.float32]:
    """(1, 4, 30, 40): noise, or one whose halves and corners have little in common."""
    noise = np.random.default_rng(0).normal(size=(1, 4, 30, 40)).astype(np.float32)
    if kind == "uneven":
        noise[:, :, :15] *= 0.05
        noise[:, :, :, 20:] += 1
    return noise


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
@pytest.mark.parametrize("kind", ["noise", "uneven"])
def test_a_picture_in_tiles_is_the_one_decoded_whole(
    tiled: Path, small_tiles: None, kind: str, provider: str
) -> None:
    opening = Opening.of(Pack.load(tiled), provider, 1)
    settings = opening.pack.manifest.latents
    low, tile = opening.guarded("vae_decoder_low"), opening.guarded("vae_decoder_tile")
    whole = to_uint8(VaeDecoder(opening.guarded("vae_decoder"), settings).decode(latents(kind)))[0]
    decoder = TiledVaeDecoder(low, tile, settings)
    parts = to_uint8(decoder.decode(latents(kind)))[0]
    assert whole.std() > 10
    assert np.abs(whole.astype(int) - parts).max() <= WITHIN
    # Tiles that take their own means and variances are another picture: what the passes are for.
    half = low.run({"latents": scaled(latents(kind), settings)})["half"]
    alone, _ = decoder._pass(half, np.zeros(decoder._norms_shape(), np.float32), own=True)
    assert np.abs(whole.astype(int) - to_uint8(alone)[0]).max() > 10 * WITHIN


def scaled(array: NDArray[np.float32], settings: Any) -> NDArray[np.float32]:
    return array / np.float32(settings.scaling_factor) + np.float32(settings.shift_factor)


def test_the_engine_decodes_in_tiles_what_does_not_fit_whole_and_says_so(
    tiled: Path, small_tiles: None
) -> None:
    memory = {
        "loaded": 1_000_000,
        "stages": {
            "vae_decoder": [0, 1e6, 0],
            "vae_decoder_low": [0, 1e3, 0],
            "vae_decoder_tile": [1e6, 0, 0],
        },
    }
    tiny_pack.change_manifest(tiled, lambda content: content.update(memory={"cpu": memory}))
    request = AvatarRequest(image=PHOTO, seed=1, height=256, width=320)
    whole = AvatarEngine.load(tiled, provider="cpu").generate(request)
    assert whole.warnings == ()
    with pytest.raises(OverBudget):
        AvatarEngine.load(tiled, provider="cpu", memory_budget="500MB").generate(request)
    parts = AvatarEngine.load(tiled, provider="cpu", memory_budget="500MB", tiling=True).generate(request)
    assert np.abs(whole.images[0].astype(int) - parts.images[0]).max() <= WITHIN
    (warning,) = parts.warnings
    assert warning.startswith("decoded in tiles, since memory_budget does not allow it whole")
    least = AvatarRequest(image=PHOTO, seed=1, height=1536, width=1536)
    with pytest.raises(OverBudget):
        AvatarEngine.load(tiled, provider="cpu", memory_budget="30MB", tiling=True).generate(least)


def test_tiles_are_refused_for_a_pack_without_their_graphs(tiny_sd: Path) -> None:
    with pytest.raises(MissingGraph, match=r"tiling needs the graphs vae_decoder_low and vae_decoder_tile"):
        AvatarEngine.load(tiny_sd, provider="cpu", tiling=True)


def test_a_decoder_of_another_form_is_not_cut(tmp_path: Path) -> None:
    folder = tiny_pack.build(tmp_path / "other", tiny_pack.SD_LIKE)
    with pytest.raises(PackInvalid, match=r"vae_decoder\.onnx: expected a decoder with group norms"):
        add_tiles(folder)
