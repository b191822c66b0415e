"""Ancestral sampling with Euler steps: k-diffusion's `sample_euler_ancestral`, eta = 1.

A step goes down to sigma_down and noise of deviation sigma_up brings it back to the next sigma:
sigma_down^2 + sigma_up^2 = sigma_next^2, as in DDPM's ancestral sampling (Ho et al. 2020, arXiv 2006.11239).
"""

from __future__ import annotations

import numpy as np

from faceavatar.schedulers.euler import Euler
from faceavatar.schedulers.schedule import FloatArray, Noise, draw


class EulerAncestral(Euler):
    """Euler's timesteps, sigmas and slope; another step."""

    needs_noise = True

    def step(
        self, noise_pred: FloatArray, index: int, latents: FloatArray, noise: Noise | None = None
    ) -> FloatArray:
        sigma: np.float32 = self._sigmas[index]
        following: np.float32 = self._sigmas[index + 1]
        # float32 on purpose: after a sigma of 4096 `down` loses digits, and in diffusers the same ones.
        # The cosine schedule's 20291 can make the difference negative, which in diffusers gives NaN.
        up = np.sqrt(following**2 * (sigma**2 - following**2) / sigma**2)
        down = np.sqrt(np.maximum(following**2 - up**2, 0))
        lowered: FloatArray = latents + self._slope(noise_pred, index, latents) * (down - sigma)
        if up > 0:
            lowered += draw(noise) * up
        return lowered
