"""The scheduler loop, a generator of steps: progress, preview and cancellation belong to whoever iterates.

Knows guidance and noise. Does not know where text and face vectors come from, nor what becomes of latents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faceavatar.errors import NumericalError
from faceavatar.schedulers import Scheduler
from faceavatar.unet import UNet

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Conditions:
    """What steers the denoising of every picture of a batch.

    text (1, N, D) and face (1, M, D), float32; the unconditional ones of the same shapes may be None where
    guidance is off. face_scale: strength of the face.
    """

    text: Floats
    face: Floats
    no_text: Floats | None
    no_face: Floats | None
    face_scale: float


@dataclass(frozen=True)
class Denoised:
    """After step `index` (0-based) of `total`: latents (B, C, h, w), and the guided prediction behind them.

    `before` are the latents that the net saw, scaled for it: with `prediction` they tell the clean picture.
    """

    index: int
    total: int
    timestep: float
    latents: Floats
    before: Floats
    prediction: Floats


class Noise:
    """Gaussian noise for a batch, one generator a picture: the size of the batch changes no picture.

    PCG64 is seeded with each picture's own seed. numpy may change the normals it draws from it in a new
    version (NEP 19), and has not so far; a test holds the first ones.
    """

    def __init__(self, seeds: Sequence[int], shape: tuple[int, int, int]) -> None:
        self._generators = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
        self._shape = shape

    def __call__(self) -> Floats:
        """Fresh unit noise (B, C, h, w) float32."""
        return np.stack([draw.standard_normal(self._shape, np.float32) for draw in self._generators])


def denoise(
    unet: UNet,
    scheduler: Scheduler,
    latents: Floats,
    conditions: Conditions,
    guidance_scale: float,
    noise: Noise,
) -> Iterator[Denoised]:
    """Denoise latents (B, C, h, w) of unit noise, step by step.

    guidance_scale: 1 or less runs the conditional half alone; above, both halves run as one batch and
    prediction = unconditional + guidance_scale * (conditional - unconditional) (Ho and Salimans 2022).
    Raises NumericalError, with the step, for NaN or infinite predictions.
    """
    guided = guidance_scale > 1
    text, face = _batched(conditions, len(latents), guided)
    latents = latents * np.float32(scheduler.init_noise_sigma)
    total = len(scheduler.timesteps)
    for index, timestep in enumerate(scheduler.timesteps):
        before = scheduler.scale_model_input(latents, index)
        batch = np.concatenate([before, before]) if guided else before
        prediction = unet(batch, float(timestep), text, face, conditions.face_scale)
        if guided:
            without, wanted = np.split(prediction, 2)
            prediction = without + np.float32(guidance_scale) * (wanted - without)
        if not np.isfinite(prediction).all():
            raise NumericalError("unet", index)
        latents = scheduler.step(prediction, index, latents, noise)
        yield Denoised(index, total, float(timestep), latents, before, prediction)


def _batched(conditions: Conditions, batch: int, guided: bool) -> tuple[Floats, Floats]:
    """Text (B or 2B, N, D) and face (B or 2B, M, D), unconditional first."""
    texts, faces = [conditions.text], [conditions.face]
    if guided:
        if conditions.no_text is None or conditions.no_face is None:
            raise ValueError("guidance_scale above 1 needs no_text and no_face")
        texts.insert(0, conditions.no_text)
        faces.insert(0, conditions.no_face)
    return (
        np.concatenate([np.repeat(text, batch, axis=0) for text in texts]),
        np.concatenate([np.repeat(face, batch, axis=0) for face in faces]),
    )
