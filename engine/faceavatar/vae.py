"""Latents to pictures and back: applies the manifest's scale, runs the nets. Knows no bytes and no sizes.

A large picture can be decoded in tiles, by two graphs that faceavatar_export.tiles cuts from the decoder.
What a tile's pixels see of their neighbours lies within HALO cells; what they see of the whole picture are
the means and variances of the decoder's group norms, which are found by passes over all tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from faceavatar.backends import Session
from faceavatar.errors import NumericalError
from faceavatar.manifest import Latents


@dataclass
class VaeDecoder:
    """Decodes one picture at a time, so that memory does not grow with the batch."""

    session: Session
    settings: Latents

    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pictures (B, 3, H, W) float32, about -1..1, from latents (B, C, h, w) float32.

        Raises NumericalError for NaN or infinite values.
        """
        scaled = latents / np.float32(self.settings.scaling_factor) + np.float32(self.settings.shift_factor)
        images = np.concatenate(
            [self.session.run({"latents": one[None]})["image"] for one in scaled.astype(np.float32)]
        )
        if not np.isfinite(images).all():
            raise NumericalError("vae_decoder")
        return images


CORE, HALO = (
    96,
    6,
)  # cells of twice the latents' size: of a tile, and of what its outermost pixels see around it
SETTLED = 1e-3  # a change of means and variances, in standard deviations, that moves no pixel by 1 of 255


@dataclass
class TiledVaeDecoder:
    """Decodes one picture tile by tile, as VaeDecoder does it at once.

    low: latents (1, C, h, w) to half (1, D, 2 h, 2 w). tile: a tile of half, the K norms' means and variances
    (K, 2, G), whether to use the tile's own in their place, and its core, to a picture and the core's own.
    """

    low: Session
    tile: Session
    settings: Latents

    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """A picture (1, 3, H, W) float32, about -1..1, from latents (1, C, h, w) float32.

        The first pass lets each tile take its own means and variances. Taken together they are right for the
        first norm, since nothing before it sees the whole picture; after k passes those of k norms are right,
        and all of them sooner as a rule. Passes end when nothing moves any more, at the latest with the one
        after as many as there are norms.
        Raises NumericalError for NaN or infinite values.
        """
        scaled = latents / np.float32(self.settings.scaling_factor) + np.float32(self.settings.shift_factor)
        half = self.low.run({"latents": scaled.astype(np.float32)})["half"]
        norms = np.zeros(self._norms_shape(), np.float32)
        for index in range(len(norms) + 1):
            image, found = self._pass(half, norms, own=index == 0)
            moved = np.abs(found - norms) / np.sqrt(np.maximum(found[:, 1:], 1e-12))
            moved[:, 1] /= np.sqrt(np.maximum(found[:, 1], 1e-12))
            norms = found
            if index and moved.max() < SETTLED:
                break
        if not np.isfinite(image).all():
            raise NumericalError("vae_decoder_tile")
        return image

    def _pass(
        self, half: NDArray[np.float32], norms: NDArray[np.float32], own: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Every tile once: the picture, and the norms' means and variances over all of it."""
        height, width = half.shape[2:]
        image: NDArray[np.float32] | None = None
        means, variances, weights = [], [], []
        for top, bottom in _cores(height):
            for left, right in _cores(width):
                up, start = max(0, top - HALO), max(0, left - HALO)
                core = np.array([top - up, left - start, bottom - up, right - start])
                answer = self.tile.run(
                    {
                        "half": np.ascontiguousarray(half[:, :, up : bottom + HALO, start : right + HALO]),
                        "norms": norms,
                        "own": np.array([own]),
                        "core": core,
                    }
                )
                grain = answer["image"].shape[2] // (min(height, bottom + HALO) - up)
                if image is None:
                    image = np.empty((1, 3, height * grain, width * grain), np.float32)
                rows, columns = (slice(*(grain * core[axis::2])) for axis in (0, 1))
                place = slice(top * grain, bottom * grain), slice(left * grain, right * grain)
                image[:, :, place[0], place[1]] = answer["image"][:, :, rows, columns]
                means.append(answer["own_norms"][:, 0])
                variances.append(answer["own_norms"][:, 1])
                weights.append((bottom - top) * (right - left))
        assert image is not None
        return image, _over_all(np.array(means), np.array(variances), np.array(weights))

    def _norms_shape(self) -> tuple[int, ...]:
        return tuple(int(side) for side in self.tile.inputs["norms"].shape)


def _cores(length: int) -> list[tuple[int, int]]:
    """Begin and end of each tile's core: as few as there have to be, and equally long."""
    count = -(-length // CORE)
    edges = [round(index * length / count) for index in range(count + 1)]
    return list(pairwise(edges))


def _over_all(
    means: NDArray[np.float32], variances: NDArray[np.float32], weights: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Mean and variance (K, 2, G) of the whole of those of its parts (T, K, G), in float64 on the way."""
    share = (weights / weights.sum())[:, None, None]
    mean = (share * means.astype(np.float64)).sum(0)
    variance = (share * (variances + (means - mean) ** 2)).sum(0)
    return np.stack([mean, variance], axis=1).astype(np.float32)


@dataclass
class VaeEncoder:
    """Turns a picture into the latents that the denoising net knows."""

    session: Session
    settings: Latents

    def encode(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Latents (1, C, h, w) float32, scaled, of a picture (1, 3, H, W) float32 of -1..1.

        Raises NumericalError for NaN or infinite values.
        """
        mean = self.session.run({"image": image})["latents"]
        if not np.isfinite(mean).all():
            raise NumericalError("vae_encoder")
        scaled = (mean - np.float32(self.settings.shift_factor)) * np.float32(self.settings.scaling_factor)
        return np.asarray(scaled, np.float32)
