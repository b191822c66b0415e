"""Each stage of a picture by itself, and whole pictures: pytest benchmarks/ --benchmark-json FILE."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar.face.align import align
from faceavatar.image import encode_png, load_image
from faceavatar.unet import UNet


@pytest.fixture
def words() -> Iterator[str]:
    """Prompts that were not seen before: the encoder remembers those that were."""
    return (f"vector cartoon of a woman, number {number}, teal background" for number in count())


def test_load_image(benchmark: BenchmarkFixture, photo: Path) -> None:
    benchmark(load_image, photo)


def test_detect(benchmark: BenchmarkFixture, toon: AvatarEngine, photo: Path) -> None:
    pixels = load_image(photo)
    assert toon.faces.detector is not None
    benchmark(toon.faces.detector.detect, pixels)


def test_embed(benchmark: BenchmarkFixture, toon: AvatarEngine, photo: Path) -> None:
    pixels, settings = load_image(photo), toon.pack.manifest.face
    assert toon.faces.detector is not None
    assert settings is not None
    assert settings.alignment is not None
    assert toon.embedder is not None
    face = toon.faces.detector.detect(pixels).faces[0]
    crop = align(pixels, face.landmarks, settings.alignment.kind, settings.alignment.size)
    benchmark(toon.embedder.embed, crop)


def test_text(benchmark: BenchmarkFixture, toon: AvatarEngine, words: Iterator[str]) -> None:
    benchmark(lambda: toon.text.encode(next(words)))


@pytest.mark.parametrize("batch", [1, 2, 4, 8])
def test_step(benchmark: BenchmarkFixture, toon: AvatarEngine, batch: int) -> None:
    benchmark(_step(toon, batch))


def test_decode(benchmark: BenchmarkFixture, toon: AvatarEngine) -> None:
    latents = np.random.default_rng(0).standard_normal((1, 64, 8, 8), np.float32)
    benchmark(toon.vae.decode, latents)


def test_cut_out(benchmark: BenchmarkFixture, toon: AvatarEngine, photo: Path) -> None:
    toon.cut_out(photo)
    benchmark(toon.cut_out, photo)


def test_png(benchmark: BenchmarkFixture, photo: Path) -> None:
    benchmark(encode_png, load_image(photo)[:512, :512])


@pytest.mark.parametrize("batch", [1, 2, 4, 8])
def test_picture(benchmark: BenchmarkFixture, toon: AvatarEngine, photo: Path, batch: int) -> None:
    request = AvatarRequest(image=photo, batch=batch, seed=1)
    benchmark(toon.generate, request)


@pytest.mark.parametrize("steps", [1, 4, 16])
def test_small_picture(benchmark: BenchmarkFixture, tiny_sd: AvatarEngine, photo: Path, steps: int) -> None:
    request = AvatarRequest(image=photo, height=256, width=256, num_inference_steps=steps, seed=1)
    benchmark(tiny_sd.generate, request)


def test_joined(benchmark: BenchmarkFixture, tiny_sd: AvatarEngine, photo: Path) -> None:
    """Four prepared requests as one batch, as the service draws them."""
    fields: dict[str, Any] = {"image": photo, "height": 256, "width": 256, "num_inference_steps": 4}

    def prepare() -> tuple[tuple[Any], dict[str, Any]]:
        return ([tiny_sd.prepare(AvatarRequest(**fields, seed=seed)) for seed in range(4)],), {}

    benchmark.pedantic(tiny_sd.generate_together, setup=prepare, rounds=10)


def _step(engine: AvatarEngine, batch: int) -> Callable[[], object]:
    """One call of the UNet on noise, with the words and the face of nobody."""
    random = np.random.default_rng(0)
    text = engine.text.encode("a woman")[0].states
    assert engine.adapter is not None
    tokens = engine.adapter.tokens(random.standard_normal((1, 24), np.float32))
    conditions = {
        "encoder_hidden_states": np.repeat(text, batch, 0),
        "face_tokens": np.repeat(tokens, batch, 0),
        "face_scale": np.ones(1, np.float32),
    }
    latents = random.standard_normal((batch, 64, 8, 8), np.float32)
    unet = engine.unet
    assert isinstance(unet, UNet)
    return lambda: unet(latents, 500.0, conditions)
