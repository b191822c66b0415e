"""UniPC of order 2 with B(h) = exp(h) - 1, data prediction: Zhao et al. 2023, arXiv 2302.04867.

Its predictor UniP-2 is DPM-Solver++(2M)'s step; what it adds is UniC, which redoes the step before with the
model's output at the point that step reached, at no cost in model runs.
"""

from __future__ import annotations

import math

import numpy as np

from faceavatar.schedulers.dpmpp_2m import DPMSolverPP2M, alpha_and_noise
from faceavatar.schedulers.schedule import FloatArray, Noise, NoiseSchedule


class UniPC(DPMSolverPP2M):
    """Each step corrects the latents it is given, then predicts the next ones."""

    def __init__(self, schedule: NoiseSchedule, num_inference_steps: int) -> None:
        super().__init__(schedule, num_inference_steps)
        self._corrected: FloatArray | None = None

    @property
    def memory(self) -> tuple[FloatArray, ...]:
        """The clean latents predicted at the last steps, at most two, and the latents as last corrected."""
        return (*self._x0s, *([] if self._corrected is None else [self._corrected]))

    @memory.setter
    def memory(self, kept: tuple[FloatArray, ...]) -> None:
        self._x0s = list(kept[:-1])
        self._corrected = kept[-1] if kept else None

    def step(
        self, noise_pred: FloatArray, index: int, latents: FloatArray, noise: Noise | None = None
    ) -> FloatArray:
        x0 = self._predict(noise_pred, index, latents)
        if index == self._following and self._corrected is not None:
            latents = self._correct(x0, index, self._corrected)
        self._corrected = latents
        return self._advance(x0, index, latents)

    def _correct(self, x0: FloatArray, index: int, start: FloatArray) -> FloatArray:
        """The latents at `index` from those one step before (`start`) and the x0 predicted at both ends.

        x = (s / s_before) x_before - alpha (exp(-h) - 1) (x0_before + sum of rho_k D_k).
        """
        now, before = self._sigmas[index], self._sigmas[index - 1]
        alpha, noise_level = alpha_and_noise(now)
        h = math.log(before / now)
        x0_before = self._x0s[-1]
        change: FloatArray = (x0 - x0_before) * np.float32(0.5)
        if len(self._x0s) > 1:
            ratio = math.log(before / self._sigmas[index - 2]) / h
            rho_past, rho_now = _corrector_weights(h, ratio)
            past = (self._x0s[-2] - x0_before) * np.float32(rho_past / ratio)
            change = past + (x0 - x0_before) * np.float32(rho_now)
        kept, gained = noise_level / alpha_and_noise(before)[1], -alpha * math.expm1(-h)
        return start * np.float32(kept) + (x0_before + change) * np.float32(gained)


def _corrector_weights(h: float, ratio: float) -> tuple[float, float]:
    """Solves R rho = b, the order conditions of UniC-2 with -h for h, where R = [[1, 1], [ratio, 1]]."""
    base = math.expm1(-h)
    first = base / -h - 1
    second = first / -h - 0.5
    b1, b2 = first / base, 2 * second / base
    rho_past = (b1 - b2) / (1 - ratio)
    return rho_past, b1 - rho_past
