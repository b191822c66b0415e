"""The denoising net: names its inputs and runs it once. Knows no schedule and no guidance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceavatar.backends import DeviceSession, Session


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


@dataclass
class StepUNet:
    """The net with guidance and the sampler's update in one graph; faceavatar.device_loop feeds it."""

    session: DeviceSession


def timesteps_for(session: Session, timestep: float, rows: int) -> NDArray[Any]:
    """(rows,) of one timestep, in the type that the graph takes."""
    dtype = session.inputs["timestep"].dtype
    return np.full(rows, np.rint(timestep) if dtype.startswith("int") else timestep).astype(dtype)
