"""The cut-out stage: a net's alpha, fitted to the picture's edges, the figure's own colours, a background.

Holds one net: a pack's own, or for packs without one MediaPipe's selfie segmentation, which ships beside this
file. Does not know how the pictures came about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from faceavatar.backends import open_session
from faceavatar.guard import GuardedSession
from faceavatar.manifest import Matting
from faceavatar.matting.composite import over, straight
from faceavatar.matting.edges import refine, refine_narrow, refine_near
from faceavatar.matting.foreground import estimate_foreground, told_foreground
from faceavatar.matting.net import Answer, Matter
from faceavatar.opening import Opening
from faceavatar.pack import Pack
from faceavatar.watch import current

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
SELFIE = Path(__file__).with_name("selfie_segmentation.onnx")
# RGB in 0..1 at 256x256; alpha is a sigmoid's.
SELFIE_SETTINGS = Matting(size=(256, 256), mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
SURE = 0.02  # alpha nearer than this to 0 or 1 is 0 or 1, and the rest is stretched to meet it


@dataclass(frozen=True)
class CutOut:
    """Cuts people out of pictures. `net` says whose alpha it is: "toon", or "selfie_segmentation"."""

    matter: Matter
    net: str

    @classmethod
    def open(cls, pack: Pack | None, provider: str, threads: int | None = None) -> CutOut:
        """With a pack's own net, or for None and packs without one the selfie segmentation.

        Raises what Pack.open and backends.open_session raise.
        """
        return cls.of(Opening.of(pack, provider, threads)) if pack else cls.for_photos(provider, threads)

    @classmethod
    def of(cls, opening: Opening) -> CutOut:
        """As open, with a pack that is opened already. Raises what Opening.open raises."""
        settings = opening.pack.manifest.matting
        if settings is None:
            return cls.for_photos(opening.provider, opening.threads)
        return cls(Matter(opening.guarded("matting"), settings), opening.pack.name)

    @classmethod
    def for_photos(cls, provider: str, threads: int | None = None) -> CutOut:
        """With the selfie segmentation. Raises what backends.open_session raises."""
        session = GuardedSession(open_session(SELFIE, provider, threads), "matting")
        return cls(Matter(session, SELFIE_SETTINGS), SELFIE.stem)

    def alphas(self, images: Sequence[Bytes]) -> list[Floats]:
        """Alpha (H, W) float32 0..1 of each uint8 RGB (H, W, 3) picture, at its own edges.

        Raises NumericalError.
        """
        answers = zip(images, self.matter.answers(images), strict=True)
        return [self._at_edges(image, answer.alpha) for image, answer in answers]

    def cut(self, images: Sequence[Bytes], color: str | None) -> tuple[Bytes, ...]:
        """Each picture as straight RGBA (H, W, 4) uint8, or over the colour "#rrggbb" as (H, W, 3).

        All go through the net as one batch. Raises NumericalError.
        """
        if not images:
            return ()
        answers = zip(images, self.matter.answers(images), strict=True)
        colored = (self._colored(image, answer) for image, answer in answers)
        if color is None:
            return tuple(straight(*pair) for pair in colored)
        return tuple(over(foreground, alpha, color) for foreground, alpha in colored)

    def _at_edges(self, image: Bytes, alpha: Floats) -> Floats:
        settings = self.matter.settings
        if settings.refine == "near":
            alpha = refine_near(image, alpha)
        elif settings.refine == "beyond" and alpha.size > settings.size[0] * settings.size[1]:
            alpha = refine_narrow(image, alpha)
        elif settings.refine is True:
            alpha = refine(image, alpha)
        return _settled(alpha)

    def _colored(self, image: Bytes, answer: Answer) -> tuple[Bytes, Floats]:
        current().ask("matting")
        alpha = self._at_edges(image, answer.alpha)
        if answer.told is None:
            return estimate_foreground(image, alpha), alpha
        return told_foreground(image, alpha, answer.told), alpha


def _settled(alpha: Floats) -> Floats:
    """Without the faint veil that nets and filters leave: it would be seen on a new background."""
    return np.asarray(np.clip((alpha - SURE) / (1 - 2 * SURE), 0, 1), np.float32)
