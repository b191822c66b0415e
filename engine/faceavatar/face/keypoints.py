"""The picture of a face's five points that InstantID's ControlNet looks at, and where the points come to lie.

Source: Wang et al., "InstantID", 2024 (arXiv:2401.07519), drawn as its community pipeline's draw_kps draws:
four limbs from the nose, darkened, and a disc on each point. Knows no photo and no net.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.floating]
Size = tuple[int, int]
Box = tuple[float, float, float, float]

NOSE = 2
COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))
LIMB_COLORS = ((153, 0, 0), (0, 153, 0), (0, 0, 153), (153, 153, 0), (153, 0, 153))  # 0.6 of those
LIMB_WIDTH, DISC_RADIUS = 4, 10


def draw_keypoints(landmarks: Points, size: Size) -> NDArray[np.uint8]:
    """uint8 RGB (H, W, 3) on black.

    landmarks: (5, 2) pixels of it, x then y: eyes, nose tip and mouth corners, left before right as seen;
    what lies outside is not seen. size: (H, W). Widths are pixels, whatever the size: so it was trained.
    """
    picture = np.zeros((*size, 3), np.uint8)
    points = np.asarray(landmarks)
    for index, (point, color) in enumerate(zip(points, LIMB_COLORS, strict=True)):
        if index == NOSE:
            continue
        # Whole pixels and degrees, cut off and not rounded, are the reference's, and so is this root.
        x, y = ((point + points[NOSE]) / 2).astype(int).tolist()
        along, down = point - points[NOSE]
        reach, angle = int((along**2 + down**2) ** 0.5 / 2), int(math.degrees(math.atan2(down, along)))
        limb = cv2.ellipse2Poly((x, y), (reach, LIMB_WIDTH), angle, 0, 360, 1)
        cv2.fillConvexPoly(picture, np.array(limb), color)
    for point, color in zip(points.astype(int).tolist(), COLORS, strict=True):
        cv2.circle(picture, tuple(point), DISC_RADIUS, color, -1)
    return picture


def place_landmarks(landmarks: Points, box: Box, photo: Size, drawn: Size) -> NDArray[np.float64]:
    """A photo's landmarks (5, 2) in pixels of a picture to draw, as if the photo were brought to its size.

    The photo is scaled to cover the picture and cropped in the middle, or as little beside it as keeps the
    face's box (x, y, width, height) inside. photo, drawn: (height, width). Where both have one aspect this is
    the reference's plain resizing.
    """
    scale = max(drawn[0] / photo[0], drawn[1] / photo[1])
    spans = ((box[0], box[2], photo[1], drawn[1]), (box[1], box[3], photo[0], drawn[0]))
    starts = [
        _window(length * scale, size, start * scale, (start + extent) * scale)
        for start, extent, length, size in spans
    ]
    placed: NDArray[np.float64] = np.asarray(landmarks, np.float64) * scale - np.array(starts)
    return placed


def _window(length: float, size: float, low: float, high: float) -> float:
    """Where a window of `size` begins in `length`: in the middle, moved until it holds low..high."""
    start = (length - size) / 2
    start = (low + high - size) / 2 if high - low > size else min(max(start, high - size), low)
    return min(max(start, 0.0), length - size)
