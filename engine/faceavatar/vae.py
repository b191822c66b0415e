"""Latents to pictures and back: applies the manifest's scale, runs the nets. Knows no bytes and no sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faceavatar.backends import Session
from faceavatar.errors import NumericalError
from faceavatar.manifest import Latents


@dataclass
class VaeDecoder:
    """Decodes one picture at a time, so that memory does not grow with the batch."""

    session: Session
    settings: Latents

    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pictures (B, 3, H, W) float32, about -1..1, from latents (B, C, h, w) float32.

        Raises NumericalError for NaN or infinite values.
        """
        scaled = latents / np.float32(self.settings.scaling_factor) + np.float32(self.settings.shift_factor)
        images = np.concatenate(
            [self.session.run({"latents": one[None]})["image"] for one in scaled.astype(np.float32)]
        )
        if not np.isfinite(images).all():
            raise NumericalError("vae_decoder")
        return images


@dataclass
class VaeEncoder:
    """Turns a picture into the latents that the denoising net knows."""

    session: Session
    settings: Latents

    def encode(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Latents (1, C, h, w) float32, scaled, of a picture (1, 3, H, W) float32 of -1..1.

        Raises NumericalError for NaN or infinite values.
        """
        mean = self.session.run({"image": image})["latents"]
        if not np.isfinite(mean).all():
            raise NumericalError("vae_encoder")
        scaled = (mean - np.float32(self.settings.shift_factor)) * np.float32(self.settings.scaling_factor)
        return np.asarray(scaled, np.float32)
