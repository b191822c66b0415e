"""Cut-outs: straight alpha, and a colour that is met exactly where nobody is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from faceavatar.errors import NumericalError
from faceavatar.matting import Matter, cut_out, put_on
from faceavatar.pack import Pack


@pytest.fixture(scope="module")
def matter(tiny: Path) -> Matter:
    pack = Pack.load(tiny)
    assert pack.manifest.matting is not None
    return Matter(pack.open("matting", "cpu"), pack.manifest.matting)


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(256, 256), (512, 512), (301, 777), (1536, 256)])
def test_alpha_has_the_size_of_the_picture_and_lies_within_0_and_1(
    matter: Matter, size: tuple[int, int]
) -> None:
    alpha = matter.alpha(noise(*size))
    assert alpha.shape == size
    assert alpha.dtype == np.float32
    assert alpha.min() == 0
    assert alpha.max() == 1
    assert alpha[0, 0] == 0
    assert alpha[size[0] // 2, size[1] // 2] == 1


def test_alpha_depends_on_the_picture(matter: Matter) -> None:
    dark, light = (matter.alpha(np.full((256, 256, 3), value, np.uint8)) for value in (0, 255))
    assert light.sum() > dark.sum() + 100


def test_a_cut_out_keeps_the_colours_straight_and_adds_alpha() -> None:
    image, alpha = noise(8, 8), np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    rgba = cut_out(image, alpha)
    assert rgba.shape == (8, 8, 4)
    assert rgba.dtype == np.uint8
    np.testing.assert_array_equal(rgba[..., :3], image)
    np.testing.assert_array_equal(rgba[..., 3], np.rint(alpha * 255))


@pytest.mark.parametrize("color", ["#000000", "#ffffff", "#12ab7f"])
def test_a_colour_is_exact_where_alpha_is_0_and_the_picture_where_it_is_1(color: str) -> None:
    image, alpha = noise(8, 8), np.zeros((8, 8), np.float32)
    alpha[:, 4:] = 1
    result = put_on(image, alpha, color)
    wanted = [int(color[1:3], 16), int(color[3:5], 16), int(color[5:], 16)]
    assert (result[:, :4] == wanted).all()
    np.testing.assert_array_equal(result[:, 4:], image[:, 4:])


def test_half_alpha_is_half_of_each() -> None:
    image, half = np.full((1, 1, 3), 200, np.uint8), np.full((1, 1), 0.5, np.float32)
    assert put_on(image, half, "#640000")[0, 0].tolist() == [150, 100, 100]


def test_a_net_that_gives_nan_is_refused(matter: Matter) -> None:
    settings = matter.settings.model_copy(update={"mean": (float("nan"),) * 3})
    with pytest.raises(NumericalError, match="matting gave NaN"):
        Matter(matter.session, settings).alpha(noise(256, 256))
