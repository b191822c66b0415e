"""Distillation: a step is DDIM's own, the target lands where the teacher does, the student gets nearer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from faceavatar_export.toon.conditions import Conditions
from faceavatar_export.toon.distill import (
    SEGMENTS,
    Trajectories,
    angles,
    grid,
    guided_trajectories,
    landing_v,
    rotate,
    student_loss,
)
from faceavatar_export.toon.network import make_schedule
from faceavatar_export.toon.train_unet import Model, face_weights


def told(count: int) -> Conditions:
    generator = torch.Generator().manual_seed(2)
    return Conditions(
        torch.randn(count, 77, 192, generator=generator), torch.randn(count, 24, generator=generator)
    )


@pytest.fixture(scope="module")
def teacher() -> Model:
    torch.manual_seed(0)
    model = Model().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "conv_out" in name:  # an untrained UNet says next to nothing
                weight.mul_(3)
    return model


@pytest.fixture(scope="module")
def seen(teacher: Model) -> Trajectories:
    noise = torch.randn(3, 64, 8, 8, generator=torch.Generator().manual_seed(1))
    run = guided_trajectories(teacher, told(3), torch.zeros(1, 77, 192), noise, 2 * SEGMENTS, 3.0)
    return Trajectories(run.latents.clone(), run.timesteps, run.told)


@pytest.mark.parametrize("steps", [1, 4, 12, 20])
def test_the_grid_is_that_of_diffusers_trailing_ddim(steps: int) -> None:
    schedule = make_schedule()
    schedule.set_timesteps(steps)
    assert torch.equal(grid(steps), schedule.timesteps)


def test_a_turn_is_diffusers_ddim_step() -> None:
    schedule = make_schedule()
    schedule.set_timesteps(8)
    x, v = torch.randn(2, 2, 64, 8, 8, generator=torch.Generator().manual_seed(4))
    phi = angles(grid(8))
    for i, t in enumerate(schedule.timesteps):
        theirs = schedule.step(v, t, x).prev_sample
        torch.testing.assert_close(rotate(x, v, phi[i] - phi[i + 1]), theirs, atol=2e-4, rtol=1e-3)


def test_the_target_lands_exactly_on_the_teachers_point(seen: Trajectories) -> None:
    phi = angles(seen.timesteps)
    for i, j in ((0, 2), (1, 2), (6, 8), (7, 8)):
        turn = phi[i] - phi[j]
        v = landing_v(seen.latents[i], seen.latents[j], turn)
        torch.testing.assert_close(rotate(seen.latents[i], v, turn), seen.latents[j], atol=1e-4, rtol=1e-4)


def test_guidance_is_the_engines_unconditional_plus_scale_times_the_difference(teacher: Model) -> None:
    conditions, empty = told(2), torch.zeros(1, 77, 192)
    noise = torch.randn(2, 64, 8, 8, generator=torch.Generator().manual_seed(5))
    t = grid(1)
    guided = guided_trajectories(teacher, conditions, empty, noise, 1, 4.0).latents[-1]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        wanted = teacher(noise, t.expand(2), conditions.states, conditions.face_embeds).float()
        without = teacher(
            noise, t.expand(2), empty.expand(2, -1, -1), torch.zeros_like(conditions.face_embeds)
        ).float()
    expected = rotate(noise, without + 4.0 * (wanted - without), angles(t)[0])
    torch.testing.assert_close(guided, expected, atol=0.05, rtol=0.05)


def test_a_student_trained_for_a_few_steps_ends_nearer_to_the_guided_teacher(
    teacher: Model, seen: Trajectories
) -> None:
    student = Model()
    student.load_state_dict(teacher.state_dict())
    optimizer = torch.optim.AdamW(student.parameters(), 3e-4)
    weights, rng = face_weights(2.5, torch.device("cpu")), np.random.default_rng(0)
    empty, noise = torch.zeros(1, 77, 192), seen.latents[0]

    def distance() -> float:
        end = guided_trajectories(student, seen.told, empty, noise, SEGMENTS, 1).latents[-1]
        return float((end - seen.latents[-1]).square().mean())

    before = distance()
    for _ in range(12):
        loss = student_loss(student, seen, weights, rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert distance() < 0.5 * before
