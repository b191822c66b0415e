"""Samplers as matrices: the coefficients read off a sampler walk the path that the sampler walks."""

from __future__ import annotations

import numpy as np
import pytest

from faceavatar.schedulers import SCHEDULER_NAMES, NoiseSchedule, make_scheduler
from faceavatar.schedulers.linear import KEPT, STATE, input_scales, run_matrices
from faceavatar.schedulers.schedule import FloatArray

SHAPE = (2, 4, 6, 5)
SCHEDULES = {
    "epsilon, leading": NoiseSchedule(),
    "v, trailing, zero terminal SNR": NoiseSchedule(
        prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True
    ),
    "sample, linspace": NoiseSchedule(prediction_type="sample", timestep_spacing="linspace"),
}


def draws(count: int) -> list[FloatArray]:
    return list(np.random.default_rng(3).normal(size=(count, *SHAPE)).astype(np.float32))


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_the_matrices_of_a_run_give_the_samplers_latents_at_every_step(
    name: str, steps: int, kind: str
) -> None:
    sampler = make_scheduler(name, SCHEDULES[kind], steps)
    matrices = run_matrices(make_scheduler(name, SCHEDULES[kind], steps))
    latents = draws(1)[0] * np.float32(sampler.init_noise_sigma)
    state = np.concatenate([latents[None], np.zeros((KEPT, *SHAPE), np.float32)])
    reach = 1.0  # latents of 4096 at the start leave rounding of that size in all that follow
    for index, (prediction, noise) in enumerate(zip(draws(steps), draws(steps)[::-1], strict=True)):
        reach = max(reach, float(np.abs(latents).max()))
        latents = sampler.step(prediction, index, latents, lambda noise=noise: noise)  # type: ignore[misc]
        state = np.tensordot(matrices[index], np.concatenate([state, [prediction], [noise]]), 1)
        np.testing.assert_allclose(state[0], latents, rtol=1e-5, atol=3e-6 * reach)


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_a_run_that_begins_late_has_the_matrices_of_its_own_first_step(name: str) -> None:
    whole, late = (make_scheduler(name, NoiseSchedule(), 8) for _ in range(2))
    late_ones = run_matrices(late, 3)
    assert len(late_ones) == 5
    latents, prediction, noise = draws(3)
    first = whole.step(prediction, 3, latents, lambda: noise)
    terms = np.concatenate([latents[None], np.zeros((KEPT, *SHAPE), np.float32), [prediction], [noise]])
    np.testing.assert_allclose(np.tensordot(late_ones[0], terms, 1)[0], first, atol=1e-5)


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_the_input_scales_are_the_samplers(name: str) -> None:
    sampler = make_scheduler(name, NoiseSchedule(), 6)
    latents = draws(1)[0]
    for index, scale in enumerate(input_scales(sampler)):
        np.testing.assert_allclose(latents * scale, sampler.scale_model_input(latents, index), rtol=1e-6)


def test_no_sampler_keeps_more_than_the_matrices_have_room_for() -> None:
    for name in SCHEDULER_NAMES:
        sampler = make_scheduler(name, NoiseSchedule(), 9)
        for index, matrix in enumerate(run_matrices(sampler)):
            assert matrix.shape == (STATE, STATE + 2), (name, index)
            assert len(sampler.memory) <= KEPT
