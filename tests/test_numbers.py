"""NaN and infinite values are caught where they come from, and cured in fp32 where that can be."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pack
from tiny_pack import CONTEXT, SD_LIKE, TOKENS, TOON_LIKE

from faceavatar import AvatarEngine, AvatarRequest, NumericalError
from faceavatar.opening import Opening
from faceavatar.pack import Pack
from faceavatar.watch import Watch, at_step, told

PHOTO = Path(__file__).parent / "fixtures" / "photos" / "astronaut.jpg"
BRAIN_MOST, HALF_MOST = 3.4e38, 2e5  # floats that bfloat16 and float16 round to infinity
ODD_REQUESTS: dict[str, dict[str, Any]] = {
    "the strongest guidance, the most steps": {"guidance_scale": 30.0, "num_inference_steps": 50},
    "no guidance, one step": {"guidance_scale": 1.0, "num_inference_steps": 1},
    "nothing said": {"prompt": "", "negative_prompt": "", "guidance_scale": 4.0},
    "two thousand words": {"prompt": "a merry pirate " * 667, "negative_prompt": "blurry, " * 2000},
    "emoji": {"prompt": "👩🏽‍🚀🏴‍☠️ 🙂\u200d\ufe0f\U0001f9d1\u200d\U0001f9b0", "negative_prompt": "👻"},
    "right to left": {"prompt": "رسم لامرأة تبتسم، בחור מחייך \u202e\u2067", "negative_prompt": "טשטוש"},
}


def ask(**fields: Any) -> AvatarRequest:
    return AvatarRequest(**{"image": PHOTO, "seed": 1, **fields})


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A pack of one's own."""
    return shutil.copytree(tiny, tmp_path / "tiny")


@pytest.fixture(scope="session")
def toon() -> AvatarEngine:
    return AvatarEngine.load("toon", provider="cpu", threads=1)


@pytest.mark.parametrize(
    "stage", ["text_encoder", "face_encoder", "face_projection", "unet", "vae_decoder", "matting"]
)
def test_numbers_that_are_none_are_caught_at_the_stage_that_makes_them(copy: Path, stage: str) -> None:
    tiny_pack.poison(copy, stage)
    with pytest.raises(NumericalError) as caught:
        AvatarEngine.load(copy, provider="cpu").generate(ask(remove_background=True))
    assert caught.value.stage == stage
    assert caught.value.step == (0 if stage == "unet" else None)


def test_what_overflows_in_bf16_is_run_again_in_fp32(copy: Path) -> None:
    tiny_pack.replace_graph(copy, "unet", tiny_pack.unet(TOON_LIKE.channels, peak=BRAIN_MOST))
    draw = np.random.default_rng(0)
    feeds = {
        "sample": draw.normal(size=(2, TOON_LIKE.channels, 8, 8), scale=3).astype(np.float32),
        "timestep": np.array([5, 5]),
        "encoder_hidden_states": draw.normal(size=(2, 77, CONTEXT), scale=5).astype(np.float32),
        "face_tokens": draw.normal(size=(2, TOKENS, CONTEXT), scale=5).astype(np.float32),
        "face_scale": np.ones(1, np.float32),
    }
    pack, watch = Pack.load(copy), Watch()
    brain = Opening.of(pack, "openvino", 1, "bf16").guarded("unet")
    with watch.worn(), at_step(3):
        given = brain.run(feeds)["noise_pred"]
    exact = Opening.of(pack, "openvino", 1, "fp32").guarded("unet").run(feeds)["noise_pred"]
    np.testing.assert_array_equal(given, exact)
    (sentence,) = told(watch.take())
    assert sentence == ("unet gave NaN or infinite values in bf16 at step 3, and was run again in fp32 there")


def test_what_overflows_in_fp16_is_run_again_with_the_packs_fp32_graph_and_said(copy: Path) -> None:
    half = tiny_pack.unet(TOON_LIKE.channels, peak=HALF_MOST, half=True)
    exact = tiny_pack.unet(TOON_LIKE.channels, peak=HALF_MOST)
    tiny_pack.replace_graph(copy, "unet", exact)
    wanted = AvatarEngine.load(copy, provider="cpu").generate(ask())
    tiny_pack.replace_graph(copy, "unet", exact, "unet.fp32.onnx", fp32="unet.fp32.onnx")
    tiny_pack.replace_graph(copy, "unet", half, precision="fp16")
    cured = AvatarEngine.load(copy, provider="cpu", precision="fp16").generate(ask())
    np.testing.assert_array_equal(cured.images[0], wanted.images[0])
    assert cured.warnings == (
        "unet gave NaN or infinite values in fp16 at steps 0, 1, 2, 3, and was run again in fp32 there",
    )


def test_without_an_fp32_graph_an_overflow_is_refused_with_its_step(copy: Path) -> None:
    half = tiny_pack.unet(TOON_LIKE.channels, peak=HALF_MOST, half=True)
    tiny_pack.replace_graph(copy, "unet", half, precision="fp16")
    engine = AvatarEngine.load(copy, provider="cpu", precision="fp16")
    with pytest.raises(NumericalError, match="unet gave NaN or infinite values at step 0"):
        engine.generate(ask())


def test_a_stage_that_is_remembered_is_still_said_to_have_been_run_again(copy: Path) -> None:
    encoder, half = tiny_pack.text_encoder(), tiny_pack.text_encoder(half=True)
    tiny_pack.replace_graph(copy, "text_encoder", encoder, "text.fp32.onnx", fp32="text.fp32.onnx")
    tiny_pack.replace_graph(copy, "text_encoder", half, precision="fp16")
    engine = AvatarEngine.load(copy, provider="cpu", precision="fp16")
    first, second = engine.generate(ask()), engine.generate(ask())
    assert first.warnings == second.warnings
    assert first.warnings == (
        "text_encoder gave NaN or infinite values in fp16, and was run again in fp32 there",
    )


@pytest.mark.parametrize("fields", ODD_REQUESTS.values(), ids=list(ODD_REQUESTS))
@pytest.mark.parametrize("which", ["engine", "sd_engine", "toon"])
def test_odd_requests_give_pictures(
    request: pytest.FixtureRequest, which: str, fields: dict[str, Any]
) -> None:
    size = {"height": 256, "width": 256} if which == "sd_engine" else {}
    result = request.getfixturevalue(which).generate(ask(**fields, **size))
    assert result.images[0].std() > 1
    assert not [words for words in result.warnings if "NaN" in words]


def test_an_sd_like_pack_names_the_picture_encoder_too(tmp_path: Path) -> None:
    folder = tiny_pack.build(tmp_path / "sd", SD_LIKE)
    tiny_pack.add_vae_encoder(folder, SD_LIKE)
    tiny_pack.poison(folder, "vae_encoder")
    with pytest.raises(NumericalError, match="vae_encoder gave NaN"):
        AvatarEngine.load(folder, provider="cpu").generate(ask(strength=0.5, height=256, width=256))
