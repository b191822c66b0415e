"""Pictures whose cut-out is known: drawn avatars and synthetic hair, over backgrounds that no net was shown.

Foreground, alpha and background are made apart, so the truth is exact: alpha of drawings is the drawing's
own, strands of hair one to three pixels wide are drawn eight times as large and averaged down. Needs the
extras
`train` (the artist) and `bench` (scikit-image, whose photographs below are in the public domain or CC0).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from faceavatar_export.toon import backdrop, colors, styles
from faceavatar_export.toon.draw import sample

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
SEED = 907  # of people and scenes; the training of the toon pack uses 31, 41 and 71
SIDE = 512
SUPER = 8
# scikit-image's own words: CC0 or public domain, each of them.
TEXTURES = ("coffee", "rocket", "chelsea", "hubble_deep_field", "grass", "brick", "gravel", "retina")
KINDS = ("photo", "gradient", "noise", "near", "pattern")


@dataclass(frozen=True)
class Case:
    """image uint8 (H, W, 3); alpha float32 (H, W) and foreground float32 (H, W, 3) in 0..255: the truth."""

    name: str
    image: Bytes
    alpha: Floats
    foreground: Floats


def drawn(count: int) -> Iterator[Case]:
    """Drawn avatars of all styles in turn, over each kind of background in turn."""
    for index in range(count):
        identity, scene = sample(SEED, index)
        rgba = styles.draw_figure(identity, scene, SIDE, SIDE)
        alpha = np.asarray(rgba[..., 3] / 255, np.float32)
        kind = KINDS[(index // 2) % len(KINDS)]
        rng = np.random.default_rng((SEED, index, 3))
        back = background(kind, rgba, rng)
        yield _case(f"{index:02} {scene.style} on {kind}", alpha, rgba[..., :3].astype(np.float32), back)


def hair(count: int) -> Iterator[Case]:
    """Drawn heads with strands flying from them, over photographs, gradients and noise."""
    for index in range(count):
        identity, scene = sample(SEED, 1000 + 8 * index)  # of each eight, the first is in vector style
        scene = replace(scene, framing="bust", headwear="none")
        identity = replace(identity, hair_length="short", curly=False, bun=False)
        rgba = styles.draw_figure(identity, scene, SIDE, SIDE)
        rng = np.random.default_rng((SEED, index, 4))
        alpha, color = with_strands(rgba, colors.hex_to_rgb(identity.hair_color), rng)
        kind = ("photo", "photo", "gradient", "noise")[index % 4]
        yield _case(f"{index:02} hair on {kind}", alpha, color, background(kind, rgba, rng))


def _case(name: str, alpha: Floats, color: Floats, back: Floats) -> Case:
    share = alpha[..., None]
    image = np.rint(color * share + back * (1 - share)).astype(np.uint8)
    return Case(name, image, alpha, color)


def with_strands(rgba: Bytes, color: NDArray[np.float64], rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Alpha (H, W) and colours (H, W, 3) of a figure with 120 strands that start at its head."""
    side = rgba.shape[0]
    figure = rgba[..., 3:].astype(np.float32) / 255
    solid, total = figure[..., 0].copy(), rgba[..., :3] * figure
    rows, columns = np.nonzero(rgba[..., 3] > 250)
    top, middle = rows.min(), float(np.median(columns[rows < rows.min() + side // 8]))
    reach = side * 0.16
    for _ in range(120):
        angle = rng.uniform(-np.pi * 0.98, -np.pi * 0.02)
        start = np.array([middle + np.cos(angle) * reach, top + reach * 1.15 + np.sin(angle) * reach])
        end = start + np.array([np.cos(angle), np.sin(angle)]) * rng.uniform(0.03, 0.12) * side
        bend = rng.normal(0, 0.03, 2) * side
        along = np.linspace(0, 1, 48)[:, None]
        curve = (1 - along) ** 2 * start + 2 * along * (1 - along) * (start + end + bend) / 2 + along**2 * end
        strand = _line(curve, rng.uniform(1, 3), side)
        shade = np.clip(color + rng.normal(0, 10, 3), 0, 255)
        # Over what is there already; colours are kept premultiplied until the end.
        total = total * (1 - strand[..., None]) + shade * strand[..., None]
        solid = solid * (1 - strand) + strand
    plain = np.where(solid[..., None] > 1e-3, total / np.maximum(solid[..., None], 1e-3), color)
    return solid.astype(np.float32), np.clip(plain, 0, 255).astype(np.float32)


def _line(curve: NDArray[np.float64], width: float, side: int) -> Floats:
    """How much of each pixel a curve covers."""
    canvas = np.zeros((side * SUPER, side * SUPER), np.uint8)
    points = np.rint(curve * SUPER).astype(np.int32)
    cv2.polylines(canvas, [points], False, 255, max(1, round(width * SUPER)), cv2.LINE_8)
    covered = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(covered / 255, np.float32)


def background(kind: str, rgba: Bytes, rng: np.random.Generator) -> Floats:
    """float32 (S, S, 3) in 0..255."""
    side = rgba.shape[0]
    if kind == "photo":
        return _texture(side, rng)
    if kind == "near":  # within a step of what most of the rim is painted in
        rim = (rgba[..., 3] > 250) & (cv2.erode(rgba[..., 3], np.ones((9, 9), np.uint8)) < 250)
        near = rgba[..., :3][rim][rng.integers(int(rim.sum()))].astype(np.float64)
        first = np.clip(near + rng.choice([-1, 1]) * rng.uniform(18, 30, 3), 0, 255)
        return backdrop.draw("gradient", first, first * 0.9, side, side)
    pair = [rng.uniform(0, 255, 3) for _ in range(2)]
    if kind == "noise":
        grain = rng.normal(0, rng.uniform(10, 45), (side, side, 3))
        return np.clip(pair[0] + grain, 0, 255).astype(np.float32)
    pattern = "gradient" if kind == "gradient" else str(rng.choice(("stripes", "dots", "checks")))
    return backdrop.draw(pattern, pair[0], pair[1], side, side)


def _texture(side: int, rng: np.random.Generator) -> Floats:
    picture = _photograph(str(rng.choice(TEXTURES)))
    height, width = picture.shape[:2]
    part = int(min(height, width) * rng.uniform(0.6, 1.0))
    y, x = int(rng.integers(height - part + 1)), int(rng.integers(width - part + 1))
    crop = picture[y : y + part, x : x + part]
    return cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)


@cache
def _photograph(name: str) -> Bytes:
    """From the files that scikit-image's package itself carries, uint8 (H, W, 3)."""
    import skimage.data

    picture = np.asarray(getattr(skimage.data, name)())
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
