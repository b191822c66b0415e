"""Person and background: a matting net's alpha, and what is done with it.

Knows alpha and compositing; does not know how the picture came about.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from faceavatar.backends import Session
from faceavatar.errors import NumericalError
from faceavatar.image import resize, to_nchw
from faceavatar.manifest import Matting


@dataclass
class Matter:
    """Finds the alpha of pictures of any size with a net of a fixed one."""

    session: Session
    settings: Matting

    def alpha(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Alpha (H, W) float32, 0 (background) to 1 (person), of a uint8 RGB (H, W, 3) picture.

        Raises NumericalError for NaN or infinite values.
        """
        planes = to_nchw(resize(image, *self.settings.size), self.settings.mean, self.settings.std)
        coarse = self.session.run({"image": planes})[self.settings.alpha][0, 0]
        if not np.isfinite(coarse).all():
            raise NumericalError("matting")
        fine = cv2.resize(coarse, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC)
        return np.clip(np.asarray(fine, np.float32), 0.0, 1.0)


def cut_out(image: NDArray[np.uint8], alpha: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Straight-alpha RGBA uint8 (H, W, 4) of an RGB (H, W, 3) picture and its alpha (H, W) 0..1."""
    return np.dstack([image, np.rint(alpha * 255).astype(np.uint8)])


def put_on(image: NDArray[np.uint8], alpha: NDArray[np.float32], color: str) -> NDArray[np.uint8]:
    """The picture (H, W, 3) uint8 over a colour "#rrggbb", which is met exactly where alpha is 0."""
    background = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)], np.float32)
    weight = alpha[..., None]
    return np.rint(image.astype(np.float32) * weight + background * (1 - weight)).astype(np.uint8)
