"""A face embedding to the tokens that the denoising net attends to, IP-Adapter-FaceID's way.

Source: Ye et al., "IP-Adapter", 2023. The unconditional half is the projection *of zeros*, not zeros: that is
what the adapter saw when faces were dropped in training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faceavatar.backends import Session
from faceavatar.errors import NumericalError
from faceavatar.manifest import Adapter


@dataclass
class FaceAdapter:
    """The projection of embeddings (1, E) to tokens (1, M, D)."""

    session: Session
    settings: Adapter

    def tokens(self, embeds: NDArray[np.float32]) -> NDArray[np.float32]:
        """Tokens (1, M, D) float32 of an embedding (1, E), brought to length 1 first if the pack says so.

        Raises NumericalError for NaN or infinite values.
        """
        if self.settings.normalize:
            embeds = embeds / np.float32(np.linalg.norm(embeds, axis=1, keepdims=True))
        return self._project(embeds.astype(np.float32))

    def no_face(self) -> NDArray[np.float32]:
        """Tokens (1, M, D) float32 of the unconditional half."""
        return self._project(np.zeros((1, self.settings.embedding_size), np.float32))

    def _project(self, embeds: NDArray[np.float32]) -> NDArray[np.float32]:
        tokens = self.session.run({"face_embeds": embeds})["face_tokens"]
        if not np.isfinite(tokens).all():
            raise NumericalError("face_projection")
        return tokens
