"""The proof's image-to-image: a photo, and diffusers' own pipelines begun with its latents.

Knows diffusers' pipelines; does not know the pack.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)
from numpy.typing import NDArray

from faceavatar.image import fit_to, to_nchw

STRENGTH = 0.7


def make_photo() -> NDArray[np.uint8]:
    """Colours that run across and down and a brighter disc, uint8 (300, 220, 3): no drawn size is like it."""
    y, x = np.mgrid[:300, :220]
    colours = np.stack([x, 255 - y * 0.8, 60 + (x + y) * 0.3], axis=-1)
    disc = (x - 120) ** 2 + (y - 130) ** 2 < 60**2
    return np.asarray(np.clip(colours + 50 * disc[..., None], 0, 255), np.uint8)


def image_to_image(pipeline: Any) -> Any:
    """diffusers' image-to-image pipeline of the same parts, an adapter in the UNet among them."""
    parts = pipeline.components
    if isinstance(pipeline, StableDiffusionXLPipeline):
        zeros = pipeline.config.force_zeros_for_empty_prompt
        made: Any = StableDiffusionXLImg2ImgPipeline(**parts, force_zeros_for_empty_prompt=zeros)
    else:
        made = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def photo_latents(vae: Any, height: int, width: int, batch: int) -> torch.Tensor:
    """The photo's scaled latents (B, C, h, w): the posterior's mean, so that both engines begin alike."""
    pixels = to_nchw(fit_to(make_photo(), height, width, "cover"), 127.5, 127.5)
    with torch.inference_mode():
        mean = vae.encode(torch.from_numpy(pixels)).latent_dist.mode()
    latents: torch.Tensor = (mean * vae.config.scaling_factor).repeat(batch, 1, 1, 1)
    return latents
