"""Surfaces like those that photographs show, made from nothing: tiles, specks, streaks, blotches.

For training: a net that saw flat patterns alone is unsure of its edges before walls, grass or a night sky.
Knows no figure.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

FIELD = 640  # pixels a side of what is drawn straight, before it is turned, and cut to size
POOL = 240  # surfaces, 1.2 MB each: drawing one takes ten times as long as turning it
Surface = Callable[[np.random.Generator], np.ndarray]


def texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 (size, size, 3): one of the surfaces, turned, seen from an angle, lit unevenly."""
    surface = _surface(int(rng.integers(POOL)))[..., rng.permutation(3)]
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.68)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    seen = 0.5 + (corners - 0.5) * reach @ turn.T + rng.uniform(-0.06, 0.06, (4, 2))
    matrix = cv2.getPerspectiveTransform(np.asarray(seen * FIELD, np.float32), corners * size)
    picture = cv2.warpPerspective(
        surface, matrix, (size, size), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT_101
    )
    light = _clouds(size, 4, rng) * rng.uniform(0, 0.8) + rng.uniform(0.3, 1.0)
    return np.asarray(np.clip(picture * light[..., None], 0, 255), np.uint8)


@lru_cache(maxsize=POOL)
def _surface(index: int) -> np.ndarray:
    """One of the pool, uint8 (FIELD, FIELD, 3)."""
    return np.asarray(SURFACES[index % len(SURFACES)](np.random.default_rng((83, index))))


def _clouds(size: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth float32 (size, size) of 0..1 or a little beyond."""
    grid = rng.random((cells, cells), np.float32)
    return np.asarray(cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)


def _color(rng: np.random.Generator) -> np.ndarray:
    """Grey-ish mostly, as most things are."""
    grey = rng.uniform(0, 255)
    return np.asarray(np.clip(grey + rng.normal(0, 1, 3) * rng.choice([4, 25, 90]), 0, 255))


def _tiles(rng: np.random.Generator) -> np.ndarray:
    """Bricks, slabs, planks: rows of boxes, each a shade of its own, with joints between."""
    tall = int(rng.integers(12, 90))
    wide = int(np.clip(tall * rng.uniform(0.7, 6), 12, 400))
    joint, shade = int(rng.integers(1, max(2, tall // 5))), rng.uniform(0, 25)
    body, gap = _color(rng), _color(rng)
    field = np.empty((FIELD, FIELD, 3), np.float32)
    field[:] = gap
    for row, top in enumerate(range(0, FIELD, tall)):
        shift = int((row % 2) * wide * 0.5 + rng.integers(0, max(1, wide // 8)))
        for left in range(-shift, FIELD, wide):
            box = field[top : top + tall - joint, max(0, left) : max(0, left + wide - joint)]
            box[:] = body + rng.normal(0, 1) * shade
    return _rough(field, rng)


def _specks(rng: np.random.Generator) -> np.ndarray:
    """Stars, pebbles, leaves: many small discs of many sizes, few of them large."""
    field = np.empty((FIELD, FIELD, 3), np.float32)
    field[:] = _color(rng)
    ground, kin = _color(rng), rng.uniform(5, 80)
    largest = rng.uniform(3, 40)
    for _ in range(int(rng.integers(60, 700))):
        radius = max(1, round(largest * rng.random() ** 3))
        center = [int(v) for v in rng.integers(0, FIELD, 2)]
        color = np.clip(ground + rng.normal(0, kin, 3), 0, 255).tolist()
        axes = (radius, max(1, round(radius * rng.uniform(0.5, 1))))
        cv2.ellipse(field, center, axes, float(rng.uniform(0, 180)), 0, 360, color, -1, cv2.LINE_AA)
    if rng.random() < 0.5:
        field = np.asarray(cv2.GaussianBlur(field, (0, 0), float(rng.uniform(0.5, 3))), np.float32)
    return _rough(field, rng)


def _streaks(rng: np.random.Generator) -> np.ndarray:
    """Grass, fur, cloth, wood: noise drawn out along one way."""
    long, thin = int(rng.integers(8, 80)) * 2 + 1, float(rng.uniform(0.5, 2.5))
    noise = rng.standard_normal((FIELD, FIELD), np.float32)
    noise = np.asarray(cv2.GaussianBlur(cv2.blur(noise, (long, 1)), (0, 0), thin), np.float32)
    mix = np.clip(0.5 + noise / (noise.std() + 1e-6) * rng.uniform(0.1, 0.4), 0, 1)[..., None]
    return _rough(np.asarray(_color(rng) * (1 - mix) + _color(rng) * mix, np.float32), rng)


def _blotches(rng: np.random.Generator) -> np.ndarray:
    """Stone, foliage, things out of focus: three colours in clouds of every scale, sharply parted or not."""
    field = np.empty((FIELD, FIELD, 3), np.float32)
    field[:] = _color(rng)
    for _ in range(2):
        mix, rough = np.zeros((FIELD, FIELD), np.float32), rng.uniform(0.5, 1.0)
        for octave in range(2, 8):
            mix += rough**octave * (_clouds(FIELD, 2**octave, rng) - 0.5)
        sharp = rng.choice([1.0, 3.0, 12.0])
        mix = np.clip(0.5 + sharp * mix / (4 * mix.std() + 1e-6), 0, 1)[..., None]
        field = np.asarray(field * (1 - mix) + _color(rng) * mix, np.float32)
    return _rough(field, rng)


def _rough(field: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """With the grain that every surface has, uint8."""
    fine = cv2.resize(rng.standard_normal((FIELD // 2, FIELD // 2), np.float32), (FIELD, FIELD))
    field = field + (fine * rng.choice([0.0, 3.0, 10.0, 25.0]))[..., None]
    return np.asarray(np.clip(field, 0, 255), np.uint8)


SURFACES: tuple[Surface, ...] = (_tiles, _specks, _streaks, _blotches)
