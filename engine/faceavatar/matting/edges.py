"""Alpha fitted to the picture's own edges: a guided filter (He et al., ECCV 2010) with colours as the guide.

Around each pixel alpha is taken for a linear function of the picture's colours; so a strand that the net
is too coarse for gets the alpha that its colour says. Radius and regularisation were picked by number out
of several
ways (docs/matting.md). The linear functions vary slowly: they are solved on a smaller grid (He & Sun, 2015).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations_with_replacement

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
# Radius, in shares of the picture's longer side, and the pixels of that side of the grid that functions are
# solved on: far first, for what the net has missed, then near, for how it ends.
PASSES = ((32 / 512, 128), (8 / 512, 256))
SINGLE = (16 / 512, 256)  # the one pass for nets that answer in full resolution
NARROW = (4 / 512, 512)  # and for those that know of edges, but saw a smaller picture
REGULARIZATION = 1e-4  # of the guide's variance, colours in 0..1


def refine(image: Bytes, alpha: Floats) -> Floats:
    """Alpha (H, W) float32 0..1 at the edges of its picture (H, W, 3) uint8."""
    far, near = PASSES
    height, width = alpha.shape
    shrink = max(1.0, max(height, width) / near[1])
    grid = (max(1, round(width / shrink)), max(1, round(height / shrink)))
    # The far pass need not be finer than what the near one looks at.
    small, coarse = (cv2.resize(part, grid, interpolation=cv2.INTER_AREA) for part in (image, alpha))
    found = _fitted(np.asarray(small, np.uint8), np.asarray(coarse, np.float32), *far)
    enlarged = cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR)
    return _fitted(image, np.asarray(enlarged, np.float32), *near)


def refine_near(image: Bytes, alpha: Floats) -> Floats:
    """As refine, in one pass, for alpha that is off by a few pixels at most."""
    return _fitted(image, alpha, *SINGLE)


def refine_narrow(image: Bytes, alpha: Floats) -> Floats:
    """As refine_near, for alpha that is right but for what enlarging it has blurred."""
    return _fitted(image, alpha, *NARROW)


def _fitted(image: Bytes, alpha: Floats, share: float, side: int) -> Floats:
    height, width = alpha.shape
    shrink = max(1.0, max(height, width) / side)
    grid = (max(1, round(width / shrink)), max(1, round(height / shrink)))
    radius = max(1, round(share * max(grid)))
    guide = np.asarray(cv2.resize(image, grid, interpolation=cv2.INTER_AREA) / 255, np.float32)
    slopes, offset = _functions(
        guide, np.asarray(cv2.resize(alpha, grid, interpolation=cv2.INTER_AREA), np.float32), radius
    )
    # Only where the net was not sure somewhere near: elsewhere there is nothing to find.
    unsure = ((alpha > 0.01) & (alpha < 0.99)).astype(np.float32)
    touched = (cv2.resize(unsure, grid, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    near = cv2.dilate(touched, np.ones((2 * radius + 1, 2 * radius + 1), np.uint8))
    at = np.flatnonzero(cv2.resize(near, (width, height), interpolation=cv2.INTER_NEAREST))
    functions = cv2.resize(np.dstack([slopes, offset]), (width, height), interpolation=cv2.INTER_LINEAR)
    there = functions.reshape(-1, 4)[at]
    colors = image.reshape(-1, 3)[at].astype(np.float32) / 255
    result = np.clip(alpha, 0, 1)
    result.reshape(-1)[at] = np.clip(np.einsum("ij,ij->i", there[:, :3], colors) + there[:, 3], 0, 1)
    return np.asarray(result, np.float32)


def _functions(guide: Floats, alpha: Floats, radius: int) -> tuple[Floats, Floats]:
    """For each place the mean of the functions alpha = slopes . colour + offset of its windows."""

    def mean(values: Floats) -> Floats:
        return np.asarray(cv2.blur(values, (2 * radius + 1, 2 * radius + 1)), np.float32)

    center, level = mean(guide), mean(alpha)
    shared = mean(guide * alpha[..., None]) - center * level[..., None]
    variance = {
        (i, j): mean(guide[..., i] * guide[..., j])
        - center[..., i] * center[..., j]
        + (REGULARIZATION if i == j else 0)
        for i, j in combinations_with_replacement(range(3), 2)
    }
    slopes = _solve(variance, shared)
    return mean(slopes), mean(level - np.einsum("hwc,hwc->hw", slopes, center))


def _solve(matrix: Mapping[tuple[int, int], NDArray[np.floating]], right: Floats) -> Floats:
    """A symmetric 3x3 system for each place, by cofactors: numpy's solver is ten times slower on these."""
    a, b, c = matrix[0, 0], matrix[0, 1], matrix[0, 2]
    d, e, f = matrix[1, 1], matrix[1, 2], matrix[2, 2]
    inverse = (
        (d * f - e * e, c * e - b * f, b * e - c * d),
        (c * e - b * f, a * f - c * c, b * c - a * e),
        (b * e - c * d, b * c - a * e, a * d - b * b),
    )
    determinant = a * inverse[0][0] + b * inverse[0][1] + c * inverse[0][2]
    rows = [sum(part * right[..., i] for i, part in enumerate(row)) for row in inverse]
    return np.asarray(np.stack(rows, axis=2) / np.maximum(determinant, 1e-18)[..., None], np.float32)
