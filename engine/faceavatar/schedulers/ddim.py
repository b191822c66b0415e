"""DDIM, deterministic (eta = 0): Song et al. 2020, arXiv 2010.02502, equation 12."""

from __future__ import annotations

import numpy as np

from faceavatar.schedulers.schedule import FloatArray, Noise, NoiseSchedule, mix, predict_x0


class DDIM:
    """x_prev = sqrt(alpha_bar_prev) x0 + sqrt(1 - alpha_bar_prev) eps.

    The step is always num_train_timesteps // n timesteps long, as in diffusers, also where linspace spacing
    puts the next timestep elsewhere.
    """

    init_noise_sigma = 1.0
    needs_noise = False
    memory: tuple[FloatArray, ...] = ()

    def __init__(self, schedule: NoiseSchedule, num_inference_steps: int) -> None:
        self._schedule = schedule
        self._stride = schedule.num_train_timesteps // num_inference_steps
        self.timesteps = schedule.spaced(num_inference_steps).round().astype(np.int64)

    def add_noise(self, clean: FloatArray, noise: FloatArray, index: int) -> FloatArray:
        return mix(clean, noise, self._schedule.alphas_cumprod[self.timesteps[index]])

    def scale_model_input(self, latents: FloatArray, index: int) -> FloatArray:
        return latents

    def step(
        self, noise_pred: FloatArray, index: int, latents: FloatArray, noise: Noise | None = None
    ) -> FloatArray:
        schedule = self._schedule
        previous = self.timesteps[index] - self._stride
        now: np.float32 = schedule.alphas_cumprod[self.timesteps[index]]
        then: np.float32 = (
            schedule.alphas_cumprod[previous] if previous >= 0 else schedule.final_alpha_cumprod
        )
        alpha, sigma = np.sqrt(now), np.sqrt(1 - now)
        x0 = predict_x0(noise_pred, latents, alpha, sigma, schedule.prediction_type)
        if schedule.prediction_type == "epsilon":
            eps = noise_pred
        elif schedule.prediction_type == "sample":
            eps = (latents - alpha * x0) / sigma
        else:
            eps = alpha * noise_pred + sigma * latents
        following: FloatArray = np.sqrt(then) * x0 + np.sqrt(1 - then) * eps
        return following
