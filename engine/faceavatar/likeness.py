"""best_of: which seeds are drawn for a picture, in which rounds, and which of them is kept.

Picture i of a request with seed s and best_of n has the candidates s + i n to s + i n + n - 1, and the one
that resembles the reference most is kept: so no picture depends on the batch it is drawn in. Knows seeds,
pictures and cosines; does not know how either is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from faceavatar.errors import MissingGraph
from faceavatar.manifest import Manifest
from faceavatar.request import AvatarRequest

Picture = NDArray[np.uint8]
PIXELS_AT_ONCE = 1024 * 1024  # as many as one picture of SDXL's size


def check_likeness(request: AvatarRequest, manifest: Manifest) -> None:
    """Raises MissingGraph where the pack cannot compare faces and the request wants it to."""
    if (request.best_of > 1 or request.similarity) and (
        manifest.face is None or manifest.face.encoder is None
    ):
        asked = f"best_of {request.best_of}" if request.best_of > 1 else "similarity"
        raise MissingGraph(
            f"{manifest.name}: {asked} compares faces, and this pack has no face encoder; leave it out, "
            "or export the pack again with --face-pack"
        )


def candidates_at_once(request: AvatarRequest) -> int:
    """How many pictures a round draws: as many as the request itself has, or a megapixel of them."""
    return max(request.batch, PIXELS_AT_ONCE // (request.height * request.width))


def rounds(request: AvatarRequest) -> int:
    """In how many rounds the candidates of a request are drawn; 1 without best_of."""
    return -(-request.batch * request.best_of // candidates_at_once(request))


def candidates(request: AvatarRequest, round_: int) -> slice:
    """Which candidates, counted from 0 over all pictures, the round draws; 0 is the first."""
    size = candidates_at_once(request)
    return slice(round_ * size, min((round_ + 1) * size, request.batch * request.best_of))


@dataclass
class Kept:
    """The best candidate of each picture so far: only these are held, not all that were drawn."""

    best_of: int
    images: list[Picture] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    similarities: list[float | None] = field(default_factory=list)

    def take(
        self,
        start: int,
        images: Sequence[Picture],
        seeds: Sequence[int],
        similarities: Sequence[float | None],
    ) -> None:
        """Take candidates `start` and on. Of equals the first stays, and a face wins over none."""
        for index, (image, seed, similarity) in enumerate(
            zip(images, seeds, similarities, strict=True), start
        ):
            place = index // self.best_of
            if place == len(self.images):
                self.images.append(image)
                self.seeds.append(seed)
                self.similarities.append(similarity)
            elif similarity is not None and _less(self.similarities[place], similarity):
                self.images[place], self.seeds[place], self.similarities[place] = image, seed, similarity

    def warnings(self) -> Iterator[str]:
        """What a caller may not expect."""
        faceless = [
            str(seed) for seed, found in zip(self.seeds, self.similarities, strict=True) if found is None
        ]
        if faceless and self.best_of > 1:
            yield f"no face was found in any candidate for the pictures of seeds {', '.join(faceless)}"


def _less(known: float | None, new: float) -> bool:
    return known is None or known < new
