"""The scheduler loop on a device: latents stay there from step to step.

Knows the step graph's inputs (faceavatar_export.step_graph writes it) and where their numbers come from: the
sampler's and the guidance's own code, run on unit vectors. Same steps and same results as `denoise`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from faceavatar.backends import Buffers
from faceavatar.denoise import Conditions, Denoised, Floats, Guidance, Noise, Part, batched
from faceavatar.errors import NumericalError
from faceavatar.schedulers import Scheduler
from faceavatar.schedulers.linear import KEPT, STATE, input_scales, run_matrices
from faceavatar.unet import StepUNet, timesteps_for
from faceavatar.watch import at_step, current

# Read from one, written to the other, in turn: an input must not change while it is read.
_STATES = ("state of even steps", "state of odd steps")
_OUTPUTS = {"guided": "guided", "magnitude": "magnitude"}
_FLOAT = np.dtype(np.float32)


def denoise_on_device(
    unet: StepUNet,
    scheduler: Scheduler,
    latents: Floats,
    conditions: Conditions,
    guidance: Guidance,
    noise: Noise,
    clean: Floats | None = None,
    start: int = 0,
) -> Iterator[Denoised]:
    """Denoise latents (B, C, h, w) of unit noise, step by step; arguments and errors as denoise's.

    A step's arrays are copied from the device when they are read, which has to be before the next step is
    asked for: a ValueError afterwards.
    """
    pictures = len(latents)
    feeds = batched(conditions, pictures)
    rows = len(feeds["encoder_hidden_states"])
    halves = rows // pictures
    if clean is None:
        latents = latents * np.float32(scheduler.init_noise_sigma)
    else:
        latents = scheduler.add_noise(clean, latents, start)
    scales, matrices = input_scales(scheduler, start), run_matrices(scheduler, start)
    shapes = latents.shape, tuple((name, array.shape) for name, array in sorted(feeds.items()))
    with unet.session.bind(shapes) as on:
        for name, array in feeds.items():
            on.upload(name, array)
        _prepare(on, latents, guidance.weights(halves, pictures))
        names = [*feeds, "timestep", "input_scale", "guidance", "mix", "noise"]
        for index, (timestep, matrix) in enumerate(zip(scheduler.timesteps[start:], matrices, strict=True)):
            scale = scales[index]
            on.upload("timestep", timesteps_for(unet.session, float(timestep), rows))
            on.upload("input_scale", np.full((halves, pictures, 1, 1, 1), scale, np.float32))
            on.upload("mix", matrix[..., None, None, None, None])
            if matrix[:, STATE + 1].any():
                on.upload("noise", noise())
            old, new = _STATES[index % 2], _STATES[(index + 1) % 2]
            with at_step(start + index):
                current().ask("unet")
                on.run({name: name for name in names} | {"state": old}, _OUTPUTS | {"new_state": new})
            if not np.isfinite(on.download("magnitude")):
                raise NumericalError("unet", start + index)
            read, close = _reader(on, old, new, scale)
            try:
                yield Denoised(index, len(matrices), float(timestep), read)
            finally:
                close()


def _prepare(on: Buffers, latents: Floats, weights: Floats) -> None:
    """What is the same at every step, and the state before the first."""
    kept = np.zeros((KEPT, *latents.shape), np.float32)
    on.upload(_STATES[0], np.concatenate([latents[None], kept]))
    on.upload("noise", kept[0])
    on.upload("guidance", weights)
    on.reserve(_STATES[1], (STATE, *latents.shape), _FLOAT)
    on.reserve("guided", latents.shape, _FLOAT)
    on.reserve("magnitude", (), _FLOAT)


def _reader(
    on: Buffers, old: str, new: str, scale: np.float32
) -> tuple[Callable[[Part], Floats], Callable[[], None]]:
    """What reads a step's arrays, each from the device once, and what ends its time."""
    made: dict[Part, Floats] = {}
    over = False

    def read(part: Part) -> Floats:
        if part not in made:
            if over:
                raise ValueError(
                    f"{part}: the device has gone on; read a step before asking for the next one"
                )
            if part == "latents":
                made[part] = on.download(new)[0]
            elif part == "before":
                made[part] = on.download(old)[0] * scale
            else:
                made[part] = on.download("guided")
        return made[part]

    def close() -> None:
        nonlocal over
        over = True

    return read, close
