"""Drawings: every option is one that DiceBear knows, and what differs in words differs in the picture."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from importlib.resources import files
from itertools import product
from typing import Any

import numpy as np
import pytest

from faceavatar_export.toon import styles
from faceavatar_export.toon.identity import (
    BEARDS,
    EXPRESSIONS,
    FRAMINGS,
    GARMENTS,
    GLASSES,
    HAIR_LENGTHS,
    STYLES,
    Identity,
    Scene,
)

PERSON = Identity(False, "#d29a6c", "#9c3c1f", "short", False, False, "none", "none")
SCENE = Scene(
    "vector", "smile", "t-shirt", "#3577d8", "none", "#000000", "#ffffff", "#ffffff", "plain", "bust", 0
)
HAIR: list[dict[str, Any]] = [
    *({"hair_length": length, "curly": False, "bun": False} for length in HAIR_LENGTHS),
    *({"hair_length": length, "curly": True, "bun": False} for length in HAIR_LENGTHS if length != "bald"),
    {"hair_length": "medium", "curly": False, "bun": True},
]
SIZE = 64


def people(style: str) -> Iterator[tuple[Identity, Scene]]:
    """Every hair, beard, glasses, expression, garment and choice of variant of a style."""
    looks = product(HAIR, BEARDS, GLASSES, EXPRESSIONS, GARMENTS, range(6))
    for hair, beard, glasses, expression, garment, variant in looks:
        identity = replace(PERSON, beard=beard, glasses=glasses, **hair)
        yield (
            identity,
            replace(SCENE, style=style, expression=expression, garment=garment, variant=variant),
        )


def draw(identity: Identity, scene: Scene) -> np.ndarray:
    return styles.draw_rgba(identity, scene, SIZE)


@pytest.mark.parametrize("style", STYLES)
def test_dicebear_knows_every_option_that_a_style_can_ask_for(style: str) -> None:
    """An unknown variant is ignored in silence, and another one drawn."""
    source = files("dicebear_styles").joinpath(f"{styles.ART[style]}.json").read_text("utf-8")
    known = json.loads(source)
    asked = {
        (key, value)
        for identity, scene in people(style)
        for key, values in styles.ROOMS[style]
        .options(identity, scene, styles._hair(identity, scene))[0]
        .items()
        for value in (values if isinstance(values, list) else [None])
    }
    for key, value in asked:
        if key.endswith("Variant"):
            assert value in known["components"][key.removesuffix("Variant")]["variants"], (key, value)
        elif key.endswith("Probability"):
            assert key.removesuffix("Probability") in known["components"], key
        else:
            assert key.removesuffix("Color") in {*known["colors"], "background"}, key
    chosen = {key.removesuffix("Variant") for key, _ in asked if key.endswith("Variant")}
    silenced = {key.removesuffix("Probability") for key, _ in asked if key.endswith("Probability")}
    several = {name for name, part in known["components"].items() if len(part["variants"]) > 1}
    assert several - chosen - silenced <= {"clothesGraphic"}  # nothing is left to DiceBear's own dice


@pytest.mark.parametrize("style", STYLES)
def test_every_hair_can_be_seen(style: str) -> None:
    drawings = [draw(replace(PERSON, **hair), replace(SCENE, style=style)) for hair in HAIR]
    same_art = {(3, 6)} if style == "ink" else set()  # Open Peeps has one coloured head of long hair
    _assert_all_differ(drawings, same_art)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("field", "values"), [("beard", BEARDS), ("glasses", GLASSES)])
def test_beards_and_glasses_can_be_seen(style: str, field: str, values: tuple[str, ...]) -> None:
    scene = replace(SCENE, style=style)
    looks: list[dict[str, Any]] = [{field: value} for value in values]
    _assert_all_differ([draw(replace(PERSON, **look), scene) for look in looks])


@pytest.mark.parametrize("style", STYLES)
def test_every_expression_can_be_seen(style: str) -> None:
    _assert_all_differ([draw(PERSON, replace(SCENE, style=style, expression=e)) for e in EXPRESSIONS])


@pytest.mark.parametrize("style", STYLES)
def test_every_garment_can_be_seen(style: str) -> None:
    _assert_all_differ([draw(PERSON, replace(SCENE, style=style, garment=g)) for g in GARMENTS])


@pytest.mark.parametrize("style", STYLES)
def test_colors_asked_for_are_the_colors_drawn(style: str) -> None:
    scene = replace(SCENE, style=style, garment_color="#123fd1")
    person = replace(PERSON, skin="#c98d5e", hair_color="#d11f7a")
    pixels = styles.draw_rgba(person, scene, 256)
    solid = pixels[pixels[..., 3] == 255][:, :3].astype(int)
    for color in ((0xC9, 0x8D, 0x5E), (0xD1, 0x1F, 0x7A), (0x12, 0x3F, 0xD1)):
        assert (np.abs(solid - color).max(axis=1) <= 2).sum() > 60, color


@pytest.mark.parametrize(("style", "framing"), [*product(STYLES, FRAMINGS)])
def test_figures_stand_free_above_and_touch_the_bottom_edge(style: str, framing: str) -> None:
    for hair in HAIR:
        scene = replace(SCENE, style=style, framing=framing)
        alpha = draw(replace(PERSON, **hair), scene)[..., 3]
        assert alpha.shape == (SIZE, SIZE)
        if framing != "close-up":  # pixel hair fills a close-up's corners
            assert alpha[0, 0] == alpha[0, -1] == 0
        if (style, framing) != ("voxel", "half-body"):  # that one stands on its own feet
            assert alpha[-1].max() == 255
        if framing == "bust":
            assert alpha[-1, 0] == alpha[-1, -1] == 0


def test_a_close_up_shows_the_head_larger() -> None:
    for style in ("vector", "storybook", "ink"):
        bust, near = (draw(PERSON, replace(SCENE, style=style, framing=f))[..., 3] for f in FRAMINGS[:2])
        assert near.astype(int).sum() > 1.1 * bust.astype(int).sum()


def test_a_figure_lies_over_its_background_by_its_alpha() -> None:
    scene = replace(SCENE, background="#000000", background_end="#ff0000", pattern="gradient")
    backdrop = styles.background(scene, 8)
    assert backdrop.shape == (8, 8, 3)
    np.testing.assert_allclose(backdrop[[0, -1], 3], [[0, 0, 0], [255, 0, 0]], atol=16)
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:, :4] = (10, 200, 30, 255)
    rgba[:, 4] = (255, 255, 255, 51)
    picture = styles.composite(rgba, backdrop)
    assert picture[2, 0].tolist() == [10, 200, 30]
    assert abs(int(picture[0, 4, 1]) - 51) <= 1
    assert picture[-1, -1, 0] > 235


def _assert_all_differ(drawings: list[np.ndarray], same: Collection[tuple[int, int]] = ()) -> None:
    for (i, first), (j, second) in product(enumerate(drawings), repeat=2):
        if i < j and (i, j) not in same:
            assert np.any(first != second), f"drawings {i} and {j} are the same"
