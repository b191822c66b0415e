"""What a pack sees in a photo: the face it takes, its embedding, and the tokens these become.

Holds the pack's face models and remembers the photos seen last. Knows no prompt and no denoising.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faceavatar.adapter import FaceAdapter, FaceImageEncoder
from faceavatar.backends import Session
from faceavatar.cache import Cache
from faceavatar.errors import InvalidRequest, MissingGraph
from faceavatar.face.align import align
from faceavatar.face.detect import FaceDetector
from faceavatar.face.embed import FaceEmbedder
from faceavatar.pack import Pack
from faceavatar.result import FaceInfo
from faceavatar.stopwatch import Stopwatch

Floats = NDArray[np.float32]
Picture = NDArray[np.uint8]
REMEMBERED_FACES = 32


@dataclass(frozen=True, eq=False)
class Look:
    """What was seen in a photo: the face, its embedding (1, E), and the crop its image encoder looks at.

    face is None for an embedding that was handed in; crop is uint8 RGB (S, S, 3), None where none is needed.
    photo_size: (height, width) of the photo in whose pixels the face lies.
    """

    face: FaceInfo | None
    embeds: Floats
    crop: Picture | None = None
    photo_size: tuple[int, int] | None = None


class FaceReader:
    """A pack's face models: all of them, an adapter alone, or none."""

    def __init__(self, pack: Pack, sessions: Mapping[str, Session]) -> None:
        self._pack = pack
        self.detector: FaceDetector | None = None
        self.embedder: FaceEmbedder | None = None
        self.adapter: FaceAdapter | None = None
        self.image_encoder: FaceImageEncoder | None = None
        self._looks: Cache[Look] = Cache(REMEMBERED_FACES)
        face = pack.manifest.face
        if face is None:
            return
        self.adapter = FaceAdapter(sessions["face_projection"], face.adapter)
        if face.detector is not None and face.encoder is not None:
            self.detector = FaceDetector(pack.file(face.detector.file))
            self.embedder = FaceEmbedder(sessions["face_encoder"], face.encoder)
        if face.image_encoder is not None:
            self.image_encoder = FaceImageEncoder(sessions["image_encoder"], face.image_encoder)

    def must_see(self) -> None:
        """Raises MissingGraph where the pack cannot look at a photo by itself."""
        if self.detector is None:
            raise MissingGraph(
                f"{self._pack.name}: this pack has no face detector and encoder of its own; hand the "
                "embedding in (generate(request, face_embeds=...)), or export it again with them"
            )

    def look(self, photo: Picture, face_index: int | None, clock: Stopwatch) -> Look:
        """Find the face in uint8 RGB (H, W, 3) and embed it; the photos seen last are remembered.

        face_index: by size, None or 0 the largest. Raises MissingGraph, NoFaceFound, InvalidRequest.
        """
        key = (hashlib.sha256(photo.tobytes()).digest(), photo.shape, face_index)
        return self._looks.get(key, lambda: self._look_anew(photo, face_index or 0, clock))

    def _look_anew(self, photo: Picture, index: int, clock: Stopwatch) -> Look:
        self.must_see()
        settings = self._pack.manifest.face
        assert self.detector is not None  # must_see said so, and the manifest holds them together
        assert self.embedder is not None
        assert settings is not None
        with clock.measure("detect"):
            found = self.detector.detect(photo)
        if index >= len(found.faces):
            raise InvalidRequest("face_index", index, f"0..{len(found.faces) - 1}: the faces found, by size")
        face = found.faces[index]
        others = tuple(other.bbox for other in found.faces if other is not face)
        info = FaceInfo(face.bbox, face.landmarks, face.score, len(found.faces), others, found.attempt)
        alignment, crop = settings.alignment, None
        with clock.measure("embed"):
            if settings.image_encoder is not None:
                crop = align(photo, face.landmarks, "arcface", settings.image_encoder.align_size)
            assert alignment is not None  # the manifest holds the three parts together
            aligned = align(photo, face.landmarks, alignment.kind, alignment.size)
            return Look(info, self.embedder.embed(aligned), crop, photo.shape[:2])

    def tokens(
        self, look: Look | None, guided: bool, clock: Stopwatch
    ) -> tuple[Floats | None, Floats | None]:
        """The face's tokens (1, M, D) and, where guided, those of no face; None without an adapter."""
        if self.adapter is None or look is None:
            return None, None
        with clock.measure("embed"):
            seen = unseen = None
            if self.image_encoder is not None and look.crop is not None:
                seen = self.image_encoder.states(look.crop)
                unseen = self.image_encoder.no_image() if guided else None
            face = self.adapter.tokens(look.embeds, seen)
            return face, self.adapter.no_face(unseen) if guided else None
