"""The tables, the timesteps and the manifest of a noise schedule."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, get_args

import numpy as np
import pytest
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)

from faceavatar.errors import InvalidRequest, PackInvalid
from faceavatar.schedulers import SCHEDULER_NAMES, NoiseSchedule, make_scheduler
from faceavatar.schedulers.schedule import BetaSchedule, TimestepSpacing

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

PEERS: dict[str, Any] = {
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "euler_ancestral": EulerAncestralDiscreteScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
    "dpmpp_2m_karras": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
    "lcm": LCMScheduler,
}


def peer(name: str, schedule: NoiseSchedule) -> Any:
    config = asdict(schedule)
    if name not in ("ddim", "lcm"):
        del config["set_alpha_to_one"]
    return PEERS[name](**config, **({"use_karras_sigmas": True} if name.endswith("karras") else {}))


def test_the_names_are_those_of_the_contract() -> None:
    names = ("ddim", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "lcm")
    assert names == SCHEDULER_NAMES


@pytest.mark.parametrize("beta_schedule", get_args(BetaSchedule))
def test_alphas_are_diffusers_own_to_a_few_units_in_the_last_place(beta_schedule: BetaSchedule) -> None:
    schedule = NoiseSchedule(beta_schedule=beta_schedule)
    np.testing.assert_allclose(
        schedule.alphas_cumprod, peer("ddim", schedule).alphas_cumprod.numpy(), rtol=1e-6
    )


@pytest.mark.parametrize("beta_schedule", get_args(BetaSchedule))
def test_rescaled_alphas_are_diffusers_own_and_end_at_zero(beta_schedule: BetaSchedule) -> None:
    """The bound is absolute: the rescaling adds up the last place by which torch's square root is off."""
    schedule = NoiseSchedule(beta_schedule=beta_schedule, rescale_betas_zero_snr=True)
    expected = peer("ddim", schedule).alphas_cumprod.numpy()
    np.testing.assert_allclose(schedule.alphas_cumprod, expected, rtol=0, atol=1e-6)
    assert schedule.alphas_cumprod[-1] == 0
    assert schedule.sigmas[-1] == pytest.approx(4096, rel=1e-6)


def test_the_tables_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        NoiseSchedule().alphas_cumprod[0] = 0


@pytest.mark.parametrize("beta_schedule", get_args(BetaSchedule))
@pytest.mark.parametrize("spacing", get_args(TimestepSpacing))
@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_timesteps_and_first_noise_agree_with_diffusers_for_1_to_50_steps(
    name: str, spacing: TimestepSpacing, beta_schedule: BetaSchedule
) -> None:
    """diffusers cuts Karras timesteps of the cosine schedule off: 249.9999 and 250.0 are one apart there."""
    for zero_snr in (False, True):
        schedule = NoiseSchedule(
            timestep_spacing=spacing, beta_schedule=beta_schedule, rescale_betas_zero_snr=zero_snr
        )
        theirs = peer(name, schedule)
        for count in (1, 2, 20, 50) if zero_snr else range(1, 51):
            ours = make_scheduler(name, schedule, count)
            theirs.set_timesteps(count)
            apart = np.abs(ours.timesteps - theirs.timesteps.numpy()).max()
            assert apart <= (name == "dpmpp_2m_karras" and beta_schedule == "squaredcos_cap_v2")
            assert ours.timesteps.dtype == theirs.timesteps.numpy().dtype
            assert ours.init_noise_sigma == pytest.approx(float(theirs.init_noise_sigma), rel=1e-5, abs=2e-5)


@pytest.mark.parametrize("name", ["ddim", "euler", "dpmpp_2m"])
def test_trailing_spacing_gives_the_count_asked_for_where_diffusers_adds_a_negative_timestep(
    name: str,
) -> None:
    schedule = NoiseSchedule(timestep_spacing="trailing")
    theirs = peer(name, schedule)
    theirs.set_timesteps(61)
    assert (len(theirs.timesteps), int(theirs.timesteps[-1])) == (62, -1)
    ours = make_scheduler(name, schedule, 61).timesteps
    np.testing.assert_array_equal(ours, theirs.timesteps[:61].numpy())


def test_a_manifest_gives_back_the_schedule_that_wrote_it() -> None:
    schedule = NoiseSchedule(prediction_type="v_prediction", rescale_betas_zero_snr=True, steps_offset=0)
    assert NoiseSchedule.from_manifest({"name": "dpmpp_2m", **asdict(schedule)}) == schedule


def test_absent_fields_are_stable_diffusions() -> None:
    schedule = NoiseSchedule.from_manifest({"name": "ddim"})
    assert schedule == NoiseSchedule(
        1000, 0.00085, 0.012, "scaled_linear", "epsilon", "leading", 1, False, False
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_train_timesteps", 1),
        ("num_train_timesteps", True),
        ("num_train_timesteps", "1000"),
        ("beta_start", 0.0),
        ("beta_start", 0.5),
        ("beta_start", "small"),
        ("beta_end", 1.0),
        ("beta_end", float("nan")),
        ("beta_schedule", "cosine"),
        ("prediction_type", "flow"),
        ("prediction_type", ["epsilon"]),
        ("timestep_spacing", None),
        ("steps_offset", -1),
        ("set_alpha_to_one", "yes"),
        ("rescale_betas_zero_snr", 1),
    ],
)
def test_a_wrong_field_of_a_manifest_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(PackInvalid, match=r"^scheduler\.\w+: got .*, allowed ") as raised:
        NoiseSchedule.from_manifest({field: value})
    assert field in str(raised.value) or "beta" in field


def test_an_unknown_field_of_a_manifest_is_refused_by_name() -> None:
    with pytest.raises(PackInvalid, match="unknown field 'beta_begin', known: beta_end, beta_schedule"):
        NoiseSchedule.from_manifest({"beta_begin": 0.1})


def test_an_unknown_scheduler_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(
        InvalidRequest, match="scheduler: got 'plms', allowed ddim, euler, euler_ancestral"
    ) as raised:
        make_scheduler("plms", NoiseSchedule(), 20)
    assert raised.value.field == "scheduler"


@pytest.mark.parametrize(
    ("name", "count", "allowed"),
    [("ddim", 0, r"1\.\.999"), ("unipc", 1000, r"1\.\.999"), ("lcm", 51, r"1\.\.50")],
)
def test_a_step_count_out_of_range_is_refused(name: str, count: int, allowed: str) -> None:
    with pytest.raises(InvalidRequest, match=f"num_inference_steps: got {count}, allowed {allowed}"):
        make_scheduler(name, NoiseSchedule(), count)


def test_a_schedule_of_few_timesteps_can_be_walked_whole() -> None:
    for name in SCHEDULER_NAMES:
        for spacing in get_args(TimestepSpacing):
            schedule = replace(NoiseSchedule(num_train_timesteps=12), timestep_spacing=spacing)
            timesteps = make_scheduler(name, schedule, 11).timesteps
            assert len(timesteps) == 11
            assert 0 <= timesteps.min() <= timesteps.max() < 12
