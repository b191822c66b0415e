"""Euler steps along the probability-flow ODE: Karras et al. 2022, arXiv 2206.00364, algorithm 1 without
its second-order correction.

Latents are in the variance-exploding scale, x0 + sigma eps: the model sees them divided by sqrt(sigma^2 + 1).
"""

from __future__ import annotations

import numpy as np

from faceavatar.schedulers.schedule import FloatArray, Noise, NoiseSchedule


class Euler:
    """x_next = x + (x - x0) / sigma (sigma_next - sigma)."""

    needs_noise = False
    memory: tuple[FloatArray, ...] = ()

    def __init__(self, schedule: NoiseSchedule, num_inference_steps: int) -> None:
        self._prediction_type = schedule.prediction_type
        self.timesteps = schedule.spaced(num_inference_steps).astype(np.float32)
        self._sigmas = schedule.sigmas_at(self.timesteps)
        largest: np.float32 = self._sigmas.max()
        # Leading spacing starts short of full noise; the variance of the signal left there is added.
        leading = schedule.timestep_spacing == "leading"
        self.init_noise_sigma = float(np.sqrt(largest**2 + 1) if leading else largest)

    def add_noise(self, clean: FloatArray, noise: FloatArray, index: int) -> FloatArray:
        return np.asarray(clean + noise * self._sigmas[index], np.float32)

    def scale_model_input(self, latents: FloatArray, index: int) -> FloatArray:
        sigma: np.float32 = self._sigmas[index]
        scaled: FloatArray = latents / np.sqrt(sigma**2 + 1)
        return scaled

    def step(
        self, noise_pred: FloatArray, index: int, latents: FloatArray, noise: Noise | None = None
    ) -> FloatArray:
        stride: np.float32 = self._sigmas[index + 1] - self._sigmas[index]
        return latents + self._slope(noise_pred, index, latents) * stride

    def _slope(self, noise_pred: FloatArray, index: int, latents: FloatArray) -> FloatArray:
        """dx / dsigma = (x - x0) / sigma (Karras et al., equations 1 and 3)."""
        sigma: np.float32 = self._sigmas[index]
        if self._prediction_type == "sample":
            x0 = noise_pred
        elif self._prediction_type == "v_prediction":
            x0 = noise_pred * (-sigma / np.sqrt(sigma**2 + 1)) + latents / (sigma**2 + 1)
        else:
            x0 = latents - sigma * noise_pred
        return (latents - x0) / sigma
