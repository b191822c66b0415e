"""The denoising net: names its inputs and runs it once. Knows no schedule and no guidance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faceavatar.backends import Session


@dataclass
class UNet:
    """One call predicts the noise (or velocity, or sample) of a batch of latents."""

    session: Session

    def __call__(
        self,
        sample: NDArray[np.float32],
        timestep: float,
        text: NDArray[np.float32],
        face_tokens: NDArray[np.float32],
        face_scale: float,
    ) -> NDArray[np.float32]:
        """Prediction (B, C, h, w) float32.

        sample: (B, C, h, w) float32, scaled as the scheduler asks. timestep: the same for all; rounded where
        the graph takes integers, since some schedulers step between them. text: (B, N, D) float32.
        face_tokens: (B, M, D) float32. face_scale: 0 leaves the face out, 1 is the trained strength.
        """
        steps = np.full(len(sample), timestep)
        if self.session.inputs["timestep"].dtype.startswith("int"):
            steps = np.rint(steps)
        return self.session.run(
            {
                "sample": sample,
                "timestep": steps.astype(self.session.inputs["timestep"].dtype),
                "encoder_hidden_states": text,
                "face_tokens": face_tokens,
                "face_scale": np.array([face_scale], np.float32),
            }
        )["noise_pred"]
