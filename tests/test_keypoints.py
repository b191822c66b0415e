"""The picture of the face's points equals the published drawing, and the points lie where the face is."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import tiny_pack
from numpy.typing import NDArray

from faceavatar.face.detect import FaceDetector
from faceavatar.face.keypoints import draw_keypoints, place_landmarks
from faceavatar.image import fit_to

FACE = np.array([[200.4, 190.7], [300.2, 185.1], [255.9, 250.3], [210.8, 300.6], [295.5, 296.2]])


def published_drawing(points: NDArray[np.floating], height: int, width: int) -> NDArray[np.uint8]:
    """draw_kps as InstantID's pipeline describes it: floats, a limb at a time, the whole times 0.6, discs."""
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255)]
    canvas = np.zeros([height, width, 3])
    for pair in ([0, 2], [1, 2], [3, 2], [4, 2]):
        xs, ys = points[pair][:, 0], points[pair][:, 1]
        long = ((xs[0] - xs[1]) ** 2 + (ys[0] - ys[1]) ** 2) ** 0.5
        turn = math.degrees(math.atan2(ys[0] - ys[1], xs[0] - xs[1]))
        middle = (int(np.mean(xs)), int(np.mean(ys)))
        polygon = cv2.ellipse2Poly(middle, (int(long / 2), 4), int(turn), 0, 360, 1)
        canvas = cv2.fillConvexPoly(canvas.copy(), polygon, colors[pair[0]])
    drawn = (canvas * 0.6).astype(np.uint8)
    for number, (x, y) in enumerate(points):
        drawn = cv2.circle(drawn.copy(), (int(x), int(y)), 10, colors[number], -1)
    return drawn.astype(np.uint8)


@pytest.mark.parametrize("seed", range(40))
def test_the_picture_equals_the_published_drawing_pixel_for_pixel(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = (int(side) for side in random.integers(256, 400, 2))
    points = FACE if seed == 0 else random.uniform(-40, 440, (5, 2))  # also beyond the border
    if seed % 4 == 1:
        points = points.astype(np.float32)  # as detectors give them
    if seed % 4 == 2:
        points = np.rint(points / 12) * [9, 12]  # whole numbers, sides of 3, 4 and 5 among them
    got = draw_keypoints(points, (height, width))
    assert got.dtype == np.uint8
    assert got.any()
    np.testing.assert_array_equal(got, published_drawing(points, height, width))


def test_a_square_photo_drawn_square_is_only_scaled() -> None:
    placed = place_landmarks(FACE, (150, 120, 200, 240), (512, 512), (1024, 1024))
    np.testing.assert_allclose(placed, 2 * FACE)


def test_a_photo_of_another_aspect_is_covered_and_cropped_in_the_middle() -> None:
    wide = place_landmarks(FACE + np.array([256, 0]), (406, 120, 200, 240), (512, 1024), (256, 256))
    np.testing.assert_allclose(wide, FACE / 2)
    tall = place_landmarks(FACE + np.array([0, 100]), (150, 220, 200, 240), (712, 512), (512, 512))
    np.testing.assert_allclose(tall, FACE)


def test_the_crop_moves_no_further_than_it_must_to_hold_the_face() -> None:
    points = np.array([[30.0, 60], [70, 60], [50, 80], [35, 100], [65, 100]])
    left = place_landmarks(points, (10, 30, 80, 100), (512, 1024), (512, 512))
    np.testing.assert_allclose(left, points - [10, 0])
    right = place_landmarks(points + np.array([900, 0]), (910, 30, 80, 100), (512, 1024), (512, 512))
    np.testing.assert_allclose(right, points + np.array([900 - 478, 0]))
    beyond = place_landmarks(points - [20, 0], (-10, 30, 80, 100), (512, 1024), (512, 512))
    np.testing.assert_allclose(beyond, points - [20, 0])  # there is no photo further left


def test_a_face_wider_than_the_crop_stays_in_its_middle() -> None:
    points = np.array([[300.0, 200], [700, 200], [500, 300], [350, 400], [650, 400]])
    placed = place_landmarks(points, (240, 50, 600, 420), (512, 1024), (512, 512))
    np.testing.assert_allclose(placed, points - [284, 0])


@pytest.mark.parametrize("size", [(512, 384), (400, 512), (300, 300), (1024, 768)])
def test_landmarks_lie_where_a_detector_finds_them_in_the_photo_brought_to_that_size(
    size: tuple[int, int],
) -> None:
    photo = tiny_pack.photo("astronaut")
    detector = FaceDetector(tiny_pack.TOON / tiny_pack.DETECTOR)
    face = detector.detect(photo).faces[0]
    placed = place_landmarks(face.landmarks, face.bbox, photo.shape[:2], size)
    again = detector.detect(fit_to(photo, *size, "cover")).faces[0]
    assert np.abs(placed - again.landmarks).max() < 0.01 * max(size)
