"""Backgrounds: plain colours, gradients and large patterns in two colours. Knows no figure."""

from __future__ import annotations

import numpy as np

from faceavatar_export.toon import colors
from faceavatar_export.toon.identity import PATTERNS


def draw(pattern: str, first: np.ndarray, second: np.ndarray, height: int, width: int) -> np.ndarray:
    """float32 (height, width, 3) in 0..255 from a pattern's name and two (3,) colours.

    Patterns repeat with the picture's shorter side, eight cells to it, so that a codec of 64 px cells can
    hold them. A gradient runs from the first colour at the top to the second at the bottom.
    """
    side = min(height, width)
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / side
    x = (np.arange(width, dtype=np.float32)[None, :] + 0.5) / side
    mix: np.ndarray  # the second colour's share, 0..1
    if pattern == "gradient":
        mix = np.broadcast_to(y * side / height, (height, width))
    elif pattern == "stripes":
        mix = np.broadcast_to(np.floor(x * 8) % 2, (height, width))
    elif pattern == "checks":
        mix = (np.floor(x * 8) + np.floor(y * 8)) % 2
    elif pattern == "dots":
        # A dot of two thirds of a cell in every fourth quarter, rows shifted against each other.
        row = np.floor(y * 4)
        dx, dy = (x * 4 + 0.5 * (row % 2)) % 1 - 0.5, (y * 4) % 1 - 0.5
        mix = np.clip((0.3 - np.hypot(dx, dy)) * side / 4 + 0.5, 0, 1)
    else:
        mix = np.zeros((height, width), np.float32)
    mix = np.asarray(mix, np.float32)[..., None]
    return np.asarray(first * (1 - mix) + second * mix, np.float32)


def sample(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A backdrop for training codec and matting: named colours mostly, any colour sometimes."""
    named = [colors.hex_to_rgb(c) for c in colors.BACKGROUND_COLORS.values()]
    pick = [
        named[rng.integers(len(named))] if rng.random() < 0.7 else rng.uniform(0, 255, 3) for _ in range(2)
    ]
    pattern = str(rng.choice(PATTERNS, p=(0.6, 0.16, 0.08, 0.08, 0.08)))
    return draw(pattern, pick[0], pick[1], height, width)
