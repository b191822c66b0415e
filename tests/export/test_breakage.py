"""Broken drawings are really broken, in the ways that a bad model breaks them."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from faceavatar_export.toon import breakage, styles
from faceavatar_export.toon.identity import STYLES, Identity, Scene

PERSON = Identity(False, "#d29a6c", "#3a2619", "short", False, False, "none", "none")
SCENE = Scene(
    "vector", "smile", "t-shirt", "#c8262c", "none", "#000000", "#a9d6f5", "#a9d6f5", "plain", "bust", 0
)


class Always:
    """A generator that picks the way `name` among those a person allows."""

    def __init__(self, index: int) -> None:
        self.index = index

    def integers(self, _count: int) -> int:
        return self.index

    def random(self) -> float:
        return 0.4

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2


def drawn(style: str) -> tuple[np.ndarray, Scene]:
    scene = replace(SCENE, style=style)
    return styles.composite(styles.draw_rgba(PERSON, scene, 256), styles.background(scene, 256)), scene


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("way", range(5))
def test_every_way_changes_the_face(style: str, way: int) -> None:
    picture, scene = drawn(style)
    broken = breakage.break_picture(picture, PERSON, scene, cast(np.random.Generator, Always(way)))
    assert broken.shape == picture.shape
    assert broken.dtype == np.uint8
    points = styles.landmarks(scene, 256)
    low, high = points.min(0).astype(int) - 6, points.max(0).astype(int) + 6
    box = (slice(max(0, low[1]), high[1]), slice(max(0, low[0]), high[0]))
    assert np.abs(broken[box].astype(int) - picture[box]).mean() > 2, (style, way)


def test_without_a_head_the_background_is_where_it_was() -> None:
    picture, scene = drawn("vector")
    broken = breakage.break_picture(picture, PERSON, scene, cast(np.random.Generator, Always(0)))
    x, y = styles.landmarks(scene, 256).mean(0).astype(int)
    np.testing.assert_array_equal(broken[y, x], picture[y, 0])


def test_glasses_and_beards_are_never_taken_for_missing_eyes_or_mouths() -> None:
    scene = replace(SCENE)
    hidden = replace(PERSON, glasses="sunglasses", beard="full")
    picture = styles.composite(styles.draw_rgba(hidden, scene, 128), styles.background(scene, 128))
    rng = np.random.default_rng(0)
    mouth = styles.landmarks(scene, 128)[3:].mean(0).astype(int)
    skin = np.array([0xD2, 0x9A, 0x6C])
    for _ in range(30):
        broken = breakage.break_picture(picture, hidden, scene, rng)
        assert np.abs(broken[mouth[1], mouth[0]].astype(int) - skin).max() > 3
