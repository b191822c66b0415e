"""Colours: from the ICC profile that a picture carries to sRGB, by LittleCMS.

A profile that cannot be used is left out of account, as browsers do: the picture is then taken for sRGB.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageCms import ImageCmsTransform

_LONGEST = 8 * 2**20  # bytes; a printing profile has two million, a camera's some hundreds
_SPACES = {"RGB": "RGB ", "RGBA": "RGB ", "CMYK": "CMYK", "L": "GRAY", "LAB": "Lab "}
_SAME = 2  # of 255: a profile this near to sRGB is sRGB, and its picture is left as it is


def to_srgb(image: Image, profile: bytes | None) -> Image:
    """RGB of an RGB, CMYK, L or LAB image, RGBA of RGBA; the image itself where there is nothing to do."""
    from PIL import ImageCms

    if image.mode != "LAB" and (not profile or len(profile) > _LONGEST):
        return image
    try:
        if image.mode == "LAB":
            source, space = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), "Lab "
        else:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
            space = source.profile.xcolor_space
        if space != _SPACES.get(image.mode):
            return image
        target = "RGBA" if image.mode == "RGBA" else "RGB"
        # Relative colorimetric with black point compensation: what image editors and browsers do.
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            image.mode,
            target,
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if image.mode in {"RGB", "RGBA"} and _changes_nothing(transform, image.mode):
            return image
        changed = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return image if changed is None else changed


def _changes_nothing(transform: ImageCmsTransform, mode: str) -> bool:
    """Whether a transform leaves 17 x 17 x 17 colours of the cube where they are."""
    from PIL import Image, ImageCms

    steps = np.linspace(0, 255, 17).astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(17, -1, 3)
    probe = Image.fromarray(cube).convert(mode)
    changed = ImageCms.applyTransform(probe, transform)
    differences = np.asarray(changed, np.int16) - np.asarray(probe, np.int16)
    return bool(np.abs(differences).max() <= _SAME)
