"""What photo-like heads wear: glasses, sunglasses, beanies and caps."""

from __future__ import annotations

import cv2
import numpy as np

from faceavatar_export.toon.identity import Identity
from faceavatar_export.toon.photo_canvas import EYES, SIZE, Canvas, Floats, blob, noise
from faceavatar_export.toon.photo_hair import Shape, ellipse, fill, line, outline

HEADWEAR = ("none", "beanie", "cap")
_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
_FRAMES = np.array(
    [[20, 20, 22], [70, 45, 25], [120, 30, 30], [130, 125, 120], [30, 40, 80], [190, 160, 90], [150, 90, 60]]
)
_LENSES = np.array([[12, 12, 14], [45, 28, 18], [25, 30, 45]])


def glasses(c: Canvas, rng: np.random.Generator, person: Identity, shape: Shape) -> None:
    """Frames around the eyes, from thin wire to heavy plastic, with what lenses mirror and frames shade."""
    if person.glasses == "none":
        return
    rx, ry, dy = rng.uniform(6, 8.6), rng.uniform(4, 7.4), rng.uniform(-0.5, 2)
    square, thick = rng.uniform(0.45, 1), rng.uniform(0.45, 1.5)
    frame = _FRAMES[int(rng.integers(len(_FRAMES)))] * rng.uniform(0.8, 1.2)
    dark = person.glasses == "sunglasses"
    lens = _LENSES[int(rng.integers(3))] if dark else np.full(3, 235.0)
    shine = 1 + np.float32(rng.uniform(0, 1.2)) * (_Y[..., None] - EYES[0][1]) / 12
    opacity = np.float32(rng.uniform(0.82, 1) if dark else rng.uniform(0, 0.15))
    whole_rim, browline = rng.random() < 0.85 or dark, rng.random() < 0.3
    for (x, y), side in zip(EYES, (-1, 1), strict=True):
        rim = ellipse(x + 0.8 * side, y + dy, rx, ry, square)
        shadow = np.roll(line(np.vstack([rim, rim[:1]]), 1.5), int(rng.integers(1, 3)), 0)
        c.shade(cv2.GaussianBlur(shadow, (0, 0), 1), rng.uniform(0.75, 1))
        area = fill(rim)
        c.paint(area * opacity, np.clip(lens * (shine if dark else 1), 0, 255))
        if rng.random() < 0.3:
            glare = blob(
                x + rng.normal(0, 3), y + dy + rng.normal(0, 2), rng.uniform(1, 4), rng.uniform(1, 3)
            )
            c.paint(area * glare * np.float32(rng.uniform(0.2, 0.9)), np.full(3, 240.0))
        c.paint(line(np.vstack([rim, rim[:1]]), thick) * np.float32(1 if whole_rim else 0.35), frame)
        if browline or not whole_rim:
            top = rim[(rim[:, 1] < y + dy) & (np.abs(rim[:, 0] - x) < rx * 1.2)]
            c.paint(line(top[np.argsort(top[:, 0])], thick * 1.6), frame * 0.8)
        arm = np.array([[x + (rx + 0.8) * side, y + dy - 1], [shape.cx + (shape.rx + 1) * side, y - 1]])
        c.paint(line(arm, thick), frame)
    c.paint(line(np.array([[62, 66 + dy], [64, 65 + dy], [66, 66 + dy]]), thick), frame)


def hat(c: Canvas, rng: np.random.Generator, kind: str, shape: Shape, color: Floats) -> None:
    """A beanie or a cap; high hair lies flat under it. "none" does nothing."""
    if kind == "none":
        return
    low = float(rng.uniform(49, 58))
    cloth = np.clip(color * (1 + (noise(rng, int(rng.integers(4, 60))) - 0.5)[..., None] * 0.4), 0, 255)
    cloth = cloth * (1.15 - 0.4 * np.abs(_X - shape.cx) / 40)[..., None]
    grow, tall = rng.uniform(2.5, 7), rng.uniform(0, 14)
    # The hair that stood where the hat is pressed down: the background is not known, so the hat is as wide.
    high = outline(shape, grow)
    high[:, 1] -= np.where(high[:, 1] < 60, tall * (60 - high[:, 1]) / 30, 0)
    c.paint(fill(high) * np.asarray(low > _Y, np.float32), cloth)
    wide = shape.rx + grow
    if kind == "beanie":
        band = rng.uniform(4, 10)
        rim = [[-1, low - band], [1, low - band], [1.03, low], [0, low - rng.uniform(0, 3)], [-1.03, low]]
        points = np.array([[shape.cx + x * wide, y] for x, y in rim])
        c.paint(fill(points), np.clip(cloth * rng.uniform(0.75, 1.3), 0, 255))
    else:
        brim, drop = cloth * rng.uniform(0.4, 1.1), rng.uniform(2, 6)
        aside = rng.normal(0, 4)
        points = ellipse(shape.cx + aside, low, wide * rng.uniform(0.85, 1.1), drop)
        c.paint(fill(points), np.clip(brim if rng.random() < 0.6 else np.full(3, 20.0), 0, 255))
        if rng.random() < 0.5:
            c.paint(blob(shape.cx, low - 12, 5, 4), np.asarray(rng.uniform(0, 255, 3)))
    under = np.asarray(np.exp(-np.clip(_Y - low, 0, None) / 3) * (low <= _Y), np.float32)
    c.shade(under * fill(outline(shape)), rng.uniform(0.45, 0.95))
