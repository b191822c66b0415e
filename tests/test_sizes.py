"""From the size a pack draws at to the size asked for."""

from __future__ import annotations

import numpy as np
import pytest

from faceavatar.manifest import Sizes
from faceavatar.sizes import bring_to, drawing_size

PORTRAITS = Sizes(native=((512, 512), (1024, 1024), (768, 512), (512, 768)), policy="extend")
MULTIPLES = Sizes(multiple_of=8)


@pytest.mark.parametrize(
    ("wanted", "drawn"),
    [
        ((512, 512), (512, 512)),
        ((256, 256), (512, 512)),
        ((1300, 1300), (1024, 1024)),
        ((900, 600), (768, 512)),
        ((1536, 256), (768, 512)),
        ((300, 460), (512, 768)),
    ],
)
def test_the_native_size_nearest_in_aspect_and_then_in_area_is_drawn(
    wanted: tuple[int, int], drawn: tuple[int, int]
) -> None:
    assert drawing_size(PORTRAITS, wanted) == drawn


@pytest.mark.parametrize(("wanted", "drawn"), [((256, 256), (256, 256)), ((257, 1535), (264, 1536))])
def test_without_native_sizes_the_next_multiple_is_drawn(
    wanted: tuple[int, int], drawn: tuple[int, int]
) -> None:
    assert drawing_size(MULTIPLES, wanted) == drawn


def test_a_margin_of_a_multiple_is_cut_off_and_nothing_is_resampled() -> None:
    image = np.random.default_rng(0).integers(0, 256, (264, 264, 3), np.uint8)
    np.testing.assert_array_equal(bring_to(image, (257, 260), MULTIPLES), image[3:260, 2:262])


def test_a_native_picture_is_scaled_and_keeps_touching_the_lower_edge() -> None:
    image = np.zeros((512, 512, 3), np.uint8)
    image[-100:] = 255
    tall = bring_to(image, (1000, 256), PORTRAITS)
    assert tall.shape == (1000, 256, 3)
    assert tall[-1].min() == 255
    assert tall[0].max() == 0
