"""A matting net's own answer: pictures of any size in, alpha of their size out, as smooth as the net left it.

Knows what nets want to see and what their outputs mean; does not know the picture's edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from faceavatar.backends import Session
from faceavatar.errors import NumericalError, PackInvalid
from faceavatar.image import resize, to_nchw
from faceavatar.manifest import Matting

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Matter:
    """Finds the alpha of pictures of any size with a net of a fixed one."""

    session: Session
    settings: Matting

    def alphas(self, images: Sequence[Bytes]) -> list[Floats]:
        """Alpha (H, W) float32, 0 (background) to 1 (person), of each uint8 RGB (H, W, 3) picture.

        All pictures go through the net at once where its batch varies, else one after the other.
        Raises NumericalError for NaN or infinite values, PackInvalid where the answer is no picture.
        """
        planes = np.concatenate([self._planes(image) for image in images])
        settings = self.settings
        fixed = self.session.inputs[settings.image].shape[0] == 1
        parts = np.split(planes, len(planes)) if fixed else [planes]
        answers = [self.session.run({settings.image: part})[settings.alpha] for part in parts]
        answer = np.concatenate([part.astype(np.float32) for part in answers])
        if not np.isfinite(answer).all():
            raise NumericalError("matting")
        wanted = (len(images), 1, *settings.size)
        if answer.size != np.prod(wanted):
            raise PackInvalid(
                f"matting: output {settings.alpha} has shape {answer.shape}, expected {wanted}; "
                "name the output that is alpha"
            )
        planes_of = answer.reshape(len(images), *settings.size)
        return [_enlarged(_meant(one, settings), image) for one, image in zip(planes_of, images, strict=True)]

    def _planes(self, image: Bytes) -> Floats:
        small = resize(image, *self.settings.size)
        if self.settings.spread:
            return _spread(small, self.settings)
        return to_nchw(small, self.settings.mean, self.settings.std)


def _spread(small: Bytes, settings: Matting) -> Floats:
    """As to_nchw, after making the brightest value of the picture 255."""
    factor = 255 / max(int(small.max()), 1)
    mean, std = (np.asarray(three) / factor for three in (settings.mean, settings.std))
    return to_nchw(small, mean.tolist(), std.tolist())


def _meant(answer: Floats, settings: Matting) -> Floats:
    """Alpha of what a net answers: it may give alpha, logits of it, or scores of any range."""
    if settings.answer == "alpha":
        return np.clip(answer, 0, 1)
    if settings.answer == "logits":
        return np.asarray(1 / (1 + np.exp(-np.clip(answer, -60, 60))), np.float32)
    low, high = float(answer.min()), float(answer.max())
    return np.asarray((answer - low) / max(high - low, 1e-6), np.float32)


def _enlarged(alpha: Floats, image: Bytes) -> Floats:
    height, width = image.shape[:2]
    if alpha.shape == (height, width):
        return alpha
    shrinks = height <= alpha.shape[0] and width <= alpha.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.clip(np.asarray(cv2.resize(alpha, (width, height), interpolation=method), np.float32), 0, 1)
