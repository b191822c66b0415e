"""How far a cut-out is from the truth: the four errors of Rhemann et al. (CVPR 2009), and the halo.

The four are over the whole picture; SAD, gradient and connectivity in thousands, as their reference
implementations give them. Colours on new backgrounds are composited in linear light, on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import cv2
import numpy as np
from matting_truth import Case
from numpy.typing import NDArray

from faceavatar.matting.composite import over

Floats = NDArray[np.floating]
BACKGROUNDS = ("#ff00ff", "#000000", "#ffffff")
BAND = (0.02, 0.98)
SIGMA = 1.4  # of the derivative of a Gaussian that measures slopes
STEP, THETA = 0.1, 0.15  # of connectivity: levels, and what may be lost before it counts


def scores(case: Case, rgba: NDArray[np.uint8]) -> Mapping[str, float]:
    """The errors of one straight uint8 (H, W, 4) cut-out."""
    alpha = np.asarray(rgba[..., 3] / 255, np.float32)
    difference = alpha - case.alpha
    return {
        "SAD": float(np.abs(difference).sum()) / 1000,
        "MSE": float(np.square(difference).mean()),
        "gradient": gradient_error(alpha, case.alpha),
        "connectivity": connectivity_error(alpha, case.alpha),
        "halo": halo_error(case, rgba),
    }


def halo_error(case: Case, rgba: NDArray[np.uint8]) -> float:
    """Mean colour difference (0..255) from the true composite, where 0.02 < true alpha < 0.98."""
    band = (case.alpha > BAND[0]) & (case.alpha < BAND[1])
    if not band.any():
        return 0.0
    truth = np.rint(case.foreground).astype(np.uint8)
    alpha = np.asarray(rgba[..., 3] / 255, np.float32)
    errors = [
        np.abs(
            over(rgba[..., :3], alpha, color)[band].astype(np.float32) - over(truth, case.alpha, color)[band]
        ).mean()
        for color in BACKGROUNDS
    ]
    return float(np.mean(errors))


def gradient_error(alpha: Floats, truth: Floats) -> float:
    """Sum of the squared differences of the slopes' lengths, in thousands."""
    return float(np.square(_slope(alpha) - _slope(truth)).sum()) / 1000


def _slope(alpha: Floats) -> NDArray[np.float64]:
    """The length of the gradient, by first derivatives of a Gaussian cut where it falls to 1 %."""
    half = int(np.ceil(SIGMA * np.sqrt(-2 * np.log(np.sqrt(2 * np.pi) * SIGMA * 0.01))))
    at = np.arange(-half, half + 1, dtype=np.float64)
    bell = np.exp(-(at**2) / (2 * SIGMA**2)) / (SIGMA * np.sqrt(2 * np.pi))
    slope = -at * bell / SIGMA**2
    length = np.sqrt((np.outer(bell, slope) ** 2).sum())  # the filter has unit length
    picture = alpha.astype(np.float64)
    x, y = (
        cv2.sepFilter2D(picture, cv2.CV_64F, one, other, borderType=cv2.BORDER_REPLICATE) / length
        for one, other in ((slope, bell), (bell, slope))
    )
    return np.asarray(np.hypot(x, y))


def connectivity_error(alpha: Floats, truth: Floats) -> float:
    """Sum over pixels of how much less connected alpha is with the figure than the truth is, in thousands.

    The figure is the largest region that is opaque in both; a pixel's level is the last at which it hangs
    together with it.
    """
    levels = np.arange(0, 1 + STEP, STEP)
    level = -np.ones_like(alpha)
    for before, after in pairwise(levels):
        both = ((alpha >= after) & (truth >= after)).astype(np.uint8)
        _, labels, stats, _ = cv2.connectedComponentsWithStats(both, connectivity=4)
        largest = np.zeros(alpha.shape, bool)
        if len(stats) > 1:
            largest = labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
        level[(level == -1) & ~largest] = before
    level[level == -1] = 1
    parts = []
    for one in (alpha, truth):
        lost = one - level
        parts.append(1 - lost * (lost >= THETA))
    return float(np.abs(parts[0] - parts[1]).sum()) / 1000
