"""DPM-Solver++(2M): Lu et al. 2022, arXiv 2211.01095, algorithm 2; optionally on Karras et al.'s sigmas.

With alpha = 1 / sqrt(sigma^2 + 1), lambda = log(alpha / (alpha sigma)) = -log(sigma), so that h, the step in
lambda, is the logarithm of a ratio of sigmas and exp(-h) that ratio: no infinity on the way to sigma 0.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from faceavatar.schedulers.schedule import FloatArray, Noise, NoiseSchedule, predict_x0

_RHO = 7.0  # Karras et al. 2022, arXiv 2206.00364, equation 5


class DPMSolverPP2M:
    """Second order from a run's second step on; the first and the last are first order (DDIM's)."""

    init_noise_sigma = 1.0
    needs_noise = False

    def __init__(self, schedule: NoiseSchedule, num_inference_steps: int, karras: bool = False) -> None:
        self._prediction_type = schedule.prediction_type
        if karras:
            self.timesteps, sigmas = _karras(schedule, num_inference_steps)
        else:
            self.timesteps = schedule.spaced(num_inference_steps, left_out=1).round().astype(np.int64)
            sigmas = schedule.sigmas_at(self.timesteps)
        self._sigmas: list[float] = sigmas.tolist()
        self._x0s: list[FloatArray] = []
        self._following: int | None = None

    @property
    def memory(self) -> tuple[FloatArray, ...]:
        """The clean latents predicted at the last steps, at most two."""
        return tuple(self._x0s)

    @memory.setter
    def memory(self, kept: tuple[FloatArray, ...]) -> None:
        self._x0s = list(kept)

    def add_noise(self, clean: FloatArray, noise: FloatArray, index: int) -> FloatArray:
        alpha, noise_level = alpha_and_noise(self._sigmas[index])
        return clean * np.float32(alpha) + noise * np.float32(noise_level)

    def scale_model_input(self, latents: FloatArray, index: int) -> FloatArray:
        return latents

    def step(
        self, noise_pred: FloatArray, index: int, latents: FloatArray, noise: Noise | None = None
    ) -> FloatArray:
        return self._advance(self._predict(noise_pred, index, latents), index, latents)

    def _predict(self, noise_pred: FloatArray, index: int, latents: FloatArray) -> FloatArray:
        alpha, noise_level = alpha_and_noise(self._sigmas[index])
        return predict_x0(
            noise_pred, latents, np.float32(alpha), np.float32(noise_level), self._prediction_type
        )

    def _advance(self, x0: FloatArray, index: int, latents: FloatArray) -> FloatArray:
        """x = (s_next / s) x - alpha_next (exp(-h) - 1) (x0 + (x0 - x0_before) / (2 r)), r = h_before / h."""
        self._x0s = [*self._x0s[-1:], x0] if index == self._following else [x0]
        self._following = index + 1
        now, following = self._sigmas[index], self._sigmas[index + 1]
        alpha, noise_level = alpha_and_noise(following)
        weight = alpha * (1 - following / now)
        kept = noise_level / alpha_and_noise(now)[1]
        moved = latents * np.float32(kept) + x0 * np.float32(weight)
        if len(self._x0s) > 1 and index < len(self.timesteps) - 1:
            ratio = math.log(self._sigmas[index - 1] / now) / math.log(now / following)
            moved += (x0 - self._x0s[-2]) * np.float32(weight / (2 * ratio))
        return moved


def alpha_and_noise(sigma: float) -> tuple[float, float]:
    """The signal's and the noise's share of unit-variance latents at this sigma."""
    alpha = 1 / math.sqrt(sigma**2 + 1)
    return alpha, sigma * alpha


def _karras(schedule: NoiseSchedule, count: int) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Sigmas even in sigma^(1/7) from the table's largest to its smallest, and the timesteps nearest."""
    table = schedule.sigmas
    largest, smallest = float(table[-1]) ** (1 / _RHO), float(table[0]) ** (1 / _RHO)
    sigmas = (largest + np.linspace(0, 1, count) * (smallest - largest)) ** _RHO
    timesteps = np.interp(np.log(sigmas), np.log(table), np.arange(len(table)))
    # The cosine schedule's are cut off instead, as in diffusers.
    rounded = timesteps if schedule.beta_schedule == "squaredcos_cap_v2" else timesteps.round()
    return rounded.astype(np.int64), np.append(sigmas, 0.0).astype(np.float32)
