"""Surfaces behind training figures: any size, as seeded, unlike one another."""

from __future__ import annotations

import numpy as np
import pytest

from faceavatar_export.toon.textures import SURFACES, texture


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("size", [128, 512])
def test_a_texture_fills_its_picture_and_is_the_seeds_own(size: int) -> None:
    first, again, other = texture(size, rng(1)), texture(size, rng(1)), texture(size, rng(2))
    assert first.shape == (size, size, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 2


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.__name__)
def test_every_surface_has_detail(surface: object) -> None:
    assert callable(surface)
    spread = [surface(rng(seed)).astype(float).std(axis=(0, 1)).max() for seed in range(5)]
    assert np.median(spread) > 3
