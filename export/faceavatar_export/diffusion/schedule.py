"""What a checkpoint's scheduler_config.json means for a pack: noise schedule, scheduler, default steps.

And back again: diffusers' own scheduler for a pack's, for the proof.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)

from faceavatar.errors import PackInvalid
from faceavatar.schedulers import NoiseSchedule

_NAMES = {
    "DDIMScheduler": "ddim",
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "UniPCMultistepScheduler": "unipc",
    "LCMScheduler": "lcm",
    # No engine of ours steps as PNDM does; DDIM takes the same timesteps of the same schedule.
    "PNDMScheduler": "ddim",
}
_DPMPP = {"algorithm_type": "dpmsolver++"}
# The engine's name of a scheduler -> diffusers' class of the same steps, and what it must be told.
PEERS: Mapping[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_ancestral": (EulerAncestralDiscreteScheduler, {}),
    "dpmpp_2m": (DPMSolverMultistepScheduler, _DPMPP),
    "dpmpp_2m_karras": (DPMSolverMultistepScheduler, {**_DPMPP, "use_karras_sigmas": True}),
    "unipc": (UniPCMultistepScheduler, {}),
    "lcm": (LCMScheduler, {}),
}
_FEW_STEPS = 4
_TOLD_GUIDANCE = 8.5  # diffusers' LatentConsistencyModelPipeline's own
Variant = Literal["base", "turbo", "lcm"]


@dataclass(frozen=True)
class Sampling:
    """schedule: the manifest's `scheduler`. variant: base, turbo (also Lightning) or lcm."""

    name: str
    schedule: NoiseSchedule
    variant: Variant
    num_inference_steps: int
    guidance_scale: float
    warnings: tuple[str, ...]


def as_variant(scheduler: Any, variant: Variant) -> Any:
    """Another scheduler on the same noise schedule: the one that distillation of this kind wants.

    turbo (Turbo, Lightning): Euler on trailing timesteps. base: what the checkpoint itself has.
    """
    if variant == "lcm":
        return LCMScheduler.from_config(scheduler.config)
    if variant == "turbo":
        return EulerDiscreteScheduler.from_config(scheduler.config, timestep_spacing="trailing")
    return scheduler


def read_sampling(scheduler: Any, family: str, told: bool = False) -> Sampling:
    """What a checkpoint's scheduler says. Raises PackInvalid for a class this engine has no like of.

    told: whether the UNet takes the guidance scale as an input, and so has all guidance at no cost.
    """
    kind, config = type(scheduler).__name__, scheduler.config
    if kind not in _NAMES:
        raise PackInvalid(
            f"scheduler: got {kind}, expected one of {', '.join(_NAMES)}; change scheduler_config.json"
        )
    name = _NAMES[kind]
    said: tuple[str, ...] = ()
    if kind == "PNDMScheduler":
        said = ("PNDM is not offered: the pack's default scheduler is ddim, on the same noise schedule",)
    if name == "dpmpp_2m" and config.get("use_karras_sigmas"):
        name = "dpmpp_2m_karras"
    known = {field.name for field in fields(NoiseSchedule)}
    schedule = NoiseSchedule(**{key: value for key, value in config.items() if key in known})
    if name == "lcm":
        return Sampling(name, schedule, "lcm", _FEW_STEPS, _TOLD_GUIDANCE if told else 1.0, said)
    few = schedule.timestep_spacing == "trailing" and not schedule.rescale_betas_zero_snr
    if name.startswith("euler") and few:
        # Turbo's and Lightning's mark: trained for few steps from pure noise, guidance distilled away.
        return Sampling(name, schedule, "turbo", _FEW_STEPS, 1.0, said)
    return Sampling(name, schedule, "base", 30, 5.0 if family == "sdxl" else 7.5, said)


def diffusers_scheduler(name: str, schedule: NoiseSchedule) -> Any:
    """diffusers' scheduler that steps as the engine's of this name does."""
    make, options = PEERS[name]
    config = asdict(schedule)
    if name not in ("ddim", "lcm"):
        del config["set_alpha_to_one"]
    return make(**config, **options)
