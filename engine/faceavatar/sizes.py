"""The size a pack draws at, and the way from there to the size asked for.

Knows the manifest's sizes; does not know what is drawn.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from faceavatar.image import fit_to
from faceavatar.manifest import Sizes

Size = tuple[int, int]


def drawing_size(sizes: Sizes, wanted: Size) -> Size:
    """(height, width) to draw at: the native size nearest in aspect, then in area; or wanted, rounded up."""
    if not sizes.native:
        step = sizes.multiple_of
        return math.ceil(wanted[0] / step) * step, math.ceil(wanted[1] / step) * step
    height, width = wanted

    def distance(size: Size) -> tuple[float, float]:
        aspect = abs(math.log(size[0] / size[1] * width / height))
        return round(aspect, 3), abs(math.log(size[0] * size[1] / (height * width)))

    return min(sizes.native, key=distance)


def bring_to(image: NDArray[np.uint8], wanted: Size, sizes: Sizes) -> NDArray[np.uint8]:
    """The picture (H, W, 3) uint8 at exactly the wanted (height, width), as the pack's policy says.

    A picture that was only rounded up to a multiple loses that margin, half on each side, and no sharpness.
    """
    height, width = image.shape[:2]
    y, x = (height - wanted[0]) // 2, (width - wanted[1]) // 2
    if not sizes.native and y >= 0 and x >= 0:
        return np.ascontiguousarray(image[y : y + wanted[0], x : x + wanted[1]])
    return fit_to(image, *wanted, sizes.policy)
