"""Batches for the matting net: cut-out figures, moved, recoloured and softened, over all kinds of background.

Figures are uint8 (N, S, S, 4) with straight alpha: drawings, or pictures that a pack made, keyed out of plain
backgrounds (keyed_figures.py). Alpha is exact because it is known before the composite is made, and suffers
what the composite suffers. Knows no net.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from faceavatar_export.toon import backdrop, colors
from faceavatar_export.toon.textures import texture

Floats = np.ndarray
KINDS = ("own", "near", "clouds", "shapes", "grain", "texture")
SHARES = (0.32, 0.14, 0.08, 0.12, 0.08, 0.26)
MOVED, SOFTENED, TINTED, LOOSE = 0.4, 0.45, 0.3, 0.12  # how many figures are changed so
STRANDS = (6, 100)  # of loose hair, at least and at most
FINER = 4  # times as large are strands drawn
# Standard noise times 32, for pictures of up to 1024 a side; drawing it anew costs more than a training step.
GRAIN = np.clip(np.random.default_rng(0).standard_normal((1024, 1024, 3), np.float32) * 32, -127, 127).astype(
    np.int8
)


class FigureSet(NamedTuple):
    """pictures: uint8 (N, S, S, 4) with straight alpha; styles: int64 (N,), as attributes.STYLES counts."""

    pictures: np.ndarray
    styles: np.ndarray


@dataclass(frozen=True, slots=True)
class Figures:
    """Sets of figures, and how often each is taken."""

    sets: tuple[FigureSet, ...]
    shares: tuple[float, ...]

    def take(self, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """One figure, uint8 (S, S, 4), and its style."""
        chosen = self.sets[int(rng.choice(len(self.sets), p=self.shares))]
        index = int(rng.integers(len(chosen.pictures)))
        return np.asarray(chosen.pictures[index]), int(chosen.styles[index])


def shrunk(pictures: np.ndarray, side: int) -> np.ndarray:
    """Pictures made smaller, in memory: straight uint8 (N, side, side, 4)."""
    small = np.empty((len(pictures), side, side, 4), np.uint8)
    for i, rgba in enumerate(pictures):
        figure = cv2.resize(_premultiplied(np.asarray(rgba)), (side, side), interpolation=cv2.INTER_AREA)
        alpha = figure[..., 3:].astype(np.float32)
        color = figure[..., :3] * (255 / np.maximum(alpha, 1))
        small[i] = np.concatenate([np.minimum(color, 255), alpha], axis=2)
    return small


def make_batch(
    figures: Figures, count: int, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures uint8 (count, size, size, 3); the figures in them, colours times alpha, and alpha, uint8
    (count, size, size, 4); their styles int64 (count,)."""
    taken = [figures.take(rng) for _ in range(count)]
    images, cut = zip(*(_example(figure, size, rng) for figure, _ in taken), strict=True)
    return np.stack(images), np.stack(cut), np.array([style for _, style in taken])


def _example(rgba: np.ndarray, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One picture and its figure. Bytes all the way: they are four times faster."""
    figure = np.asarray(cv2.resize(_premultiplied(rgba), (size, size), interpolation=cv2.INTER_AREA))
    if rng.random() < 0.5:
        figure = cv2.flip(figure, 1)
    if rng.random() < MOVED:
        figure = _moved(figure, rng)
    if rng.random() < TINTED:
        figure = _tinted(figure, rng)
    if rng.random() < LOOSE:
        figure = _loosened(figure, rng)
    alpha = figure[..., 3]
    rest = cv2.merge([255 - alpha] * 3)
    image = cv2.add(figure[..., :3], cv2.multiply(behind(figure, rng), rest, scale=1 / 255))
    return _softened(image, figure, rng) if rng.random() < SOFTENED else (image, figure)


def _premultiplied(rgba: np.ndarray) -> np.ndarray:
    """uint8 (S, S, 4): colours times alpha."""
    alpha = np.ascontiguousarray(rgba[..., 3])
    color = cv2.multiply(np.ascontiguousarray(rgba[..., :3]), cv2.merge([alpha] * 3), scale=1 / 255)
    return np.dstack([color, alpha])


def _moved(figure: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Smaller or larger, thinner or wider, aside; it goes on touching the lower edge, as busts do."""
    size = figure.shape[0]
    tall = rng.uniform(0.6, 1.15)
    wide = tall * rng.uniform(0.8, 1.25)
    x = size / 2 * (1 - wide) + rng.uniform(-0.15, 0.15) * size
    matrix = np.array([[wide, 0, x], [0, tall, size * (1 - tall)]], np.float32)
    return np.asarray(cv2.warpAffine(figure, matrix, (size, size), flags=cv2.INTER_LINEAR))


def _tinted(figure: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other colours: channels change places or weight."""
    order = rng.permutation(3) if rng.random() < 0.3 else range(3)
    alpha = figure[..., 3]
    parts = [
        cv2.min(cv2.convertScaleAbs(figure[..., i], alpha=float(rng.uniform(0.6, 1.2))), alpha) for i in order
    ]
    return cv2.merge([*parts, alpha])


def _loosened(figure: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """With strands of hair, half a pixel to three pixels of 512 wide, that fly from the head."""
    size = figure.shape[0]
    rows, columns = np.nonzero(figure[..., 3] > 250)
    if not len(rows):
        return figure
    top = int(rows.min())
    head = rows < top + size // 8
    at = int(rng.choice(np.flatnonzero(head)))
    color = figure[rows[at], columns[at], :3].astype(np.float32) * rng.uniform(0.8, 1.1)
    middle, reach = float(np.median(columns[head])), size * rng.uniform(0.1, 0.2)
    canvas = np.zeros((size * FINER, size * FINER), np.uint8)
    along = np.linspace(0, 1, 24)[:, None]
    for angle in rng.uniform(-np.pi, 0, rng.integers(*STRANDS)):
        way = np.array([np.cos(angle), np.sin(angle)])
        start = np.array([middle, top + reach]) + way * reach
        end = start + way * rng.uniform(0.02, 0.14) * size
        bend = (start + end) / 2 + rng.normal(0, 0.02, 2) * size
        curve = (1 - along) ** 2 * start + 2 * along * (1 - along) * bend + along**2 * end
        width = max(1, round(rng.uniform(0.5, 3) * size / 512 * FINER))
        cv2.polylines(canvas, [np.rint(curve * FINER).astype(np.int32)], False, 255, width)
    strands = np.asarray(cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA))
    hair = np.empty_like(figure)
    hair[:] = [*np.clip(color, 0, 255), 255]
    under = cv2.multiply(figure, cv2.merge([255 - strands] * 4), scale=1 / 255)
    return np.asarray(cv2.add(under, cv2.multiply(hair, cv2.merge([strands] * 4), scale=1 / 255)))


def _softened(
    image: np.ndarray, figure: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """As a decoder, a resize or a camera gives it: fewer pixels, ringing, noise. The figure loses pixels
    too, and is as clean as before."""
    size = image.shape[0]
    small = max(8, round(size / rng.uniform(1.1, 2.8)))
    down = cv2.INTER_AREA if rng.random() < 0.7 else cv2.INTER_LINEAR
    up = cv2.INTER_CUBIC if rng.random() < 0.7 else cv2.INTER_LINEAR
    image, figure = (
        np.asarray(
            cv2.resize(cv2.resize(part, (small, small), interpolation=down), (size, size), interpolation=up)
        )
        for part in (image, figure)
    )
    # A cubic resize overshoots each plane by itself.
    alpha = figure[..., 3]
    figure = cv2.merge([*(cv2.min(plane, alpha) for plane in cv2.split(figure)[:3]), alpha])
    if rng.random() < 0.4:
        image = _noisy(image, rng, rng.uniform(1, 8))
    return image, figure


def _noisy(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """The picture under noise of a strength in 0..255; a large tile of it is drawn once and rolled."""
    size = image.shape[0]
    y, x = rng.integers(0, GRAIN.shape[0] - size + 1, 2)
    grain = GRAIN[y : y + size, x : x + size].astype(np.float32) * np.float32(strength / 32)
    if rng.random() < 0.4:
        grain = np.asarray(cv2.GaussianBlur(grain, (0, 0), 0.8), np.float32)
    return np.asarray(np.clip(image + grain, 0, 255), np.uint8)


def behind(figure: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A background uint8 (S, S, 3) for a premultiplied figure uint8 (S, S, 4)."""
    size = figure.shape[0]
    kind = rng.choice(KINDS, p=SHARES)
    if kind == "own":
        back = backdrop.sample(rng, size, size)
        return _shifted(back, rng)
    pair = [_near(figure, rng) if kind == "near" or rng.random() < 0.3 else _any(rng) for _ in range(2)]
    if kind == "near":
        pattern = str(rng.choice(("plain", "gradient", "stripes", "dots", "checks")))
        return _shifted(backdrop.draw(pattern, pair[0], pair[1], size, size), rng)
    if kind == "clouds":
        mix = clouds(size, rng)[..., None]
        return np.asarray(pair[0] * (1 - mix) + pair[1] * mix, np.uint8)
    if kind == "shapes":
        return shapes(size, pair, rng)
    if kind == "texture":
        return texture(size, rng)
    plain = np.empty((size, size, 3), np.uint8)
    plain[:] = pair[0]
    return _noisy(plain, rng, rng.uniform(4, 60))


def _any(rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.3:
        return np.repeat(rng.uniform(0, 255), 3)
    if rng.random() < 0.4:
        names = list(colors.BACKGROUND_COLORS.values())
        return colors.hex_to_rgb(names[rng.integers(len(names))])
    return rng.uniform(0, 255, 3)


def _near(figure: Floats, rng: np.random.Generator) -> np.ndarray:
    """A colour of the figure's own, off by a little."""
    rows, columns = np.nonzero(figure[..., 3] > 252)
    if not len(rows):
        return _any(rng)
    at = rng.integers(len(rows))
    color = figure[rows[at], columns[at], :3]
    return np.clip(color * rng.uniform(0.85, 1.15) + rng.normal(0, 12, 3), 0, 255)


def _shifted(drawn: Floats, rng: np.random.Generator) -> np.ndarray:
    """Patterns begin anywhere, and now and then are not quite plain."""
    back = drawn.astype(np.uint8)
    if rng.random() < 0.5:
        back = np.roll(back, tuple(rng.integers(0, back.shape[0], 2)), axis=(0, 1))
    if rng.random() < 0.3:
        light = 1 + 0.5 * rng.uniform(-1, 1) * (clouds(back.shape[0], rng, octaves=2)[..., None] - 0.5)
        back = np.clip(back * light, 0, 255).astype(np.uint8)
    return back


def clouds(size: int, rng: np.random.Generator, octaves: int = 6) -> Floats:
    """Noise of many scales in 0..1, float32 (size, size): the rougher, the more its fine scales weigh."""
    total, rough = np.zeros((size, size), np.float32), rng.uniform(0.4, 1.0)
    for octave in range(octaves):
        grid = 2 ** (octave + 1) + 1
        layer = rng.random((grid, grid), np.float32)
        total += rough**octave * cv2.resize(layer, (size, size), interpolation=cv2.INTER_CUBIC)
    low, high = total.min(), total.max()
    return np.asarray((total - low) / max(high - low, 1e-6), np.float32)


def shapes(size: int, pair: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A room full of things: discs, boxes and bars, some of them out of focus."""
    back = np.empty((size, size, 3), np.uint8)
    back[:] = pair[0]
    for _ in range(int(rng.integers(3, 24))):
        color = [float(c) for c in (pair[1] if rng.random() < 0.2 else _any(rng))]
        x, y = (int(v) for v in rng.integers(0, size, 2))
        w, h = (int(v) for v in rng.integers(size // 32, size // 2, 2))
        kind = rng.integers(3)
        if kind == 0:
            cv2.ellipse(back, (x, y), (w // 2, h // 2), float(rng.uniform(0, 180)), 0, 360, color, -1)
        elif kind == 1:
            cv2.rectangle(back, (x, y), (x + w, y + h), color, -1)
        else:
            cv2.line(back, (x, y), (x + w - size // 4, y + h), color, int(rng.integers(1, size // 16)))
    if rng.random() < 0.6:
        back = np.asarray(cv2.GaussianBlur(back, (0, 0), float(rng.uniform(0.6, size / 40))), np.uint8)
    if rng.random() < 0.4:
        back = np.clip(back + 60 * (clouds(size, rng)[..., None] - 0.5), 0, 255).astype(np.uint8)
    return back
