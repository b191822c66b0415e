"""Scores: what is measured is what it says, on numbers and pictures whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from faceavatar_export.toon import colors, draw, styles
from faceavatar_export.toon.attributes import NAMES, names_of, truth, unseen
from faceavatar_export.toon.identity import Identity, Scene
from faceavatar_export.toon.score import THRESHOLDS, Threshold
from faceavatar_export.toon.scores.judge import (
    Judge,
    background_of,
    cheeks_of,
    color_distance,
    frechet_distance,
    hair_of,
)
from faceavatar_export.toon.scores.likeness import area_under_curve
from faceavatar_export.toon.scores.obedience import JUDGED, Wish, portrait, right
from faceavatar_export.toon.scores.quality import psnr

CLASSIFIER = Path(__file__).parents[1] / "fixtures" / "classifier.onnx"
PERSON = Identity(False, "#d29a6c", "#9c3c1f", "short", False, False, "none", "none")
SCENE = Scene(
    "vector", "smile", "t-shirt", "#c8262c", "none", "#000000", "#3f86e0", "#3f86e0", "plain", "bust", 0
)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(CLASSIFIER)


def test_the_frechet_distance_of_gaussians_is_the_formulas_own() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(0, 1, (40_000, 3))
    assert abs(frechet_distance(a, a)) < 1e-6
    # Axis-aligned: the sum of (difference of means)^2 + (difference of deviations)^2.
    b = rng.normal([2, 0, 0], [1, 3, 1], (40_000, 3))
    assert frechet_distance(a, b) == pytest.approx(4 + 4, rel=0.05)


def test_the_area_under_the_curve_is_the_chance_to_be_above() -> None:
    assert area_under_curve([3, 4], [1, 2]) == 1
    assert area_under_curve([1, 2], [1, 2]) == 0.5
    assert area_under_curve([1, 3], [2]) == 0.5


def test_psnr_is_ten_log_of_peak_over_error() -> None:
    black, gray = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 16, np.uint8)
    assert psnr(black, black) == float("inf")
    assert psnr(black, gray) == pytest.approx(20 * np.log10(255 / 16))


def test_thresholds_are_met_on_the_right_side() -> None:
    assert Threshold("share", 0.9).met(0.9)
    assert not Threshold("share", 0.9).met(0.89)
    assert Threshold("error", 2, most=True).met(2)
    assert not Threshold("error", 2, most=True).met(2.1)
    assert len({t.name for t in THRESHOLDS}) == len(THRESHOLDS)


def test_colors_are_measured_where_the_art_has_them() -> None:
    picture = styles.composite(styles.draw_rgba(PERSON, SCENE, 512), styles.background(SCENE, 512))
    assert color_distance(cheeks_of(picture), PERSON.skin) < 2
    assert color_distance(hair_of(picture), PERSON.hair_color) < 3
    assert color_distance(background_of(picture), SCENE.background) < 1
    assert color_distance(colors.rgb_to_lab(np.array([255.0, 0, 0])), "#00ff00") > 50


def test_hair_is_measured_on_every_head_that_has_some() -> None:
    for index in range(60):
        person, _ = draw.sample(5, index * 8)
        if person.hair_length == "bald":
            continue
        assert color_distance(hair_of(portrait(person)), person.hair_color) < 12, person


def test_what_a_drawing_cannot_show_is_neither_trained_nor_scored() -> None:
    hidden = unseen(
        replace(PERSON, glasses="sunglasses"), replace(SCENE, headwear="beanie", framing="close-up")
    )
    assert {"garment", "garment_color", "curly", "female"} <= hidden
    row = dict(zip(NAMES, truth(PERSON, SCENE), strict=True))
    assert row["headwear_color"] == -100
    assert NAMES["style"][row["style"]] == "vector"


def test_an_attribute_is_right_when_the_judge_sees_what_was_wished() -> None:
    picture = styles.composite(styles.draw_rgba(PERSON, SCENE, 256), styles.background(SCENE, 256))
    seen = names_of(PERSON, SCENE)
    wish = Wish("", picture, PERSON, SCENE, frozenset(JUDGED))
    assert all(right(key, wish, seen, picture) for key in JUDGED)
    assert not right("expression", wish, {**seen, "expression": "sad"}, picture)
    assert not right("background", wish, seen, np.zeros_like(picture))


def test_the_judge_tells_drawings_apart_as_well_as_its_file_says(judge: Judge) -> None:
    people = [draw.sample(123_457, index) for index in range(160)]
    pictures = [
        styles.composite(styles.draw_rgba(who, scene, 256), styles.background(scene, 256))
        for who, scene in people
    ]
    seen, features = judge.look(pictures)
    assert features.shape == (160, 256)
    for key in ("style", "expression", "female", "glasses", "beard", "headwear", "framing"):
        shown = [i for i, row in enumerate(people) if key not in unseen(*row)]
        share = np.mean([seen[i][key] == names_of(*people[i])[key] for i in shown])
        assert share > judge.accuracy[key] - 0.1, (key, share, judge.accuracy[key])
    assert np.mean([look["figure"] == "whole" for look in seen]) > 0.9
