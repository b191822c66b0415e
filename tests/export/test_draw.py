"""Drawn sets: the same bytes each time, whatever the number of processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from faceavatar_export.toon import styles
from faceavatar_export.toon.draw import draw_set, load_scenes, sample
from faceavatar_export.toon.identity import STYLES, embed

COUNT, SIZE = 6, 32
FILES = ("pictures.npy", "embeddings.npy", "scenes.jsonl")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    draw_set(folder, COUNT, SIZE, seed=5, alpha=False, processes=1)
    return folder


def test_a_set_is_the_same_for_one_and_two_processes(drawn: Path, tmp_path: Path) -> None:
    draw_set(tmp_path, COUNT, SIZE, seed=5, alpha=False, processes=2)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (drawn / name).read_bytes(), name


def test_pictures_embeddings_and_scenes_belong_together(drawn: Path) -> None:
    pictures, embeddings = np.load(drawn / "pictures.npy"), np.load(drawn / "embeddings.npy")
    people = load_scenes(drawn)
    assert pictures.shape == (COUNT, SIZE, SIZE, 3)
    assert pictures.dtype == np.uint8
    assert embeddings.shape == (COUNT, 24)
    assert embeddings.dtype == np.float32
    assert people == [sample(5, i) for i in range(COUNT)]
    for i, (identity, scene) in enumerate(people):
        rgba = styles.draw_rgba(identity, scene, SIZE)
        expected = styles.composite(rgba, styles.background(scene, SIZE))
        np.testing.assert_array_equal(pictures[i], expected)
        np.testing.assert_array_equal(embeddings[i], embed(identity))


def test_eight_pictures_running_show_one_person_in_every_style() -> None:
    people = [sample(5, i) for i in range(9)]
    assert len({identity for identity, _ in people[:8]}) == 1
    assert {scene.style for _, scene in people[:8]} == set(STYLES)
    assert len({scene for _, scene in people[:8]}) == 8
    assert people[8][0] != people[7][0]


def test_an_alpha_set_holds_figures_without_their_background(tmp_path: Path) -> None:
    draw_set(tmp_path, 2, SIZE, seed=5, alpha=True, processes=1)
    pictures = np.load(tmp_path / "pictures.npy")
    assert pictures.shape == (2, SIZE, SIZE, 4)
    for picture, (identity, scene) in zip(pictures, load_scenes(tmp_path), strict=True):
        np.testing.assert_array_equal(picture, styles.draw_rgba(identity, scene, SIZE))


def test_another_seed_draws_another_set(drawn: Path, tmp_path: Path) -> None:
    draw_set(tmp_path, 1, SIZE, seed=6, alpha=False, processes=1)
    assert load_scenes(tmp_path)[0] != load_scenes(drawn)[0]
