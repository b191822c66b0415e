"""The canvas of the photo-like heads: a picture that knows which of its pixels are hair and bare skin."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
SIZE = 128
EYES = ((55.5, 66.5), (72.4, 66.5))
_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


@dataclass
class Canvas:
    """rgb: float32 (128, 128, 3) in 0..255. hair, skin: what of each pixel is hair and bare skin, 0..1."""

    rgb: Floats
    hair: Floats = field(default_factory=lambda: np.zeros((SIZE, SIZE), np.float32))
    skin: Floats = field(default_factory=lambda: np.zeros((SIZE, SIZE), np.float32))

    def paint(self, mask: Floats, color: NDArray[np.floating], kind: str = "") -> None:
        """Lays `color` ((3,) or (128, 128, 3)) over the picture; `kind` is "hair", "skin" or neither."""
        box = _extent(mask)
        m, rgb = mask[box], self.rgb[box]
        over = np.asarray(color, np.float32)
        rgb += ((over[box] if over.ndim == 3 else over) - rgb) * m[..., None]
        for name, labels in (("hair", self.hair[box]), ("skin", self.skin[box])):
            labels *= 1 - m
            if kind == name:
                labels += m

    def shade(self, mask: NDArray[np.floating | np.integer], factor: float) -> None:
        """Darkens (factor < 1) or lightens where the mask is set; labels stay."""
        box = _extent(mask)
        self.rgb[box] *= np.asarray(1 + (factor - 1) * mask[box][..., None], np.float32)


def _extent(mask: NDArray[np.floating | np.integer]) -> tuple[slice, slice]:
    """The smallest box that holds all of a mask worth painting."""
    x, y, width, height = cv2.boundingRect((mask > 0.004).astype(np.uint8))
    return slice(y, y + height), slice(x, x + width)


def blob(x: float, y: float, rx: float, ry: float) -> Floats:
    return np.asarray(np.exp(-(((_X - x) / rx) ** 2) - ((_Y - y) / ry) ** 2), np.float32)


def blobs(*spots: tuple[float, float, float, float]) -> Floats:
    return np.asarray(np.sum([blob(*spot) for spot in spots], 0), np.float32)


def noise(rng: np.random.Generator, cells: int, channels: int = 1) -> Floats:
    """Smooth noise (128, 128[, channels]) in 0..1."""
    small = rng.random((cells, cells, channels), np.float32)
    return np.asarray(cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC))
