"""Latents to pictures: applies the manifest's scale and runs the decoder. Knows no bytes and no sizes."""

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
