"""Each step as a matrix: what a graph on a device needs to walk the very path of the numpy sampler.

All samplers here are linear in the latents, the prediction, fresh noise and what they keep of earlier
steps. So their coefficients need not be derived a second time: the sampler itself is run on unit vectors,
and what comes out are its coefficients.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt

from faceavatar.schedulers.schedule import FloatArray, Scheduler

KEPT = 3  # what a sampler keeps of earlier steps: UniPC, the greediest, two predictions and its correction
STATE = 1 + KEPT  # the latents before them
TERMS = STATE + 2  # and behind them the guided prediction and fresh noise


def step_matrix(scheduler: Scheduler, index: int) -> FloatArray:
    """Step `index` as a float32 matrix (STATE, TERMS); called for the steps of a run in their order.

    New latents and memory (rows; unused ones are zero) of the latents, memory, prediction and noise
    (columns). The scheduler is as far afterwards as if it had stepped.
    """
    # In float64, so that only the sampler's own constants are rounded, and the products of them are not.
    units = list(cast(FloatArray, np.eye(TERMS)))
    kept = len(scheduler.memory)
    scheduler.memory = tuple(units[1 : 1 + kept])
    latents = scheduler.step(units[STATE], index, units[0], lambda: units[STATE + 1])
    matrix = np.zeros((STATE, TERMS), np.float32)
    for row, made in enumerate((latents, *scheduler.memory)):
        matrix[row] = made
    return matrix


def run_matrices(scheduler: Scheduler, start: int = 0) -> list[FloatArray]:
    """The matrices (STATE, TERMS) of all steps of a run from step `start` on."""
    return [step_matrix(scheduler, index) for index in range(start, len(scheduler.timesteps))]


def input_scales(scheduler: Scheduler, start: int = 0) -> npt.NDArray[np.float32]:
    """(n,) what the latents are multiplied by before the model sees them, step by step from `start` on."""
    one = np.ones(1, np.float32)
    steps = range(start, len(scheduler.timesteps))
    return np.array([scheduler.scale_model_input(one, index)[0] for index in steps], np.float32)
