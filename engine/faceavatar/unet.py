"""The denoising net: names its inputs and runs it once. Knows no schedule and no guidance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceavatar.backends import DeviceSession, Session
from faceavatar.errors import ProviderUnavailable


@dataclass
class UNet:
    """One call predicts the noise (or velocity, or sample) of a batch of latents."""

    session: Session

    def __call__(
        self,
        sample: NDArray[np.float32],
        timestep: float,
        conditions: Mapping[str, NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        """Prediction (B, C, h, w) float32.

        sample: (B, C, h, w) float32, scaled as the scheduler asks. timestep: the same for all; rounded where
        the graph takes integers, since some schedulers step between them. conditions: the graph's other
        inputs, float32: encoder_hidden_states (B, N, D), and where it has them face_tokens (B, M, D),
        face_scale (1,) (0 leaves the face out, 1 is as trained), text_embeds (B, P), time_ids (B, 6).
        """
        steps = timesteps_for(self.session, timestep, len(sample))
        return self.session.run({"sample": sample, "timestep": steps, **conditions})["noise_pred"]


class StepCache:
    """The net of one run: whole at every n-th step, between them only its outermost layers.

    What its deep layers say changes slowly from step to step, so the last word of theirs is taken again.
    Source: Ma et al., "DeepCache: Accelerating Diffusion Models for Free", 2023 (arXiv 2312.00858).
    """

    def __init__(self, unet: UNet, shallow: Session, every: int) -> None:
        """shallow: the graph `unet_shallow`. every: 2 or more."""
        self._whole, self._shallow, self._every = unet.session, shallow, every
        self._deep: NDArray[Any] | None = None
        self._age = 0

    def __call__(
        self,
        sample: NDArray[np.float32],
        timestep: float,
        conditions: Mapping[str, NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        """As UNet's. A call of fewer rows than the one before has the last ones of them."""
        rows = len(sample)
        feeds = {"sample": sample, "timestep": timesteps_for(self._whole, timestep, rows), **conditions}
        if self._deep is None or self._age == self._every or len(self._deep) < rows:
            made = self._whole.run(feeds)
            self._deep, self._age = made["deep"], 1
            return made["noise_pred"]
        self._age += 1
        given = feeds | {"deep": self._deep[-rows:]}
        return self._shallow.run({name: given[name] for name in self._shallow.inputs})["noise_pred"]


@dataclass
class StepUNet:
    """The net with guidance and the sampler's update in one graph; faceavatar.device_loop feeds it.

    in_fp32: opens the plain net in fp32, for a step that overflows below it; None where there is no such.
    """

    session: DeviceSession
    in_fp32: Callable[[], Session] | None = None
    _exact: UNet | None = field(default=None, init=False, repr=False)
    _opening: Lock = field(default_factory=Lock, init=False, repr=False)

    def exact(self) -> UNet | None:
        """The plain net in fp32, opened once; None where there is no such."""
        with self._opening:
            if self._exact is None and self.in_fp32 is not None:
                try:
                    self._exact = UNet(self.in_fp32())
                except ProviderUnavailable:  # the pack has no such graph, and the provider no such way
                    self.in_fp32 = None
            return self._exact


def timesteps_for(session: Session, timestep: float, rows: int) -> NDArray[Any]:
    """(rows,) of one timestep, in the type that the graph takes."""
    dtype = session.inputs["timestep"].dtype
    return np.full(rows, np.rint(timestep) if dtype.startswith("int") else timestep).astype(dtype)
