"""Turns a face upright and crops it, by a similarity transform from its five landmarks to a template.

Two kinds: "arcface", the tight crop that recognition nets and IP-Adapter-FaceID were trained on, the very
one of insightface's norm_crop; and "head", the same pose seen from further away, with hair, chin, neck and
some shoulder inside. Source of the estimate: Umeyama, "Least-squares estimation of transformation
parameters between two point patterns", 1991.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

ARCFACE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
HEAD_112 = (ARCFACE_112 - 56.0) * 0.42 + np.array([56.0, 60.0])
TEMPLATES = {"arcface": ARCFACE_112, "head": HEAD_112}


def align(
    image: NDArray[np.uint8], landmarks: NDArray[np.floating], kind: str, size: int
) -> NDArray[np.uint8]:
    """Crop a face to uint8 RGB (size, size, 3).

    image: uint8 RGB (H, W, 3). landmarks: (5, 2) pixels of it. kind: "arcface" or "head". What lies outside
    the picture is black in "arcface" and repeats the border in "head".
    """
    matrix, border = similarity(landmarks, template(kind, size)), cv2.BORDER_CONSTANT
    if kind == "head":
        border = cv2.BORDER_REPLICATE
        image, matrix = _shrink_first(image, matrix)
    crop = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)
    return np.asarray(crop, np.uint8)


def template(kind: str, size: int) -> NDArray[np.float64]:
    """Where the five landmarks come to lie in a crop of this size, (5, 2) pixels.

    In "arcface", sizes that 112 does not divide are those of the 128-pixel crop, which has 8 pixels more on
    each side: so it is in insightface, and SDXL's FaceID-Plus was trained at 256.
    """
    if kind == "head" or size % 112 == 0:
        return np.asarray(TEMPLATES[kind] * (size / 112.0))
    return np.asarray((ARCFACE_112 + np.array([8.0, 0.0])) * (size / 128.0))


def similarity(source: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.float64]:
    """The rotation, uniform scale and shift (2, 3) that bring source (N, 2) nearest to target (N, 2)."""
    points, wanted = np.asarray(source, np.float64), np.asarray(target, np.float64)
    centre, wanted_centre = points.mean(0), wanted.mean(0)
    points, wanted = points - centre, wanted - wanted_centre
    # In two dimensions the least-squares similarity is one complex ratio, and never a reflection.
    power = float((points**2).sum())
    cosine = float((points * wanted).sum()) / power
    sine = float((points[:, 0] * wanted[:, 1] - points[:, 1] * wanted[:, 0]).sum()) / power
    linear = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([linear, wanted_centre - linear @ centre])


def _shrink_first(
    image: NDArray[np.uint8], matrix: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Average pixels before a strong reduction, where bilinear sampling alone would skip most of them."""
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale >= 0.5:
        return image, matrix
    height, width = image.shape[:2]
    small_width, small_height = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, (small_width, small_height), interpolation=cv2.INTER_AREA)
    x_scale, y_scale = width / small_width, height / small_height
    back = np.array([[x_scale, 0, (x_scale - 1) / 2], [0, y_scale, (y_scale - 1) / 2], [0, 0, 1]])
    return np.asarray(small, np.uint8), matrix @ back
