"""Samplers in numpy, one algorithm a file, each stepping as diffusers' class of that name does.

They know the noise schedule and latents; they know no model, no guidance and no loop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from faceavatar.errors import InvalidRequest
from faceavatar.schedulers.ddim import DDIM
from faceavatar.schedulers.dpmpp_2m import DPMSolverPP2M
from faceavatar.schedulers.euler import Euler
from faceavatar.schedulers.euler_ancestral import EulerAncestral
from faceavatar.schedulers.lcm import LCM
from faceavatar.schedulers.schedule import Noise, NoiseSchedule, Scheduler
from faceavatar.schedulers.unipc import UniPC

__all__ = ["SCHEDULER_NAMES", "Noise", "NoiseSchedule", "Scheduler", "make_scheduler"]

_MAKERS: dict[str, Callable[[NoiseSchedule, int], Scheduler]] = {
    "ddim": DDIM,
    "euler": Euler,
    "euler_ancestral": EulerAncestral,
    "dpmpp_2m": DPMSolverPP2M,
    "dpmpp_2m_karras": partial(DPMSolverPP2M, karras=True),
    "unipc": UniPC,
    "lcm": LCM,
}

SCHEDULER_NAMES: tuple[str, ...] = tuple(_MAKERS)


def make_scheduler(name: str, schedule: NoiseSchedule, num_inference_steps: int) -> Scheduler:
    """A scheduler for one run of `num_inference_steps` steps.

    Raises InvalidRequest for an unknown name and for a step count outside 1..num_train_timesteps - 1
    (lcm: 1..50).
    """
    maker = _MAKERS.get(name)
    if maker is None:
        raise InvalidRequest("scheduler", name, ", ".join(SCHEDULER_NAMES))
    most = schedule.num_train_timesteps - 1
    if not 1 <= num_inference_steps <= most:
        raise InvalidRequest("num_inference_steps", num_inference_steps, f"1..{most}")
    return maker(schedule, num_inference_steps)
