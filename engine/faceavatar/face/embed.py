"""An aligned face as numbers: the pack's face encoder. Knows no picture and no detector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faceavatar.backends import Session
from faceavatar.errors import NumericalError
from faceavatar.image import to_nchw
from faceavatar.manifest import FaceEncoder


@dataclass
class FaceEmbedder:
    """Crops of uint8 RGB to embeddings."""

    session: Session
    settings: FaceEncoder

    def embed(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embedding (1, E) float32 of an aligned face, uint8 RGB (S, S, 3).

        Raises NumericalError for NaN or infinite values.
        """
        pixels = crop if self.settings.color == "RGB" else crop[..., ::-1]
        aligned = to_nchw(pixels, self.settings.mean, self.settings.std)
        embeds = self.session.run({"aligned_face": aligned})["face_embeds"]
        if not np.isfinite(embeds).all():
            raise NumericalError("face_encoder")
        return embeds
