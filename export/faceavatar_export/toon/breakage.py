"""Breaks drawings as a bad model would: for a classifier that must know a broken avatar when it sees one."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from faceavatar_export.toon import colors, styles
from faceavatar_export.toon.identity import Identity, Scene

Picture = NDArray[np.uint8]


def break_picture(picture: Picture, identity: Identity, scene: Scene, rng: np.random.Generator) -> Picture:
    """uint8 (S, S, 3) -> the same without a head, with two, without eyes or mouth, or with a smeared face."""
    points = styles.landmarks(scene, picture.shape[0])
    ways = ["head", "twins", "smear"]
    if identity.glasses == "none":
        ways.append("eyes")
    if identity.beard == "none":
        ways.append("mouth")
    way = ways[int(rng.integers(len(ways)))]
    if way == "twins":
        return _twins(picture, rng)
    if way == "head":
        return _without_head(picture, points)
    if way == "smear":
        return _smeared(picture, points, rng)
    return _covered(picture, points, identity, way)


def _reach(points: NDArray[np.float64]) -> float:
    """The distance of the eyes, in pixels."""
    return float(np.linalg.norm(points[1] - points[0]))


def _without_head(picture: Picture, points: NDArray[np.float64]) -> Picture:
    """The head painted over with the colours beside it, row by row."""
    out, reach = picture.copy(), _reach(points)
    middle = points.mean(0)
    bottom = min(int(middle[1] + 1.5 * reach), len(out))
    out[:bottom] = out[:bottom, :1]
    return out


def _twins(picture: Picture, rng: np.random.Generator) -> Picture:
    """Two figures side by side: both squeezed into half the width, or their middles cut out."""
    side = picture.shape[0]
    if rng.random() < 0.5:
        half = cv2.resize(picture, (side // 2, side), interpolation=cv2.INTER_AREA)
    else:
        half = picture[:, side // 4 : side // 4 + side // 2]
    return np.concatenate([half, half[:, ::-1] if rng.random() < 0.5 else half], axis=1).astype(np.uint8)


def _smeared(picture: Picture, points: NDArray[np.float64], rng: np.random.Generator) -> Picture:
    """The face blurred until nothing of it is left."""
    out, reach = picture.copy(), _reach(points)
    low = np.maximum(points.min(0) - 0.7 * reach, 0).astype(int)
    high = np.minimum(points.max(0) + 0.5 * reach, len(out)).astype(int)
    box = (slice(low[1], high[1]), slice(low[0], high[0]))
    sigma = float(rng.uniform(0.3, 0.5)) * reach
    out[box] = cv2.GaussianBlur(picture, (0, 0), max(sigma, 1.0))[box]
    return out


def _covered(picture: Picture, points: NDArray[np.float64], identity: Identity, what: str) -> Picture:
    """Eyes or mouth under a patch of skin."""
    out, reach = picture.copy(), _reach(points)
    skin = colors.hex_to_rgb(identity.skin)
    if what == "eyes":
        patches = [(points[0], 0.42, 0.5), (points[1], 0.42, 0.5)]
    else:
        patches = [((points[3] + points[4]) / 2, 0.62, 0.36)]
    for (x, y), wide, high in patches:
        rows = slice(max(0, int(y - high * reach)), int(y + high * reach) + 1)
        columns = slice(max(0, int(x - wide * reach)), int(x + wide * reach) + 1)
        out[rows, columns] = skin
    return out
