"""What a scheduler keeps to beside parity: finite latents, independent images, a clean restart, its noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler

from faceavatar.schedulers import SCHEDULER_NAMES, NoiseSchedule, Scheduler, make_scheduler
from faceavatar.schedulers.schedule import BetaSchedule, FloatArray, PredictionType, TimestepSpacing

# torch's tensors meet numpy 2's __array__ protocol inside diffusers' set_timesteps.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

SHAPE = (3, 4, 8, 8)
STOCHASTIC = ("euler_ancestral", "lcm")


def run(name: str, schedule: NoiseSchedule, count: int, images: slice = slice(None)) -> FloatArray:
    """A whole run on fixed random predictions, of all three images or some of them."""
    return walk(make_scheduler(name, schedule, count), count, images)


def walk(scheduler: Scheduler, count: int, images: slice = slice(None)) -> FloatArray:
    random, noise = np.random.default_rng(3), np.random.default_rng(4)
    first: FloatArray = random.standard_normal(SHAPE, dtype=np.float32)[images]
    latents = first * np.float32(scheduler.init_noise_sigma)
    for index in range(count):
        prediction = random.standard_normal(SHAPE, dtype=np.float32)[images]
        latents = scheduler.step(
            prediction, index, latents, lambda: noise.standard_normal(SHAPE, dtype=np.float32)[images]
        )
    return latents


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("kind", get_args(PredictionType))
@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_latents_stay_finite_and_float32(name: str, kind: PredictionType, zero_snr: bool) -> None:
    """All spacings and beta schedules, from 1 step on; also where diffusers divides by zero.

    On the cosine schedule, 3 trailing steps of Euler ancestral give NaN in diffusers: rounding makes the
    difference that it takes the root of negative.
    """
    for spacing in get_args(TimestepSpacing):
        for betas in get_args(BetaSchedule):
            schedule = NoiseSchedule(
                beta_schedule=betas,
                prediction_type=kind,
                timestep_spacing=spacing,
                rescale_betas_zero_snr=zero_snr,
            )
            for count in (1, 2, 3, 7):
                latents = run(name, schedule, count)
                assert latents.dtype == np.float32
                assert np.isfinite(latents).all()


@pytest.mark.parametrize(("name", "make"), [("ddim", DDIMScheduler), ("lcm", LCMScheduler)])
def test_an_epsilon_model_at_zero_terminal_snr_is_finite_where_diffusers_is_not(name: str, make: Any) -> None:
    """diffusers gives infinities: it divides by alpha = 0. Here x0 is the prior mean, 0, noise is kept."""
    schedule = NoiseSchedule(timestep_spacing="trailing", rescale_betas_zero_snr=True)
    latents, prediction = np.random.default_rng(0).standard_normal((2, *SHAPE), dtype=np.float32)

    theirs = make(timestep_spacing="trailing", rescale_betas_zero_snr=True, clip_sample=False)
    theirs.set_timesteps(4)
    sample = torch.from_numpy(latents)
    broken = theirs.step(torch.from_numpy(prediction), theirs.timesteps[0], sample).prev_sample
    assert not torch.isfinite(broken).all()

    ours = make_scheduler(name, schedule, 4)
    moved = ours.step(prediction, 0, latents, lambda: prediction)
    following = 1 - schedule.alphas_cumprod[ours.timesteps[1]]
    np.testing.assert_allclose(moved, np.sqrt(following) * prediction, atol=1e-5)


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_an_image_of_a_batch_equals_the_same_image_alone(name: str) -> None:
    together = run(name, NoiseSchedule(), 6)
    for index in range(SHAPE[0]):
        alone = run(name, NoiseSchedule(), 6, slice(index, index + 1))
        np.testing.assert_array_equal(together[index : index + 1], alone)


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_step_0_starts_the_same_scheduler_afresh(name: str) -> None:
    scheduler = make_scheduler(name, NoiseSchedule(), 6)
    walk(scheduler, 3)
    np.testing.assert_array_equal(walk(scheduler, 6), run(name, NoiseSchedule(), 6))


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_a_step_leaves_its_inputs_alone(name: str) -> None:
    for kind in get_args(PredictionType):
        scheduler = make_scheduler(name, NoiseSchedule(prediction_type=kind), 4)
        arrays = np.random.default_rng(0).standard_normal((3, *SHAPE), dtype=np.float32)
        before = arrays.copy()
        arrays.setflags(write=False)
        prediction, latents, noise = arrays
        for index in range(4):
            scheduler.step(prediction, index, latents, noise.view)
        np.testing.assert_array_equal(arrays, before)


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_noise_is_drawn_at_every_step_but_the_last_and_only_where_announced(name: str) -> None:
    scheduler = make_scheduler(name, NoiseSchedule(), 4)
    drawn: list[int] = []
    latents = np.ones(SHAPE, np.float32)

    def noise() -> FloatArray:
        drawn.append(1)
        return latents

    for index in range(4):
        scheduler.step(latents, index, latents, noise)
    assert len(drawn) == (3 if scheduler.needs_noise else 0)
    assert scheduler.needs_noise == (name in STOCHASTIC)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_step_that_needs_noise_refuses_to_go_without(name: str) -> None:
    latents = np.ones(SHAPE, np.float32)
    with pytest.raises(ValueError, match="pass noise="):
        make_scheduler(name, NoiseSchedule(), 4).step(latents, 0, latents)


def test_more_order_is_nearer_to_the_exact_solution() -> None:
    """For data N(0, 1/4) the probability-flow ODE is solved by x scaled with the marginal deviation.

    No diffusers here: the marginal variance is alpha^2 / 4 + sigma^2, so it ends at x_T / 2 / deviation_T.
    What is left of the solvers' error is their last step, of first order, which Karras sigmas make small.
    """
    schedule = replace(NoiseSchedule(), prediction_type="sample", timestep_spacing="trailing")
    start = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    alpha_bar = schedule.alphas_cumprod
    exact = start / 2 / np.sqrt(alpha_bar[-1] / 4 + 1 - alpha_bar[-1])
    errors = {}
    for name in ("ddim", "dpmpp_2m", "dpmpp_2m_karras", "unipc"):
        scheduler, latents = make_scheduler(name, schedule, 50), start
        for index, timestep in enumerate(scheduler.timesteps):
            now = alpha_bar[int(timestep)]
            gain = np.sqrt(now) / 4 / (now / 4 + 1 - now)
            latents = scheduler.step((gain * latents).astype(np.float32), index, latents)
        errors[name] = float(np.abs(latents - exact).max())
    assert errors["dpmpp_2m_karras"] < 1e-3
    assert errors["unipc"] < 0.7 * errors["ddim"]
    assert errors["dpmpp_2m"] < 0.7 * errors["ddim"]
