"""The colours of what is cut out, without the old background that shines through its edge.

Germer et al., "Fast Multi-Level Foreground Estimation" (ICPR 2020), as pymatting has it: I = a F + (1 - a) B
with smooth F and B, solved from coarse to fine. Here in numpy, so that no compiler is needed, and above a
coarse grid only where alpha is between 0 and 1: elsewhere the picture itself is the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from faceavatar.matting.net import Told

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Indices = NDArray[np.intp]
REGULARIZATION, GRADIENT_WEIGHT = 1e-5, 1.0
SMALL, SMALL_ITERATIONS, BIG_ITERATIONS = 32, 10, 2
REACH = 1
FINEST = 256  # pixels of the longer side of the finest grid: beyond it colours are told by the picture alone
WHOLE = 64  # grids up to this side are solved everywhere


@dataclass(frozen=True)
class _System:
    """The 2x2 systems of some pixels of a grid: row i of each array belongs to pixel `at[i]`."""

    at: Indices  # (n,) flat
    neighbours: Indices  # (4, n) flat
    pull: Floats  # (4, n): how much each neighbour's colours count
    known: Floats  # (n, 6): a I and (1 - a) I
    inverse: tuple[Floats, Floats, Floats]  # (n, 1): of the matrix [[a00, a01], [a01, a11]]

    def relax(self, colors: Floats) -> None:
        """One pass over (H * W, 6) colours F, B: each pixel's best, given its neighbours."""
        sums = self.known.copy()
        for pull, neighbour in zip(self.pull, self.neighbours, strict=True):
            sums += pull[:, None] * colors[neighbour]
        front, back = sums[:, :3], sums[:, 3:]
        b00, b01, b11 = self.inverse
        colors[self.at, :3] = np.clip(b00 * front + b01 * back, 0, 1)
        colors[self.at, 3:] = np.clip(b01 * front + b11 * back, 0, 1)


def estimate_foreground(image: Bytes, alpha: Floats) -> Bytes:
    """The foreground's colours (H, W, 3) uint8 of a picture (H, W, 3) uint8 and its alpha (H, W) 0..1.

    The picture where alpha is 1; in the band around the figure its own colours go on; where nothing is left
    of the figure, its rim's mean colour, so that nothing of the background is kept in what nobody sees.
    """
    band = (alpha > 0) & (alpha < 1)
    if not band.any():
        return np.where((alpha > 0)[..., None], image, 0).astype(np.uint8)
    height, width = alpha.shape
    shrink = max(1.0, max(height, width) / FINEST)
    grid = (max(1, round(height / shrink)), max(1, round(width / shrink)))
    if grid == alpha.shape:
        found = _solved(image, alpha)[band][:, :3]
    else:
        small = cv2.resize(image, grid[::-1], interpolation=cv2.INTER_AREA)
        less = cv2.resize(alpha, grid[::-1], interpolation=cv2.INTER_AREA)
        colors = _solved(np.asarray(small, np.uint8), np.asarray(less, np.float32))
        found = _sharpened(image, alpha, band, colors)
    return _painted(image, alpha, band, found)


def told_foreground(image: Bytes, alpha: Floats, told: Told) -> Bytes:
    """As estimate_foreground, with the colours that the net itself has told; where the picture is not of its
    size they are enlarged, and the picture tells the rest.
    """
    band = (alpha > 0) & (alpha < 1)
    if not band.any():
        return np.where((alpha > 0)[..., None], image, 0).astype(np.uint8)
    if told.alpha.shape == alpha.shape:
        found = told.colors.reshape(3, -1)[:, np.flatnonzero(band)].T
        return _painted(image, alpha, band, np.clip(found, 0, 1))
    share, colors = told.alpha[..., None], np.clip(told.colors.transpose(1, 2, 0), 0, 1)
    # What the colours leave of the picture is the background's; where there is none of it, nothing is asked.
    back = (told.image.astype(np.float32) / 255 - share * colors) / np.maximum(1 - share, 0.02)
    both = np.dstack([colors, np.clip(back, 0, 1)])
    return _painted(image, alpha, band, _sharpened(image, alpha, band, both))


def _painted(image: Bytes, alpha: Floats, band: NDArray[np.bool_], found: Floats) -> Bytes:
    """The picture where alpha is 1, the colours (n, 3) found for a band there, and their mean elsewhere."""
    codes = np.rint(found * 255).astype(np.uint8)
    # By whole rows and by numbers of pixels: numpy takes its time over three bytes, and over masks.
    row = np.empty_like(image[0])
    row[:] = np.rint(codes.mean(axis=0)).astype(np.uint8)
    result = np.empty(image.shape, np.uint8)
    result[:] = row
    cv2.copyTo(image, (alpha >= 1).view(np.uint8), result)
    result.reshape(-1, 3)[np.flatnonzero(band)] = codes
    return result


def _solved(image: Bytes, alpha: Floats) -> Floats:
    """(H, W, 6): F and B of a picture, in 0..1, level by level."""
    height, width = alpha.shape
    levels = max(1, int(np.ceil(np.log2(max(height, width)))))
    colors, shape = _mean_colors(image, alpha), (1, 1)
    for level in range(levels + 1):
        grid = (round(height ** (level / levels)), round(width ** (level / levels)))
        colors, shape = _resized(colors, shape, grid), grid
        rows, columns = _nearest(height, grid[0]), _nearest(width, grid[1])
        small = max(grid) <= SMALL
        here = alpha[rows][:, columns]
        _fill(colors, image[rows][:, columns], here)
        systems = _systems(image, here, rows, columns)
        for _ in range(SMALL_ITERATIONS if small else BIG_ITERATIONS):
            for system in systems:
                system.relax(colors)
    return colors.reshape(height, width, 6)


def _sharpened(image: Bytes, alpha: Floats, band: NDArray[np.bool_], colors: Floats) -> Floats:
    """F (n, 3) at a band's pixels, of the colours (h, w, 6) of a smaller grid: enlarged, and what the picture
    then has too much shared out between F and B in the least way.
    """
    height, width = alpha.shape
    enlarged = [
        cv2.resize(np.ascontiguousarray(part), (width, height), interpolation=cv2.INTER_LINEAR)[band]
        for part in (colors[..., :3], colors[..., 3:])
    ]
    front, back = enlarged
    a = alpha[band][:, None]
    rest = image[band].astype(np.float32) / 255 - a * front - (1 - a) * back
    return np.asarray(np.clip(front + rest * a / (a * a + (1 - a) ** 2), 0, 1), np.float32)


def _mean_colors(image: Bytes, alpha: Floats) -> Floats:
    """(1, 6): the mean colours 0..1 of what is surely figure and surely background."""
    means = [
        image[where].mean(axis=0) / 255 if where.any() else np.zeros(3)
        for where in (alpha > 0.9, alpha < 0.1)
    ]
    return np.concatenate(means).astype(np.float32)[None]


def _nearest(whole: int, part: int) -> Indices:
    return np.arange(part) * whole // part


def _fill(colors: Floats, image: Bytes, alpha: Floats) -> None:
    """Where alpha leaves no doubt, F or B is the picture: what the systems there would say."""
    flat, level = image.reshape(-1, 3), alpha.reshape(-1)
    for where, part in ((level >= 1, slice(0, 3)), (level <= 0, slice(3, 6))):
        colors[where, part] = flat[where] * np.float32(1 / 255)


def _resized(colors: Floats, shape: tuple[int, int], grid: tuple[int, int]) -> Floats:
    picture = colors.reshape(*shape, 6)
    rows, columns = _nearest(shape[0], grid[0]), _nearest(shape[1], grid[1])
    return np.ascontiguousarray(picture[rows][:, columns]).reshape(-1, 6)


def _systems(image: Bytes, alpha: Floats, rows: Indices, columns: Indices) -> list[_System]:
    """The systems of a level's pixels, those of either colour of a chessboard apart: each pass then sees the
    other's newest answers, as pymatting's goes from pixel to pixel.
    """
    height, width = alpha.shape
    where = np.ones(alpha.shape, bool)
    if max(height, width) > WHOLE:
        between = ((alpha > 0) & (alpha < 1)).astype(np.uint8)
        where = cv2.dilate(between, np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8)) > 0
    y, x = np.nonzero(where)
    parity = (y + x) % 2
    return [_system(image, alpha, rows, columns, y[parity == side], x[parity == side]) for side in (0, 1)]


def _system(image: Bytes, alpha: Floats, rows: Indices, columns: Indices, y: Indices, x: Indices) -> _System:
    height, width = alpha.shape
    neighbours = np.stack(
        [
            y * width + np.maximum(x - 1, 0),
            y * width + np.minimum(x + 1, width - 1),
            np.maximum(y - 1, 0) * width + x,
            np.minimum(y + 1, height - 1) * width + x,
        ]
    )
    at, flat = y * width + x, alpha.reshape(-1)
    a = flat[at]
    pull = (REGULARIZATION + GRADIENT_WEIGHT * np.abs(a - flat[neighbours])).astype(np.float32)
    total = pull.sum(axis=0)
    a00, a01, a11 = a * a + total, a * (1 - a), (1 - a) ** 2 + total
    scale = 1 / (a00 * a11 - a01 * a01)
    color = image[rows[y], columns[x]].astype(np.float32) / 255
    known = np.concatenate([a[:, None] * color, (1 - a)[:, None] * color], axis=1)
    return _System(
        at, neighbours, pull, known, ((scale * a11)[:, None], (-scale * a01)[:, None], (scale * a00)[:, None])
    )
