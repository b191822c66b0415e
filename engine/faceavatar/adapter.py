"""A face embedding to the tokens that the denoising net attends to, IP-Adapter-FaceID's way.

Source: Ye et al., "IP-Adapter", 2023. The unconditional half is the projection *of zeros*, not zeros: that is
what the adapter saw when faces were dropped in training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from faceavatar.backends import Session
from faceavatar.errors import NumericalError
from faceavatar.image import to_nchw
from faceavatar.manifest import Adapter, ImageEncoder


@dataclass
class FaceImageEncoder:
    """CLIP's view of an aligned face, for the adapters of the Plus kind: its penultimate states."""

    session: Session
    settings: ImageEncoder

    def states(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        """States (1, N, F) float32 of an aligned face, uint8 RGB (S, S, 3)."""
        size = self.settings.size
        if crop.shape[:2] != (size, size):
            # As CLIP's own preprocessing does: Pillow's bicubic filter, which averages when it shrinks.
            crop = np.asarray(Image.fromarray(crop).resize((size, size), Image.Resampling.BICUBIC))
        return self._run(to_nchw(crop, self.settings.mean, self.settings.std))

    def no_image(self) -> NDArray[np.float32]:
        """States of a tensor of zeros: what the adapters saw where the image was dropped in training."""
        size = self.settings.size
        return self._run(np.zeros((1, 3, size, size), np.float32))

    def _run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        states = self.session.run({"pixel_values": pixels})["image_embeds"]
        if not np.isfinite(states).all():
            raise NumericalError("image_encoder")
        return states


@dataclass
class FaceAdapter:
    """The projection of embeddings (1, E) to tokens (1, M, D)."""

    session: Session
    settings: Adapter

    def tokens(
        self, embeds: NDArray[np.float32], image_embeds: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Tokens (1, M, D) float32 of an embedding (1, E), brought to length 1 first if the pack says so.

        image_embeds: the image encoder's states (1, N, F), for a projection that looks at the face as well.
        Raises NumericalError for NaN or infinite values.
        """
        if self.settings.normalize:
            embeds = embeds / np.float32(np.linalg.norm(embeds, axis=1, keepdims=True))
        return self._project(embeds.astype(np.float32), image_embeds)

    def no_face(self, image_embeds: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Tokens (1, M, D) float32 of the unconditional half; image_embeds: the states of no image."""
        return self._project(np.zeros((1, self.settings.embedding_size), np.float32), image_embeds)

    def _project(
        self, embeds: NDArray[np.float32], image_embeds: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        seen = {} if image_embeds is None else {"image_embeds": image_embeds}
        tokens = self.session.run({"face_embeds": embeds, **seen})["face_tokens"]
        if not np.isfinite(tokens).all():
            raise NumericalError("face_projection")
        return tokens
