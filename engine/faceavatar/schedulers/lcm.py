"""Latent consistency models: Luo et al. 2023, arXiv 2310.04378.

Sampled by multistep consistency sampling: Song et al. 2023, arXiv 2303.01469, algorithm 1.
"""

from __future__ import annotations

import numpy as np

from faceavatar.errors import InvalidRequest
from faceavatar.schedulers.schedule import FloatArray, Noise, NoiseSchedule, draw, mix, predict_x0

_DISTILLED_STEPS = 50  # the schedule that LCMs are distilled on; a run takes its timesteps from it
_TIMESTEP_SCALING = 10.0
_SIGMA_DATA = 0.5


class LCM:
    """Each step jumps to x0 and adds noise anew for the next timestep; the last one adds none.

    The timesteps are a subset of the distillation's, whatever the schedule's spacing.
    Raises InvalidRequest where more steps are asked for than the distillation had.
    """

    init_noise_sigma = 1.0
    needs_noise = True
    memory: tuple[FloatArray, ...] = ()

    def __init__(self, schedule: NoiseSchedule, num_inference_steps: int) -> None:
        distilled = min(_DISTILLED_STEPS, schedule.num_train_timesteps)
        if num_inference_steps > distilled:
            raise InvalidRequest("num_inference_steps", num_inference_steps, f"1..{distilled} with lcm")
        self._schedule = schedule
        origin = np.arange(1, distilled + 1) * (schedule.num_train_timesteps // distilled) - 1
        chosen = np.floor(np.linspace(0, distilled, num_inference_steps, endpoint=False)).astype(np.int64)
        self.timesteps = origin[::-1][chosen].astype(np.int64)

    def add_noise(self, clean: FloatArray, noise: FloatArray, index: int) -> FloatArray:
        return mix(clean, noise, self._schedule.alphas_cumprod[self.timesteps[index]])

    def scale_model_input(self, latents: FloatArray, index: int) -> FloatArray:
        return latents

    def step(
        self, noise_pred: FloatArray, index: int, latents: FloatArray, noise: Noise | None = None
    ) -> FloatArray:
        now: np.float32 = self._schedule.alphas_cumprod[self.timesteps[index]]
        x0 = predict_x0(noise_pred, latents, np.sqrt(now), np.sqrt(1 - now), self._schedule.prediction_type)
        keep, jump = _boundary(float(self.timesteps[index]))
        denoised = np.float32(jump) * x0 + np.float32(keep) * latents
        if index == len(self.timesteps) - 1:
            return denoised
        then: np.float32 = self._schedule.alphas_cumprod[self.timesteps[index + 1]]
        renoised: FloatArray = np.sqrt(then) * denoised + np.sqrt(1 - then) * draw(noise)
        return renoised


def _boundary(timestep: float) -> tuple[float, float]:
    """c_skip and c_out: the model is the identity at timestep 0 (Song et al. 2023, arXiv 2303.01469)."""
    scaled = timestep * _TIMESTEP_SCALING
    spread = scaled**2 + _SIGMA_DATA**2
    return _SIGMA_DATA**2 / spread, scaled / spread**0.5
