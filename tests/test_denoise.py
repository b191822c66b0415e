"""The loop: guidance in one batch, a noise source a picture, and the same path as diffusers' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from tiny_pack import CONTEXT, SCHEDULE, TOKENS, Recording

from faceavatar.backends import open_session
from faceavatar.denoise import Conditions, Denoised, Guidance, Noise, denoise
from faceavatar.errors import NumericalError
from faceavatar.schedulers import NoiseSchedule, make_scheduler
from faceavatar.unet import UNet

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
SHAPE = (8, 8, 8)
FIRST_NOISE_OF_SEED_0 = [1.117622, -1.3871249, -0.4265716, -0.80358726]
ZERO_SNR = NoiseSchedule.from_manifest(SCHEDULE)
EPSILON = NoiseSchedule(prediction_type="epsilon", timestep_spacing="leading")


@pytest.fixture
def unet(tiny: Path) -> UNet:
    return UNet(Recording(open_session(tiny / "unet.onnx", "cpu")))


@pytest.fixture
def conditions() -> Conditions:
    draw = np.random.default_rng(5)
    text, no_text = draw.normal(size=(2, 1, 77, CONTEXT)).astype(np.float32)
    face, no_face = draw.normal(size=(2, 1, TOKENS, CONTEXT)).astype(np.float32)
    return Conditions(text, face, no_text, no_face, 1.0)


def run(
    unet: UNet,
    conditions: Conditions,
    seeds: list[int],
    guidance: float = 3.0,
    name: str = "ddim",
    steps: int = 6,
    schedule: NoiseSchedule = ZERO_SNR,
) -> list[Denoised]:
    noise = Noise(seeds, SHAPE)
    scheduler = make_scheduler(name, schedule, steps)
    return list(denoise(unet, scheduler, noise(), conditions, Guidance(guidance), noise))


def feeds(unet: UNet) -> list[dict[str, Any]]:
    assert isinstance(unet.session, Recording)
    return unet.session.feeds


def test_both_halves_run_as_one_batch_the_unconditional_first(unet: UNet, conditions: Conditions) -> None:
    run(unet, conditions, [1, 2, 3])
    assert [len(feed["sample"]) for feed in feeds(unet)] == [6] * 6
    first = feeds(unet)[0]
    np.testing.assert_array_equal(first["sample"][:3], first["sample"][3:])
    assert conditions.no_text is not None
    assert conditions.no_face is not None
    for index, (text, face) in enumerate(
        [(conditions.no_text, conditions.no_face)] * 3 + [(conditions.text, conditions.face)] * 3
    ):
        np.testing.assert_array_equal(first["encoder_hidden_states"][index], text[0])
        np.testing.assert_array_equal(first["face_tokens"][index], face[0])


def test_guidance_of_1_runs_no_unconditional_half(unet: UNet, conditions: Conditions) -> None:
    alone = Conditions(conditions.text, conditions.face, None, None, 1.0)
    steps = run(unet, alone, [1, 2, 3], guidance=1.0)
    assert [len(feed["sample"]) for feed in feeds(unet)] == [3] * 6
    both = run(unet, conditions, [1, 2, 3], guidance=1.000001)
    np.testing.assert_allclose(steps[-1].latents, both[-1].latents, atol=1e-3)


def test_a_net_with_guidance_built_in_answers_every_scale_as_the_plain_net_does() -> None:
    empty, negative, wanted = np.random.default_rng(1).normal(size=(3, 2, 4, 8, 8)).astype(np.float32)
    learnt = 3.5
    told_negative, told_wanted = (empty + np.float32(learnt) * (x - empty) for x in (negative, wanted))
    for scale in (1.0, 2.0, 3.5, 9.0):
        distilled, plain = Guidance(scale, learnt), Guidance(scale)
        np.testing.assert_allclose(
            distilled.combine([empty, told_wanted]), plain.combine([empty, wanted]), atol=2e-4
        )
        np.testing.assert_allclose(
            distilled.combine([empty, told_negative, told_wanted]),
            plain.combine([negative, wanted]),
            atol=2e-4,
        )
    np.testing.assert_array_equal(Guidance(learnt, learnt).combine([told_wanted]), told_wanted)
    with pytest.raises(ValueError, match="needs no_text"):
        Guidance(2.0, learnt).combine([told_wanted])


def test_guidance_without_its_unconditional_half_is_refused(unet: UNet, conditions: Conditions) -> None:
    with pytest.raises(ValueError, match="needs no_text and no_face"):
        run(unet, Conditions(conditions.text, conditions.face, None, None, 1.0), [1])


@pytest.mark.parametrize(
    "name", ["ddim", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "lcm"]
)
def test_a_picture_of_a_batch_is_the_one_its_seed_makes_alone(
    unet: UNet, conditions: Conditions, name: str
) -> None:
    together = run(unet, conditions, [7, 8, 9], name=name, schedule=EPSILON)[-1].latents
    alone = run(unet, conditions, [9], name=name, schedule=EPSILON)[-1].latents
    np.testing.assert_allclose(together[2], alone[0], atol=1e-4 * np.abs(alone).max())


def test_noise_is_fresh_at_each_draw_and_unit_normal() -> None:
    noise = Noise([1, 2], (4, 64, 64))
    first, second = noise(), noise()
    assert first.dtype == np.float32
    assert not np.isclose(first[0], first[1]).all()
    assert not np.isclose(first, second).all()
    assert abs(first.std() - 1) < 0.02


def test_the_noise_of_a_seed_never_changes() -> None:
    # Published results name their seeds: these numbers are part of the interface.
    np.testing.assert_array_equal(
        Noise([0], (1, 1, 4))().ravel(), np.array(FIRST_NOISE_OF_SEED_0, np.float32)
    )


THEIRS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": True}),
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
}


@pytest.mark.parametrize("name", list(THEIRS))
def test_the_loop_ends_where_a_loop_of_diffusers_on_the_same_graph_ends(
    unet: UNet, conditions: Conditions, name: str
) -> None:
    kind, options = THEIRS[name]
    shared = {key: value for key, value in SCHEDULE.items() if key not in ("name", "set_alpha_to_one")}
    theirs = kind(**shared, **options)
    theirs.set_timesteps(6)
    latents = torch.from_numpy(Noise([11, 12], SHAPE)()) * theirs.init_noise_sigma
    assert conditions.no_text is not None
    assert conditions.no_face is not None
    text = np.repeat(np.concatenate([conditions.no_text, conditions.text]), 2, axis=0)
    face = np.repeat(np.concatenate([conditions.no_face, conditions.face]), 2, axis=0)
    feeds = {"encoder_hidden_states": text, "face_tokens": face, "face_scale": np.ones(1, np.float32)}
    for timestep in theirs.timesteps:
        sample = theirs.scale_model_input(torch.cat([latents] * 2), timestep)
        without, wanted = torch.from_numpy(unet(sample.numpy(), float(timestep), feeds)).chunk(2)
        latents = theirs.step(without + 3.0 * (wanted - without), timestep, latents).prev_sample
    ours = run(unet, conditions, [11, 12], name=name)[-1].latents
    np.testing.assert_allclose(ours, latents.numpy(), atol=1e-4)


def test_timesteps_between_two_are_rounded_for_a_graph_that_takes_integers(
    unet: UNet, conditions: Conditions
) -> None:
    spaced = NoiseSchedule(timestep_spacing="linspace")
    taken = [step.timestep for step in run(unet, conditions, [1], name="euler", steps=7, schedule=spaced)]
    assert any(timestep != round(timestep) for timestep in taken)
    assert [feed["timestep"][0] for feed in feeds(unet)] == [round(timestep) for timestep in taken]


def test_leaving_the_loop_stops_the_work(unet: UNet, conditions: Conditions) -> None:
    noise = Noise([1], SHAPE)
    for step in denoise(
        unet, make_scheduler("ddim", ZERO_SNR, 50), noise(), conditions, Guidance(3.0), noise
    ):
        if step.index == 1:
            break
    assert len(feeds(unet)) == 2


def test_nan_is_refused_with_the_step_it_came_at(unet: UNet, conditions: Conditions) -> None:
    noise = Noise([1], SHAPE)
    latents = np.full((1, *SHAPE), np.nan, np.float32)
    with pytest.raises(NumericalError, match="unet gave NaN or infinite values at step 0"):
        next(denoise(unet, make_scheduler("ddim", ZERO_SNR, 4), latents, conditions, Guidance(3.0), noise))


def test_latents_that_overflow_in_the_scheduler_are_its_own(unet: UNet, conditions: Conditions) -> None:
    noise = Noise([1], SHAPE)
    latents = np.full((1, *SHAPE), 1e38, np.float32)
    steps = denoise(unet, make_scheduler("ddim", EPSILON, 4), latents, conditions, Guidance(3.0), noise)
    with pytest.raises(NumericalError, match=r"scheduler gave NaN .* at step 0"):
        next(steps)


def test_outside_its_interval_the_wanted_half_runs_alone(unet: UNet, conditions: Conditions) -> None:
    noise, scheduler = Noise([1, 2], SHAPE), make_scheduler("ddim", ZERO_SNR, 6)
    guidance = Guidance(3.0, interval=(1 / 6, 4 / 6))
    steps = list(denoise(unet, scheduler, noise(), conditions, guidance, noise))
    assert [len(feed["sample"]) for feed in feeds(unet)] == [2, 4, 4, 4, 2, 2]
    for feed in (feeds(unet)[0], feeds(unet)[-1]):
        np.testing.assert_array_equal(feed["encoder_hidden_states"], np.repeat(conditions.text, 2, 0))
        np.testing.assert_array_equal(feed["face_scale"], [1.0])

    # By hand: each step from the one before, with guidance or without.
    latents, scheduler = Noise([1, 2], SHAPE)(), make_scheduler("ddim", ZERO_SNR, 6)
    for index, timestep in enumerate(scheduler.timesteps):
        wanted = unet(latents, float(timestep), _half(conditions.text, conditions.face))
        if 1 <= index < 4:
            other = unet(latents, float(timestep), _half(conditions.no_text, conditions.no_face))
            wanted = other + np.float32(3.0) * (wanted - other)
        latents = scheduler.step(wanted, index, latents, noise)
        np.testing.assert_allclose(steps[index].latents, latents, atol=2e-5)


def _half(text: Any, face: Any) -> dict[str, Any]:
    return {
        "encoder_hidden_states": np.repeat(text, 2, 0),
        "face_tokens": np.repeat(face, 2, 0),
        "face_scale": np.ones(1, np.float32),
    }
