"""The noise schedule a model was trained with, its tables, and what every scheduler offers.

Knows betas, alphas and sigmas; does not know any sampling algorithm. Notation as in the papers: alpha_bar is
the cumulated product of 1 - beta; noisy latents are sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps (Ho et al.
2020, arXiv 2006.11239, equation 4); sigma = sqrt((1 - alpha_bar) / alpha_bar) is their noise-to-signal ratio.
Tables are float32 and rounded where diffusers rounds, so that both engines walk the same path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from faceavatar.errors import PackInvalid

FloatArray = npt.NDArray[np.float32]
Noise = Callable[[], FloatArray]
BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
PredictionType = Literal["epsilon", "v_prediction", "sample"]
TimestepSpacing = Literal["leading", "linspace", "trailing"]

# The smallest fp16 number: diffusers' stand-in for an alpha_bar of zero, where sigma would be infinite.
SMALLEST_ALPHA = 2.0**-24
_LARGEST_COSINE_BETA = 0.999


class Scheduler(Protocol):
    """One sampling run, made by `make_scheduler`; stepped in order, from 0 or a later step on.

    A step that does not follow the one before it starts a run afresh.
    """

    @property
    def timesteps(self) -> npt.NDArray[np.int64] | FloatArray:
        """(n,) descending timesteps to hand to the model; Euler's are float32 and may be fractional."""

    @property
    def init_noise_sigma(self) -> float:
        """What unit Gaussian noise is multiplied by to become the first latents."""

    @property
    def needs_noise(self) -> bool:
        """Whether `step` draws noise at every step but the last."""

    @property
    def memory(self) -> tuple[FloatArray, ...]:
        """What `step` keeps of earlier steps, oldest first: arrays of the latents' shape, at most 3."""

    @memory.setter
    def memory(self, kept: tuple[FloatArray, ...]) -> None:
        """Puts others of the same number and meaning in their place."""

    def scale_model_input(self, latents: FloatArray, index: int) -> FloatArray:
        """Latents (B, C, h, w) float32 as the model wants to see them at step `index`."""

    def step(
        self, noise_pred: FloatArray, index: int, latents: FloatArray, noise: Noise | None = None
    ) -> FloatArray:
        """The latents (B, C, h, w) float32 after step `index`.

        `noise_pred` is the model's output, of the schedule's prediction type; `latents` are not scaled;
        `noise` gives fresh unit noise of the same shape and may be None where `needs_noise` is false.
        Raises ValueError where noise is needed and None was given.
        """

    def add_noise(self, clean: FloatArray, noise: FloatArray, index: int) -> FloatArray:
        """Latents as a run has them before step `index`, from clean ones and unit noise, all (B, C, h, w)."""


@dataclass(frozen=True)
class NoiseSchedule:
    """How a model was trained, in diffusers' words; the defaults are Stable Diffusion 1.5's.

    Raises ValueError, naming the field, where a value is out of range.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: BetaSchedule = "scaled_linear"
    prediction_type: PredictionType = "epsilon"
    timestep_spacing: TimestepSpacing = "leading"
    steps_offset: int = 1
    set_alpha_to_one: bool = False
    rescale_betas_zero_snr: bool = False

    def __post_init__(self) -> None:
        numbers = _is_number(self.beta_start) and _is_number(self.beta_end)
        checks: dict[str, tuple[bool, str]] = {
            "num_train_timesteps": (_is_int(self.num_train_timesteps, 2, 100_000), "an integer of 2..100000"),
            "beta_start": (numbers and 0 < self.beta_start <= self.beta_end, "a number in 0..beta_end"),
            "beta_end": (numbers and self.beta_end < 1, "a number below 1"),
            "beta_schedule": _one_of(self.beta_schedule, BetaSchedule),
            "prediction_type": _one_of(self.prediction_type, PredictionType),
            "timestep_spacing": _one_of(self.timestep_spacing, TimestepSpacing),
            "steps_offset": (_is_int(self.steps_offset, 0), "an integer of at least 0"),
            "set_alpha_to_one": (isinstance(self.set_alpha_to_one, bool), "true or false"),
            "rescale_betas_zero_snr": (isinstance(self.rescale_betas_zero_snr, bool), "true or false"),
        }
        for name, (right, allowed) in checks.items():
            if not right:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, allowed {allowed}")

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> NoiseSchedule:
        """Reads the `scheduler` object of a pack.json; `name` is the caller's, absent fields are defaults.

        Raises PackInvalid for an unknown field or a value out of range.
        """
        given = {key: value for key, value in manifest.items() if key != "name"}
        known = {field.name for field in fields(cls)}
        if unknown := sorted(given.keys() - known):
            raise PackInvalid(f"scheduler: unknown field {unknown[0]!r}, known: {', '.join(sorted(known))}")
        try:
            return cls(**given)
        except ValueError as exc:
            raise PackInvalid(f"scheduler.{exc}; correct the pack's manifest") from exc

    @cached_property
    def alphas_cumprod(self) -> FloatArray:
        """(num_train_timesteps,) alpha_bar, descending in 1..0; the last is 0 with rescale_betas_zero_snr."""
        betas = _betas(self)
        if self.rescale_betas_zero_snr:
            betas = _rescale_to_zero_snr(betas)
        return _frozen(_cumulate(betas))

    @cached_property
    def sigmas(self) -> FloatArray:
        """(num_train_timesteps,) ascending noise-to-signal ratios, 4096 at zero terminal SNR."""
        alphas = self.alphas_cumprod.copy()
        if self.rescale_betas_zero_snr:
            alphas[-1] = SMALLEST_ALPHA
        return _frozen(np.sqrt((1 - alphas) / alphas))

    @property
    def final_alpha_cumprod(self) -> np.float32:
        """The alpha_bar that a DDIM run ends at: 1, or that of timestep 0."""
        return np.float32(1) if self.set_alpha_to_one else np.float32(self.alphas_cumprod[0])

    def spaced(self, count: int, left_out: int = 0) -> npt.NDArray[np.float64]:
        """`count` descending timesteps, not yet rounded (Lin et al. 2023, arXiv 2305.08891, table 2).

        `left_out` = 1 spaces one point more and drops the lowest, as the multistep solvers do, whose last
        step goes to sigma 0 instead. Trailing spacing never has that point.
        """
        total, points = self.num_train_timesteps, count + left_out
        if self.timestep_spacing == "linspace":
            return np.linspace(0, total - 1, points)[::-1][:count]
        if self.timestep_spacing == "leading":
            stride = total // points
            offset = min(self.steps_offset, total - 1 - (points - 1) * stride)
            return np.arange(points, dtype=np.float64)[::-1][:count] * stride + offset
        # Rounding may give `arange` one element more, a timestep of -1 (61 steps of 1000 are such a case).
        return np.round(np.arange(total, 0, -total / count))[:count] - 1

    def sigmas_at(self, timesteps: npt.NDArray[Any]) -> FloatArray:
        """(n,) timesteps -> (n + 1,) float32 sigmas, linear between table entries, and the final 0."""
        between = np.interp(timesteps, np.arange(self.num_train_timesteps), self.sigmas)
        return np.append(between, 0.0).astype(np.float32)


def predict_x0(
    noise_pred: FloatArray, latents: FloatArray, alpha: np.float32, sigma: np.float32, kind: PredictionType
) -> FloatArray:
    """The clean latents that a model's output stands for, where latents = alpha x0 + sigma eps.

    v = alpha eps - sigma x0 (Salimans and Ho 2022, arXiv 2202.00512, appendix D). At alpha = 0 the latents
    are all noise, and predicting it says nothing of x0: the prior mean, 0, is taken instead of 0 / 0.
    """
    if kind == "sample":
        return noise_pred
    if kind == "v_prediction":
        return alpha * latents - sigma * noise_pred
    if alpha == 0:
        return np.zeros(latents.shape, np.float32)
    x0: FloatArray = np.divide(latents - sigma * noise_pred, alpha)
    return x0


def mix(clean: FloatArray, noise: FloatArray, alpha_bar: np.float32) -> FloatArray:
    """Noisy latents: sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps."""
    return np.asarray(np.sqrt(alpha_bar) * clean + np.sqrt(1 - alpha_bar) * noise, np.float32)


def draw(noise: Noise | None) -> FloatArray:
    """Fresh noise; raises ValueError where the caller brought no source of it."""
    if noise is None:
        raise ValueError("this scheduler adds noise at every step but the last: pass noise=, a function")
    return noise()


def _betas(schedule: NoiseSchedule) -> FloatArray:
    total, start, end = schedule.num_train_timesteps, schedule.beta_start, schedule.beta_end
    if schedule.beta_schedule == "linear":
        return np.linspace(start, end, total).astype(np.float32)
    if schedule.beta_schedule == "scaled_linear":
        return np.linspace(math.sqrt(start), math.sqrt(end), total).astype(np.float32) ** 2
    # Nichol and Dhariwal 2021, arXiv 2102.09672, equation 17.
    bars = np.cos((np.arange(total + 1) / total + 0.008) / 1.008 * math.pi / 2) ** 2
    betas: FloatArray = np.minimum(1 - bars[1:] / bars[:-1], _LARGEST_COSINE_BETA).astype(np.float32)
    return betas


def _rescale_to_zero_snr(betas: FloatArray) -> FloatArray:
    """Lin et al. 2023, arXiv 2305.08891, algorithm 1: shift and scale sqrt(alpha_bar) to end at 0."""
    roots = np.sqrt(_cumulate(betas))
    first, last = roots[0], roots[-1]
    bars = ((roots - last) * (first / (first - last))) ** 2
    return np.float32(1) - np.append(bars[:1], bars[1:] / bars[:-1])


def _cumulate(betas: FloatArray) -> FloatArray:
    return np.cumprod(np.float32(1) - betas, dtype=np.float64).astype(np.float32)


def _frozen(table: FloatArray) -> FloatArray:
    table.setflags(write=False)
    return table


def _is_int(value: object, least: int, most: int = 2**31) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _one_of(value: object, choices: Any) -> tuple[bool, str]:
    allowed = get_args(choices)
    return value in allowed, ", ".join(allowed)
