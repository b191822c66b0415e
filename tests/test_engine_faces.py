"""Which face of a photo an engine uses, and what it remembers of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from asking import PHOTO, ask, assert_same, difference, recorded
from numpy.typing import NDArray
from tiny_pack import photo

from faceavatar import AvatarEngine
from faceavatar.errors import (
    InvalidRequest,
)


@pytest.fixture(scope="module")
def two_faces() -> NDArray[np.uint8]:
    large = np.asarray(cv2.resize(photo("obama"), (700, 800)), np.uint8)
    small = np.asarray(cv2.resize(photo("astronaut"), (400, 400)), np.uint8)
    return np.hstack([np.pad(small, ((0, 400), (0, 0), (0, 0)), mode="edge"), large])


def test_of_several_faces_the_largest_is_used_and_the_others_are_told(
    engine: AvatarEngine, two_faces: NDArray[np.uint8]
) -> None:
    result = engine.generate(ask(image=two_faces))
    assert result.face.faces_found == 2
    assert result.face.bbox[0] > 400
    assert [box[0] < 400 for box in result.face.others] == [True]
    assert result.warnings == ("2 faces were found; the largest was used (face_index picks another)",)


def test_face_index_picks_another_face_by_size(engine: AvatarEngine, two_faces: NDArray[np.uint8]) -> None:
    first, second = (engine.generate(ask(image=two_faces, face_index=index)) for index in (0, 1))
    assert first.face.bbox[2] > second.face.bbox[2]
    assert second.warnings == ()
    assert difference(first.images[0], second.images[0]) > 3
    with pytest.raises(InvalidRequest, match=r"face_index: got 2, allowed 0\.\.1"):
        engine.generate(ask(image=two_faces, face_index=2))


def test_a_small_face_is_used_with_a_warning(engine: AvatarEngine) -> None:
    small = np.asarray(cv2.resize(photo("astronaut"), (128, 128), interpolation=cv2.INTER_AREA), np.uint8)
    (warning,) = engine.generate(ask(image=small)).warnings
    assert "pixels wide" in warning


def test_a_photo_and_a_prompt_seen_before_are_not_looked_at_again(tiny: Path) -> None:
    fresh = AvatarEngine.load(tiny, provider="cpu")
    with recorded(fresh) as sessions:
        first, second = fresh.generate(ask()), fresh.generate(ask(image=PHOTO.read_bytes()))
    assert len(sessions["embedder"].feeds) == 1
    assert len(sessions["text"].feeds) == 2
    assert second.timings["detect"] == 0
    assert_same(first, second)
