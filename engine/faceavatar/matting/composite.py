"""Pictures over colours, in linear light; and how cut-outs are held: straight alpha.

sRGB values are a code, not an amount of light. Half light hair over half dark wall is the mean of their
light; the mean of the codes is darker, and shows as a dark rim on bright backgrounds.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
_LEVELS = 2**16 - 1  # of the way back: fine enough that every code comes back as itself


@cache
def _to_light() -> Floats:
    """The light 0..1 of each sRGB code (IEC 61966-2-1), (256,)."""
    code = np.arange(256) / 255
    light = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    return np.asarray(light, np.float32)


@cache
def _to_code() -> Bytes:
    """The sRGB code nearest to each of 65536 amounts of light."""
    light = np.arange(_LEVELS + 1) / _LEVELS
    code = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(code * 255), np.uint8)


def rgb_of(color: str) -> Bytes:
    """(3,) uint8 of "#rrggbb"."""
    return np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)], np.uint8)


def over(foreground: Bytes, alpha: Floats, color: str) -> Bytes:
    """Straight foreground colours (H, W, 3) uint8 over "#rrggbb" by alpha (H, W) 0..1, as uint8 (H, W, 3).

    Where alpha is 0 the colour is met exactly, where it is 1 the foreground is. Alpha counts in 255ths, as
    in a cut-out: that one laid over the colour is the same picture.
    """
    behind = rgb_of(color)
    alpha = np.asarray(np.rint(alpha * 255) / 255, np.float32)
    result = np.where((alpha > 0)[..., None], foreground, behind)
    band = (alpha > 0) & (alpha < 1)
    front, back = _to_light()[foreground[band]], _to_light()[behind]
    light = back + (front - back) * alpha[band][:, None]
    result[band] = _to_code()[np.rint(light * _LEVELS).astype(np.uint16)]
    return np.asarray(result, np.uint8)


def straight(foreground: Bytes, alpha: Floats) -> Bytes:
    """Straight-alpha RGBA uint8 (H, W, 4) of foreground colours (H, W, 3) and alpha (H, W) 0..1."""
    return np.asarray(cv2.merge([*cv2.split(foreground), np.rint(alpha * 255).astype(np.uint8)]))
