"""Encoded pictures become a Pillow image in RGB or RGBA: upright, in sRGB, small, at a bounded cost.

The bytes may come from a stranger. So a file is judged before it is decoded: what it is (kinds), what its
head would make a decoder do (heads), what the decoded picture would take (costs). Pillow reads through a
file object that counts (rationed), so that no loop in it is longer than the picture is worth. Whatever Pillow
then raises is an ImageError. This room knows neither paths nor URLs, and not what is in a picture.
"""

from __future__ import annotations

from faceavatar.decoding.costs import MAX_PIXELS
from faceavatar.decoding.decode import MAX_SIDE, decoded, refuse_large, to_small_rgb

__all__ = ["MAX_PIXELS", "MAX_SIDE", "decoded", "refuse_large", "to_small_rgb"]
