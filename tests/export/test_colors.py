"""Colours as numbers: CIE L*a*b*, CIEDE2000, and names."""

from __future__ import annotations

import numpy as np
import pytest

from faceavatar_export.toon import colors

# Sharma, Wu and Dalal 2005, "The CIEDE2000 color-difference formula", table 1, all 34 pairs.
PUBLISHED = """
50.0000 2.6772 -79.7751 50.0000 0.0000 -82.7485 2.0425
50.0000 3.1571 -77.2803 50.0000 0.0000 -82.7485 2.8615
50.0000 2.8361 -74.0200 50.0000 0.0000 -82.7485 3.4412
50.0000 -1.3802 -84.2814 50.0000 0.0000 -82.7485 1.0000
50.0000 -1.1848 -84.8006 50.0000 0.0000 -82.7485 1.0000
50.0000 -0.9009 -85.5211 50.0000 0.0000 -82.7485 1.0000
50.0000 0.0000 0.0000 50.0000 -1.0000 2.0000 2.3669
50.0000 -1.0000 2.0000 50.0000 0.0000 0.0000 2.3669
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0009 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0010 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0011 7.2195
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0012 7.2195
50.0000 -0.0010 2.4900 50.0000 0.0009 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0010 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0011 -2.4900 4.7461
50.0000 2.5000 0.0000 50.0000 0.0000 -2.5000 4.3065
50.0000 2.5000 0.0000 73.0000 25.0000 -18.0000 27.1492
50.0000 2.5000 0.0000 61.0000 -5.0000 29.0000 22.8977
50.0000 2.5000 0.0000 56.0000 -27.0000 -3.0000 31.9030
50.0000 2.5000 0.0000 58.0000 24.0000 15.0000 19.4535
50.0000 2.5000 0.0000 50.0000 3.1736 0.5854 1.0000
50.0000 2.5000 0.0000 50.0000 3.2972 0.0000 1.0000
50.0000 2.5000 0.0000 50.0000 1.8634 0.5757 1.0000
50.0000 2.5000 0.0000 50.0000 3.2592 0.3350 1.0000
60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
63.0109 -31.0961 -5.8663 62.8187 -29.7946 -4.0864 1.2630
61.2901 3.7196 -5.3901 61.4292 2.2480 -4.9620 1.8731
35.0831 -44.1164 3.7933 35.0232 -40.0716 1.5901 1.8645
22.7233 20.0904 -46.6940 23.0331 14.9730 -42.5619 2.0373
36.4612 47.8580 18.3852 36.2715 50.5065 21.2231 1.4146
90.8027 -2.0831 1.4410 91.1528 -1.6435 0.0447 1.4441
90.9257 -0.5406 -0.9208 88.6381 -0.8985 -0.7239 1.5381
6.7747 -0.2908 -2.4247 5.8714 -0.0985 -2.2286 0.6377
2.0776 0.0795 -1.1350 0.9033 -0.0636 -0.5514 0.9082
"""
PAIRS = np.array(PUBLISHED.split(), np.float64).reshape(-1, 7)


@pytest.mark.parametrize("row", range(len(PAIRS)))
def test_ciede2000_gives_the_published_differences(row: int) -> None:
    first, second, expected = PAIRS[row, :3], PAIRS[row, 3:6], PAIRS[row, 6]
    assert colors.ciede2000(first, second) == pytest.approx(expected, abs=5e-5)
    assert colors.ciede2000(second, first) == pytest.approx(expected, abs=5e-5)


def test_ciede2000_takes_arrays_of_colors() -> None:
    got = colors.ciede2000(PAIRS[:, :3], PAIRS[:, 3:6])
    assert got.shape == (34,)
    np.testing.assert_allclose(got, PAIRS[:, 6], atol=5e-5)


def test_lab_and_back_is_the_same_color() -> None:
    rgb = np.random.default_rng(0).uniform(0, 255, (500, 3))
    rgb[:4] = [[0, 0, 0], [255, 255, 255], [1, 2, 3], [255, 0, 0]]
    np.testing.assert_allclose(colors.lab_to_rgb(colors.rgb_to_lab(rgb)), rgb, atol=1e-4)


@pytest.mark.parametrize(
    ("color", "lab"),
    [
        ("#ffffff", (100, 0, 0)),
        ("#000000", (0, 0, 0)),
        ("#ff0000", (53.24, 80.09, 67.20)),
        ("#00ff00", (87.73, -86.18, 83.18)),
        ("#0000ff", (32.30, 79.19, -107.86)),
    ],
)
def test_primaries_have_their_known_lab_values(color: str, lab: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(colors.rgb_to_lab(colors.hex_to_rgb(color)), lab, atol=0.02)


def test_colors_outside_of_srgb_are_clipped_into_it() -> None:
    rgb = colors.lab_to_rgb(np.array([[120.0, 0, 0], [50, 200, 0], [-5, 0, 0]]))
    assert rgb.min() >= 0
    assert rgb.max() <= 255


def test_hex_and_back_is_the_same_text() -> None:
    for color in (*colors.SKIN_TONES, *colors.HAIR_COLORS.values(), "#00ff7f"):
        assert colors.rgb_to_hex(colors.hex_to_rgb(color)) == color


@pytest.mark.parametrize("table", ["HAIR_COLORS", "CLOTH_COLORS", "BACKGROUND_COLORS"])
def test_every_named_color_is_nearest_to_its_own_name(table: str) -> None:
    names: dict[str, str] = getattr(colors, table)
    assert [colors.nearest_name(color, names) for color in names.values()] == list(names)


def test_jittered_colors_stay_near_and_are_repeatable() -> None:
    first, second = (colors.jitter("#3f86e0", np.random.default_rng(3), 2.0) for _ in range(2))
    assert first == second != "#3f86e0"
    lab = [colors.rgb_to_lab(colors.hex_to_rgb(color)) for color in (first, "#3f86e0")]
    assert np.linalg.norm(lab[0] - lab[1]) < 12
