"""A matting net's own answer: pictures of any size in, alpha of their size out, as smooth as the net left it,
and the figure's colours where the net tells them.

Knows what nets want to see and what their outputs mean; does not know the picture's edges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
class Told:
    """What a net says of one picture in its own size: the picture as it saw it, uint8 (h, w, 3); alpha (h, w)
    and the figure's colours (3, h, w), float32, 0..1 but for rounding."""

    image: Bytes
    alpha: Floats
    colors: Floats


@dataclass(frozen=True)
class Answer:
    """alpha (H, W) float32 0..1 of a picture; `told` where the net knows of colours, else None."""

    alpha: Floats
    told: Told | None = None


@dataclass(frozen=True)
class Matter:
    """Finds the alpha of pictures of any size with a net of a fixed one."""

    session: Session
    settings: Matting

    def alphas(self, images: Sequence[Bytes]) -> list[Floats]:
        """Alpha (H, W) float32, 0 (background) to 1 (person), of each uint8 RGB (H, W, 3) picture.

        Raises as `answers`.
        """
        return [answer.alpha for answer in self.answers(images)]

    def answers(self, images: Sequence[Bytes]) -> list[Answer]:
        """What the net says of each uint8 RGB (H, W, 3) picture.

        All pictures go through the net at once where its batch varies, else one after the other.
        Raises NumericalError for NaN or infinite values, PackInvalid where the answer is no picture.
        """
        settings = self.settings
        smalls = [resize(image, *settings.size) for image in images]
        planes = _joined([self._planes(small) for small in smalls])
        fixed = self.session.inputs[settings.image].shape[0] == 1
        parts = np.split(planes, len(planes)) if fixed else [planes]
        outputs = [self.session.run({settings.image: part}) for part in parts]
        answer = self._whole(settings.alpha, outputs, len(images), 1)
        found = [_meant(one[0], settings) for one in answer]
        alphas = [_enlarged(one, image) for one, image in zip(found, images, strict=True)]
        if settings.foreground is None:
            return [Answer(alpha) for alpha in alphas]
        colors = self._whole(settings.foreground, outputs, len(images), 3)
        told = [Told(*three) for three in zip(smalls, found, colors, strict=True)]
        return [Answer(alpha, one) for alpha, one in zip(alphas, told, strict=True)]

    def _whole(
        self, name: str, outputs: Sequence[Mapping[str, NDArray[Any]]], count: int, channels: int
    ) -> Floats:
        """One output of all pictures, (count, channels, h, w)."""
        answer = _joined([part[name].astype(np.float32, copy=False) for part in outputs])
        if not np.isfinite(answer).all():
            raise NumericalError("matting")
        wanted = (count, channels, *self.settings.size)
        if answer.size != np.prod(wanted):
            meaning = "alpha" if channels == 1 else "the foreground"
            raise PackInvalid(
                f"matting: output {name} has shape {answer.shape}, expected {wanted}; "
                f"name the output that is {meaning}"
            )
        return answer.reshape(wanted)

    def _planes(self, small: Bytes) -> Floats:
        if self.settings.spread:
            return _spread(small, self.settings)
        return to_nchw(small, self.settings.mean, self.settings.std)


def _joined(parts: Sequence[Floats]) -> Floats:
    """As np.concatenate, which copies the only one too."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


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
