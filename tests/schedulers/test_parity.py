"""Every scheduler against diffusers' own class, at every step, on the same inputs and the same noise.

Two kinds of inputs. Random ones of unit scale, unrelated from step to step: results may be far from unit
scale (an epsilon model's x0 is the noise divided by alpha), so the tolerance is 1e-5 of the larger of 1 and
the largest value. And the trajectory of a model that is exact for Gaussian data: as the model sees them, all
latents are of unit scale, and the tolerance is 1e-5 there, absolute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler

from faceavatar.schedulers import SCHEDULER_NAMES, NoiseSchedule, make_scheduler
from faceavatar.schedulers.schedule import (
    SMALLEST_ALPHA,
    BetaSchedule,
    FloatArray,
    PredictionType,
    TimestepSpacing,
)
from faceavatar_export.diffusion.schedule import PEERS

# torch's tensors meet numpy 2's __array__ protocol inside diffusers' set_timesteps.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

SHAPE = (2, 4, 8, 8)
STEP_COUNTS = (1, 2, 4, 20, 50)
TOLERANCE = 1e-5
TOON = NoiseSchedule(prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True)


class Peer:
    """diffusers' scheduler behind the signature of ours."""

    def __init__(self, name: str, schedule: NoiseSchedule, count: int, shared_table: bool = False) -> None:
        make, options = PEERS[name]
        config = asdict(schedule)
        if name not in ("ddim", "lcm"):
            del config["set_alpha_to_one"]
        # diffusers refuses models that predict x0 with Euler ancestral: it is given epsilon instead.
        self.from_x0 = name == "euler_ancestral" and schedule.prediction_type == "sample"
        if self.from_x0:
            config["prediction_type"] = "epsilon"
        self.scheduler = make(**config, **options)
        if shared_table:
            share_table(self.scheduler, schedule)
        self.scheduler.set_timesteps(count)
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(0)
        generator = torch.Generator().manual_seed(count)
        self.in_alphas = name in ("ddim", "lcm")
        self.noise_source = {"generator": generator} if name in ("euler_ancestral", "lcm") else {}

    def scale_model_input(self, latents: FloatArray, index: int) -> FloatArray:
        return to_numpy(
            self.scheduler.scale_model_input(torch.from_numpy(latents), self.scheduler.timesteps[index])
        )

    def step(self, prediction: FloatArray, index: int, latents: FloatArray) -> FloatArray:
        if self.from_x0:
            prediction = (latents - prediction) / self.scheduler.sigmas[index].numpy()
        sample, timestep = torch.from_numpy(latents), self.scheduler.timesteps[index]
        self.scheduler.scale_model_input(sample, timestep)  # Euler warns where it was not called
        result = self.scheduler.step(torch.from_numpy(prediction), timestep, sample, **self.noise_source)
        return to_numpy(result.prev_sample)

    def sigma(self, index: int) -> float:
        """The noise-to-signal ratio at that step."""
        if self.in_alphas:
            alpha_bar = float(self.scheduler.alphas_cumprod[self.scheduler.timesteps[index]])
            return float(np.sqrt((1 - alpha_bar) / max(alpha_bar, 1e-12)))
        return float(self.scheduler.sigmas[index])


def share_table(scheduler: Any, schedule: NoiseSchedule) -> None:
    """Hands our alpha_bar to diffusers.

    Both tables are float32 roundings of one formula and lie within 5e-7 (see test_schedule), but sigma near 0
    and near infinity magnifies that, at zero terminal SNR to 2e-5; torch's own differs so from CPU to CPU.
    """
    table = schedule.alphas_cumprod.copy()
    if schedule.rescale_betas_zero_snr and not isinstance(scheduler, DDIMScheduler | LCMScheduler):
        table[-1] = SMALLEST_ALPHA
    scheduler.alphas_cumprod = torch.from_numpy(table)
    if not schedule.set_alpha_to_one:
        scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]


@dataclass
class ExactModel:
    """What a perfect network says of data with that mean and a variance of 1/4: E[x0 | x] is linear in x."""

    mean: FloatArray
    prediction_type: PredictionType

    def __call__(self, seen: FloatArray, sigma_ratio: float) -> FloatArray:
        alpha = 1 / np.sqrt(1 + sigma_ratio**2)
        sigma = sigma_ratio * alpha
        x0 = self.mean + alpha / 4 / (alpha**2 / 4 + sigma**2) * (seen - alpha * self.mean)
        eps = (seen - alpha * x0) / sigma
        outputs = {"sample": x0, "epsilon": eps, "v_prediction": alpha * eps - sigma * x0}
        return np.asarray(outputs[self.prediction_type], dtype=np.float32)


def to_numpy(tensor: torch.Tensor) -> FloatArray:
    return np.asarray(tensor.numpy(), dtype=np.float32)


def torch_noise(seed: int) -> Callable[[], FloatArray]:
    """The numbers that a torch generator of that seed gives to diffusers."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: to_numpy(torch.randn(SHAPE, generator=generator))


def assert_same(ours: FloatArray, theirs: FloatArray, scale: float, index: int) -> None:
    assert ours.dtype == np.float32
    assert ours.shape == theirs.shape
    difference = float(np.abs(ours - theirs).max())
    assert difference <= TOLERANCE * scale, f"step {index}: {difference:.2e} apart at scale {scale:.3g}"


def combinations(zero_snr: bool) -> list[Any]:
    """All but DDIM and LCM of an epsilon model at zero terminal SNR, where diffusers divides by 0."""
    base = NoiseSchedule(rescale_betas_zero_snr=zero_snr)
    return [
        pytest.param(
            name, replace(base, prediction_type=kind, timestep_spacing=spacing), id=f"{name}-{kind}-{spacing}"
        )
        for name in SCHEDULER_NAMES
        for kind in get_args(PredictionType)
        for spacing in get_args(TimestepSpacing)
        if not (zero_snr and kind == "epsilon" and name in ("ddim", "lcm"))
    ]


def compare_on_random_inputs(name: str, schedule: NoiseSchedule, count: int) -> None:
    """UniPC's peer runs in float64: UniC's weights lose five digits to cancellation in its float32."""
    ours, theirs = make_scheduler(name, schedule, count), Peer(name, schedule, count, shared_table=True)
    if name == "unipc":
        theirs.scheduler.sigmas = theirs.scheduler.sigmas.double()
    noise, random = torch_noise(count), np.random.default_rng(count)
    for index in range(count):
        latents, prediction = random.standard_normal((2, *SHAPE), dtype=np.float32)
        expected = theirs.step(prediction, index, latents)
        scale = max(1.0, float(np.abs(expected).max()))
        assert_same(ours.step(prediction, index, latents, noise), expected, scale, index)


def compare_along_a_trajectory(
    name: str, schedule: NoiseSchedule, count: int, shared_table: bool = False, free: bool = False
) -> None:
    """Both from the same latents at each step, or `free`: each from its own.

    The scale is that of the latents, and where an epsilon model starts at zero terminal SNR, that of the
    rounding in x0 = (x - sigma eps) / alpha, also of the two steps before that a solver remembers.
    """
    ours, theirs = make_scheduler(name, schedule, count), Peer(name, schedule, count, shared_table)
    epsilon_at_zero_snr = schedule.prediction_type == "epsilon" and schedule.rescale_betas_zero_snr
    noise, random = torch_noise(count), np.random.default_rng(count)
    model = ExactModel(random.standard_normal(SHAPE, dtype=np.float32), schedule.prediction_type)
    expected = random.standard_normal(SHAPE, dtype=np.float32) * np.float32(ours.init_noise_sigma)
    latents = expected
    for index in range(count):
        sigma = theirs.sigma(index)
        scale = float(np.hypot(1, sigma)) if name.startswith("euler") else 1.0
        if epsilon_at_zero_snr:
            scale = float(np.hypot(1, theirs.sigma(max(0, index - 2))))
        start = latents if free else expected
        seen = ours.scale_model_input(start, index)
        if not free:
            assert_same(seen, theirs.scale_model_input(expected, index), 1.0, index)
        latents = ours.step(model(seen, sigma), index, start, noise)
        expected = theirs.step(model(theirs.scale_model_input(expected, index), sigma), index, expected)
        assert_same(latents, expected, scale, index)


@pytest.mark.parametrize("count", STEP_COUNTS)
@pytest.mark.parametrize(("name", "schedule"), combinations(zero_snr=False))
def test_every_step_agrees_with_diffusers(name: str, schedule: NoiseSchedule, count: int) -> None:
    """Euler ancestral of an x0 model is compared through epsilon = (x - x0) / sigma: diffusers refuses it."""
    compare_on_random_inputs(name, schedule, count)
    compare_along_a_trajectory(name, schedule, count)


@pytest.mark.parametrize("count", STEP_COUNTS)
@pytest.mark.parametrize(("name", "schedule"), combinations(zero_snr=True))
def test_every_step_agrees_at_zero_terminal_snr(name: str, schedule: NoiseSchedule, count: int) -> None:
    compare_on_random_inputs(name, schedule, count)
    compare_along_a_trajectory(name, schedule, count, shared_table=True)


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_a_run_left_to_itself_stays_with_diffusers(name: str) -> None:
    compare_along_a_trajectory(name, NoiseSchedule(), 20, free=True)


@pytest.mark.parametrize("count", [1, 4, 20, 50])
@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "lcm"])
def test_the_toon_packs_schedule_stays_with_diffusers_on_its_own_tables(name: str, count: int) -> None:
    compare_along_a_trajectory(name, TOON, count, free=True)


@pytest.mark.parametrize("beta_schedule", get_args(BetaSchedule))
@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_every_beta_schedule_agrees(name: str, beta_schedule: BetaSchedule) -> None:
    schedule = NoiseSchedule(
        beta_start=1e-4, beta_end=0.02, beta_schedule=beta_schedule, prediction_type="v_prediction"
    )
    compare_on_random_inputs(name, schedule, 20)
    compare_along_a_trajectory(name, schedule, 20, shared_table=True)


@pytest.mark.parametrize("set_alpha_to_one", [True, False])
def test_ddim_ends_at_the_alpha_the_schedule_names(set_alpha_to_one: bool) -> None:
    compare_on_random_inputs("ddim", NoiseSchedule(set_alpha_to_one=set_alpha_to_one, steps_offset=0), 20)
