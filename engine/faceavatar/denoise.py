"""The scheduler loop, a generator of steps: progress, preview and cancellation belong to whoever iterates.

Knows guidance and noise. Does not know where text and face vectors come from, nor what becomes of latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from faceavatar.errors import NumericalError
from faceavatar.schedulers import Scheduler
from faceavatar.unet import StepCache, UNet
from faceavatar.watch import at_step

Floats = NDArray[np.float32]
Part = Literal["latents", "before", "prediction"]


@dataclass(frozen=True)
class Conditions:
    """What steers the denoising of every picture of a batch.

    text (1, N, D) and face (1, M, D), float32, face None for a net that knows none; the unconditional ones
    of the same shapes may be None where guidance is off. face_scale: strength of the face. empty_text: the
    empty prompt, for a net with guidance built in and a negative prompt in no_text. more: further inputs of
    the net, each with one (1, ...) array a half, the wanted half's last. An array of B rows in place of one
    gives each picture its own.
    """

    text: Floats
    face: Floats | None
    no_text: Floats | None
    no_face: Floats | None
    face_scale: float
    empty_text: Floats | None = None
    more: Mapping[str, Sequence[Floats]] = field(default_factory=dict)


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance (Ho and Salimans 2022): u + scale * (c - u).

    scale: one number, or (B, 1, 1, 1) with one for each picture.
    built_in: the scale w that a distilled net has learnt; it answers u + w * (c - u) where a plain net
    (w = 1) answers c. Its differences from u over w are the plain net's, so `scale` means the same to both.
    interval: the shares of the schedule between which it is applied (Kynkäänniemi et al. 2024).
    """

    scale: float | NDArray[np.float64]
    built_in: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)

    def acts(self, index: int, total: int) -> bool:
        """Whether it is applied at step `index` (from 0) of the `total` of the whole schedule."""
        return self.interval[0] <= index / total < self.interval[1]

    @property
    def free(self) -> bool:
        """Whether the conditional half alone gives it."""
        scale = np.asarray(self.scale)
        return bool((scale <= 1).all() if self.built_in == 1 else (scale == self.built_in).all())

    def combine(self, predictions: Sequence[Floats]) -> Floats:
        """One prediction of those for [empty,] negative and wanted; of the wanted one alone, itself."""
        *others, wanted = predictions
        if not others:
            if not self.free:
                raise ValueError(f"guidance_scale {self.scale} needs no_text and no_face")
            return wanted
        ratio = np.asarray(self.scale / self.built_in, np.float32)
        if len(others) == 1:
            return others[0] + ratio * (wanted - others[0])
        empty, negative = others
        away = (negative - empty) / np.float32(self.built_in)
        return np.asarray(empty + away + ratio * (wanted - negative), np.float32)

    def weights(self, halves: int, pictures: int) -> Floats:
        """What each half counts in each picture's prediction, (halves, pictures, 1, 1, 1).

        It is linear in the predictions: what `combine` makes of unit vectors are its weights.
        """
        units = np.eye(halves, dtype=np.float32)
        made = self.combine([np.broadcast_to(unit, (pictures, 1, 1, halves)) for unit in units])
        return np.ascontiguousarray(made.transpose(3, 0, 1, 2)[..., None])


@dataclass(frozen=True)
class Denoised:
    """After step `index` (0-based) of `total`: latents (B, C, h, w), and the guided prediction behind them.

    `before` are the latents that the net saw, scaled for it: with `prediction` they tell the clean picture.
    read: gives one of the three; where they lie on a device, only until the next step is asked for.
    """

    index: int
    total: int
    timestep: float
    read: Callable[[Part], Floats] = field(repr=False)

    @property
    def latents(self) -> Floats:
        """(B, C, h, w), not scaled."""
        return self.read("latents")

    @property
    def before(self) -> Floats:
        """(B, C, h, w), as the net saw them."""
        return self.read("before")

    @property
    def prediction(self) -> Floats:
        """(B, C, h, w), guided."""
        return self.read("prediction")

    def of(self, rows: slice) -> Denoised:
        """The same step of some of the pictures."""
        return replace(self, read=lambda part: self.read(part)[rows])


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
    unet: UNet | StepCache,
    scheduler: Scheduler,
    latents: Floats,
    conditions: Conditions,
    guidance: Guidance,
    noise: Noise,
    clean: Floats | None = None,
    start: int = 0,
) -> Iterator[Denoised]:
    """Denoise latents (B, C, h, w) of unit noise, step by step.

    clean: latents (B, C, h, w) of pictures to begin with, noised as they would be before step `start`.
    Without no_text in the conditions, and outside the guidance's interval, the conditional half runs alone;
    else all halves run as one batch. Raises NumericalError, with the step, for NaN or infinite predictions
    and latents.
    """
    pictures = len(latents)
    feeds = batched(conditions, pictures)
    alone = {name: array if name == "face_scale" else array[-pictures:] for name, array in feeds.items()}
    if clean is None:
        latents = latents * np.float32(scheduler.init_noise_sigma)
    else:
        latents = scheduler.add_noise(clean, latents, start)
    total = len(scheduler.timesteps)
    for index, timestep in enumerate(scheduler.timesteps[start:], start):
        before = scheduler.scale_model_input(latents, index)
        acts = guidance.acts(index, total)
        now = feeds if acts else alone
        halves = len(now["encoder_hidden_states"]) // pictures
        with at_step(index):
            predictions = unet(np.concatenate([before] * halves), float(timestep), now)
        prediction = guidance.combine(np.split(predictions, halves)) if acts else predictions
        if not np.isfinite(prediction).all():
            raise NumericalError("unet", index)
        with np.errstate(over="ignore", invalid="ignore"):  # it is told as an error, just below
            latents = scheduler.step(prediction, index, latents, noise)
        if not np.isfinite(latents).all():
            raise NumericalError("scheduler", index)
        made: dict[Part, Floats] = {"latents": latents, "before": before, "prediction": prediction}
        yield Denoised(index - start, total - start, float(timestep), made.__getitem__)


def batched(conditions: Conditions, batch: int) -> dict[str, Floats]:
    """The net's inputs for every half, (halves * B, ...): the empty, the negative, the wanted one."""
    others = [text for text in (conditions.empty_text, conditions.no_text) if text is not None]
    halves: dict[str, Sequence[Floats]] = {"encoder_hidden_states": [*others, conditions.text]}
    if conditions.face is not None:
        if others and conditions.no_face is None:
            raise ValueError("no_text needs no_face beside it")
        unconditional = [] if conditions.no_face is None else [conditions.no_face] * len(others)
        halves["face_tokens"] = [*unconditional, conditions.face]
    halves |= conditions.more
    feeds = {
        name: np.concatenate([np.repeat(half, batch, axis=0) if len(half) == 1 else half for half in arrays])
        for name, arrays in halves.items()
    }
    if conditions.face is not None:
        feeds["face_scale"] = np.array([conditions.face_scale], np.float32)
    return feeds
