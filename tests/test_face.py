"""Faces: found at any size, the largest first, and turned upright the same way every time."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from faceavatar.adapter import FaceAdapter
from faceavatar.errors import NoFaceFound, NumericalError
from faceavatar.face.align import ARCFACE_112, HEAD_112, align, similarity
from faceavatar.face.detect import FaceDetector
from faceavatar.face.embed import FaceEmbedder
from faceavatar.pack import Pack

PHOTOS = Path(__file__).parent / "fixtures" / "photos"
MODEL = Path(__file__).parents[1] / "engine" / "faceavatar" / "packs" / "toon" / "face_detection_yunet.onnx"


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(MODEL)


def photo(name: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(PHOTOS / f"{name}.jpg").convert("RGB"))


@pytest.mark.parametrize("name", ["astronaut", "macron", "ardern", "obama"])
def test_the_face_of_each_photo_is_found_at_the_first_try(detector: FaceDetector, name: str) -> None:
    found = detector.detect(photo(name))
    assert len(found.faces) == 1
    assert found.attempt == "640"
    assert found.faces[0].score > 0.9


def test_landmarks_are_ordered_left_to_right_as_seen_and_eyes_above_the_mouth(detector: FaceDetector) -> None:
    left_eye, right_eye, nose, left_mouth, right_mouth = detector.detect(photo("obama")).faces[0].landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


@pytest.mark.parametrize("scale", [0.25, 0.5, 2.0])
def test_coordinates_are_those_of_the_picture_whatever_its_size(detector: FaceDetector, scale: float) -> None:
    image = photo("macron")
    whole = detector.detect(image).faces[0]
    resized = detector.detect(np.asarray(cv2.resize(image, None, fx=scale, fy=scale), np.uint8)).faces[0]
    np.testing.assert_allclose(resized.landmarks / scale, whole.landmarks, atol=8)


def test_the_largest_face_comes_first_whichever_side_it_is_on(detector: FaceDetector) -> None:
    small, large = photo("astronaut"), np.asarray(cv2.resize(photo("astronaut"), None, fx=2, fy=2), np.uint8)
    small = np.pad(small, ((0, 512), (0, 0), (0, 0)))
    for pair in (np.hstack([small, large]), np.hstack([large, small])):
        found = detector.detect(pair)
        assert len(found.faces) == 2
        assert found.faces[0].area > 3 * found.faces[1].area


def test_a_crop_without_any_margin_is_found_in_the_padded_copy(detector: FaceDetector) -> None:
    image = photo("astronaut")
    x, y, width, height = (round(value) for value in detector.detect(image).faces[0].bbox)
    crop = image[y : y + height, x : x + width]
    tiny = np.asarray(cv2.resize(crop, (9, 11), interpolation=cv2.INTER_AREA), np.uint8)
    found = detector.detect(tiny)
    assert found.attempt.startswith("padded")
    left, top, face_width, face_height = found.faces[0].bbox
    assert -3 < left < left + face_width < 12
    assert -3 < top < top + face_height < 14


@pytest.mark.parametrize("name", ["astronaut", "macron", "ardern", "obama"])
@pytest.mark.parametrize("margin", [0.0, -0.1])
def test_a_close_crop_is_seen_as_well_as_the_whole_photo(
    detector: FaceDetector, name: str, margin: float
) -> None:
    image = photo(name)
    whole = detector.detect(image).faces[0]
    x, y, width, height = whole.bbox
    left, top = round(x - margin * width), round(y - margin * height)
    right, bottom = round(x + (1 + margin) * width), round(y + (1 + margin) * height)
    corner = np.array([left, top])
    found = detector.detect(np.ascontiguousarray(image[top:bottom, left:right]))
    apart = np.linalg.norm(found.faces[0].landmarks + corner - whole.landmarks, axis=1).mean()
    assert len(found.faces) == 1
    assert apart < 0.08 * np.linalg.norm(whole.landmarks[1] - whole.landmarks[0])


def test_a_face_is_found_tiny_tilted_lying_and_in_a_huge_photo(detector: FaceDetector) -> None:
    image = photo("obama")
    tiny = cv2.resize(image, (56, 64), interpolation=cv2.INTER_AREA)
    huge = cv2.resize(image, None, fx=6, fy=6)
    tilted = np.asarray(Image.fromarray(image).rotate(20, expand=True))
    for picture in (tiny, huge, tilted, np.ascontiguousarray(np.rot90(image))):
        assert len(detector.detect(np.asarray(picture, np.uint8)).faces) == 1


def test_faces_side_by_side_are_all_told(detector: FaceDetector) -> None:
    four = np.hstack([photo(name)[:512] for name in ("astronaut", "macron", "ardern", "obama")])
    assert len(detector.detect(four).faces) == 4


def test_a_picture_without_a_face_says_its_size_and_what_was_tried(detector: FaceDetector) -> None:
    with pytest.raises(
        NoFaceFound, match=r"400x300 picture \(tried 640, 320, 1024, padded 640, padded 320 px\)"
    ):
        detector.detect(np.full((300, 400, 3), 90, np.uint8))


def test_detection_gives_the_same_numbers_twice(detector: FaceDetector) -> None:
    first, second = (detector.detect(photo("ardern")).faces[0] for _ in range(2))
    assert first.bbox == second.bbox
    np.testing.assert_array_equal(first.landmarks, second.landmarks)


def test_the_similarity_recovers_a_known_rotation_scale_and_shift() -> None:
    angle, scale = 0.3, 2.5
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = ARCFACE_112 @ linear.T + [7, -3]
    np.testing.assert_allclose(similarity(ARCFACE_112, moved), np.column_stack([linear, [7, -3]]), atol=1e-12)


def test_the_similarity_agrees_with_a_general_least_squares_solver() -> None:
    points = np.random.default_rng(0).normal(size=(5, 2)) * 40 + 200
    ones, zeros = np.ones(5), np.zeros(5)
    rows = np.vstack(
        [
            np.column_stack([points[:, 0], -points[:, 1], ones, zeros]),
            np.column_stack([points[:, 1], points[:, 0], zeros, ones]),
        ]
    )
    a, b, x, y = np.linalg.lstsq(rows, ARCFACE_112.T.ravel())[0]
    np.testing.assert_allclose(similarity(points, ARCFACE_112), [[a, -b, x], [b, a, y]], atol=1e-9)


@pytest.mark.parametrize(("kind", "template"), [("arcface", ARCFACE_112), ("head", HEAD_112)])
@pytest.mark.parametrize(("turn", "scale"), [(0, 1.0), (0.9, 0.6), (-2.5, 3.0), (0.2, 9.0)])
def test_five_dots_anywhere_at_any_turn_and_scale_land_on_the_template(
    kind: str, template: NDArray[np.float64], turn: float, scale: float
) -> None:
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    dots = (template - 56) @ linear.T + 600
    for index, (x, y) in enumerate(dots):
        rows, columns = np.mgrid[:1200, :1200]
        spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (1.2 * scale) ** 2))
        picture = np.repeat(np.round(spot * 255)[..., None], 3, 2).astype(np.uint8)
        crop = align(picture, dots.astype(np.float32), kind, 112)[..., 0].astype(float)
        found = [(crop * grid).sum() / crop.sum() for grid in np.mgrid[:112, :112]]
        np.testing.assert_allclose(found[::-1], template[index], atol=0.15)


@pytest.mark.parametrize("turn", [0, 20, -20])
def test_a_tilted_head_is_upright_after_alignment(detector: FaceDetector, turn: float) -> None:
    image = photo("macron")
    height, width = image.shape[:2]
    rotation = cv2.getRotationMatrix2D((width / 2, height / 2), turn, 0.7)
    turned = np.asarray(cv2.warpAffine(image, rotation, (width, height)), np.uint8)
    crop = align(turned, detector.detect(turned).faces[0].landmarks, "head", 224)
    assert crop.shape == (224, 224, 3)
    np.testing.assert_allclose(detector.detect(crop).faces[0].landmarks, HEAD_112 * 2, atol=224 * 0.04)


def test_a_large_photo_and_its_small_copy_align_to_nearly_the_same_crop(detector: FaceDetector) -> None:
    large = photo("obama")
    small = np.asarray(cv2.resize(large, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
    landmarks = detector.detect(large).faces[0].landmarks
    crops = [align(large, landmarks, "head", 64), align(small, (landmarks + 0.5) / 2 - 0.5, "head", 64)]
    assert np.abs(crops[0].astype(float) - crops[1]).mean() < 3


def test_what_lies_outside_the_photo_repeats_its_border(detector: FaceDetector) -> None:
    image = photo("astronaut")
    landmarks = detector.detect(image).faces[0].landmarks
    image = image.copy()
    image[:8] = (10, 200, 30)
    top = align(image, landmarks - [0, 150], "head", 128)[0]
    np.testing.assert_array_equal(np.unique(top.reshape(-1, 3), axis=0), [[10, 200, 30]])


def test_an_encoder_that_wants_bgr_gets_it(tiny: Path) -> None:
    pack = Pack.load(tiny)
    settings, session = pack.manifest.face.encoder, pack.open("face_encoder", "cpu")
    crop = photo("astronaut")[60:188, 160:288]
    turned = FaceEmbedder(session, settings.model_copy(update={"color": "BGR"}))
    plain = FaceEmbedder(session, settings)
    assert plain.embed(crop).shape == (1, pack.manifest.face.adapter.embedding_size)
    np.testing.assert_array_equal(turned.embed(crop), plain.embed(np.ascontiguousarray(crop[..., ::-1])))
    assert not np.allclose(turned.embed(crop), plain.embed(crop), atol=0.01)


def test_an_adapter_that_wants_unit_length_gets_it(tiny: Path) -> None:
    pack = Pack.load(tiny)
    settings, session = pack.manifest.face.adapter, pack.open("face_projection", "cpu")
    adapter = FaceAdapter(session, settings.model_copy(update={"normalize": True}))
    embeds = np.random.default_rng(0).normal(size=(1, settings.embedding_size)).astype(np.float32)
    np.testing.assert_allclose(adapter.tokens(embeds), adapter.tokens(embeds * 7), atol=1e-5)
    with pytest.raises(NumericalError, match="face_projection"):
        FaceAdapter(session, settings).tokens(embeds * np.float32(np.nan))
