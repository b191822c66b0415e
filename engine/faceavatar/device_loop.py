"""The scheduler loop on a device: latents stay there from step to step.

Knows the step graph's inputs (faceavatar_export.step_graph writes it) and where their numbers come from: the
sampler's and the guidance's own code, run on unit vectors. Same steps and same results as `denoise`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from faceavatar.backends import Buffers
from faceavatar.denoise import Conditions, Denoised, Floats, Guidance, Noise, Part, batched
from faceavatar.errors import NumericalError
from faceavatar.schedulers import Scheduler
from faceavatar.schedulers.linear import KEPT, STATE, input_scales, run_matrices
from faceavatar.unet import StepUNet, timesteps_for
from faceavatar.watch import Rerun, at_step, current

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
    asked for: a ValueError afterwards. A step that overflows below fp32 is done again by the plain net in
    fp32, where there is one.
    """
    feeds, pictures = batched(conditions, len(latents)), len(latents)
    if clean is None:
        latents = latents * np.float32(scheduler.init_noise_sigma)
    else:
        latents = scheduler.add_noise(clean, latents, start)
    scales, matrices = input_scales(scheduler, start), run_matrices(scheduler, start)
    weights = guidance.weights(len(feeds["encoder_hidden_states"]) // pictures, pictures)
    shapes = latents.shape, tuple((name, array.shape) for name, array in sorted(feeds.items()))
    with unet.session.bind(shapes) as on:
        total = len(scheduler.timesteps)
        run = _Run(unet, on, _halves(feeds, weights))
        run.begin(latents)
        for index, (timestep, matrix) in enumerate(zip(scheduler.timesteps[start:], matrices, strict=True)):
            drawn = noise() if matrix[:, STATE + 1].any() else None
            guided = guidance.acts(start + index, total)
            step = _Step(start + index, float(timestep), scales[index], matrix, drawn, guided)
            with at_step(step.index):
                current().ask("unet")
                run.step(step)
            read, close = _reader(on, step)
            try:
                yield Denoised(index, len(matrices), step.timestep, read)
            finally:
                close()


@dataclass(frozen=True)
class _Step:
    """index: of the whole schedule. noise: None where the sampler draws none. guided: guidance acts."""

    index: int
    timestep: float
    scale: np.float32
    matrix: Floats
    noise: Floats | None
    guided: bool

    @property
    def old(self) -> str:
        return _STATES[self.index % 2]

    @property
    def new(self) -> str:
        return _STATES[(self.index + 1) % 2]


@dataclass(frozen=True)
class _Halves:
    """What the net is fed of the halves that run at a step, and their buffers' prefix.

    weights: (H, B, 1, 1, 1), of each half in each picture's prediction.
    """

    prefix: str
    feeds: dict[str, Floats]
    weights: Floats


def _halves(feeds: dict[str, Floats], weights: Floats) -> dict[bool, _Halves]:
    """By whether guidance acts: all of them, or the wanted one alone."""
    pictures = weights.shape[1]
    alone = {name: array if name == "face_scale" else array[-pictures:] for name, array in feeds.items()}
    ones = np.ones((1, *weights.shape[1:]), np.float32)
    return {True: _Halves("", feeds, weights), False: _Halves("alone ", alone, ones)}


@dataclass(frozen=True)
class _Run:
    """One run's buffers. halves: by whether guidance acts; each has buffers of its own, so that neither
    changes the other's shapes."""

    unet: StepUNet
    on: Buffers
    halves: dict[bool, _Halves]
    uploaded: set[bool] = field(default_factory=set)

    def begin(self, latents: Floats) -> None:
        """Upload the state before the first step, in both places: what is kept must be numbers."""
        kept = np.zeros((KEPT, *latents.shape), np.float32)
        for state in _STATES:
            self.on.upload(state, np.concatenate([latents[None], kept]))
        self.on.upload("noise", kept[0])
        self.on.reserve("guided", latents.shape, _FLOAT)
        self.on.reserve("magnitude", (2,), _FLOAT)

    def step(self, step: _Step) -> None:
        """From the old state to the new one. Raises NumericalError."""
        on, halves = self.on, self.halves[step.guided]
        prefix, rows = halves.prefix, len(halves.feeds["encoder_hidden_states"])
        if step.guided not in self.uploaded:
            self.uploaded.add(step.guided)
            for name, array in (*halves.feeds.items(), ("guidance", halves.weights)):
                on.upload(prefix + name, array)
        on.upload(prefix + "timestep", timesteps_for(self.unet.session, step.timestep, rows))
        on.upload(prefix + "input_scale", np.full(halves.weights.shape, step.scale, np.float32))
        on.upload("mix", step.matrix[..., None, None, None, None])
        if step.noise is not None:
            on.upload("noise", step.noise)
        own = {name: prefix + name for name in (*halves.feeds, "timestep", "input_scale", "guidance")}
        shared = {"mix": "mix", "noise": "noise", "state": step.old}
        on.run(own | shared, _OUTPUTS | {"new_state": step.new})
        predicted, stepped = np.isfinite(on.download("magnitude"))
        if not predicted:
            stepped = self._again(step)
        if not stepped:
            raise NumericalError("scheduler", step.index)

    def _again(self, step: _Step) -> bool:
        """The same step by the plain net in fp32; whether the new latents are finite."""
        exact, precision = self.unet.exact(), self.unet.session.precision
        if exact is None or precision == "fp32":
            raise NumericalError("unet", step.index)
        state, halves = self.on.download(step.old), self.halves[step.guided]
        count = len(halves.weights)
        sample = np.concatenate([state[0] * step.scale] * count)
        predictions = np.stack(np.split(exact(sample, step.timestep, halves.feeds), count))
        guided = (predictions * halves.weights).sum(axis=0, dtype=np.float32)
        if not np.isfinite(guided).all():
            raise NumericalError("unet", step.index)
        noise = np.zeros_like(guided) if step.noise is None else step.noise
        state = np.tensordot(step.matrix, np.concatenate([state, guided[None], noise[None]]), 1)
        self.on.upload("guided", guided)
        self.on.upload(step.new, state)
        current().note(Rerun("unet", precision, step.index))
        return bool(np.isfinite(state[0]).all())


def _reader(on: Buffers, step: _Step) -> tuple[Callable[[Part], Floats], Callable[[], None]]:
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
                made[part] = on.download(step.new)[0]
            elif part == "before":
                made[part] = on.download(step.old)[0] * step.scale
            else:
                made[part] = on.download("guided")
        return made[part]

    def close() -> None:
        nonlocal over
        over = True

    return read, close
