"""What a pack sees in a photo: the face it takes, its embedding, the tokens these become, and likeness.

Holds the pack's face models and remembers the photos seen last. Knows no prompt and no denoising.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from faceavatar.adapter import FaceAdapter, FaceImageEncoder
from faceavatar.backends import Session
from faceavatar.cache import Cache
from faceavatar.errors import InvalidRequest, MissingGraph, NoFaceFound
from faceavatar.face.align import align
from faceavatar.face.detect import Detection, Face, FaceDetector
from faceavatar.face.embed import FaceEmbedder
from faceavatar.identity import Identity, Place, encoder_of, image_encoder_of
from faceavatar.manifest import FaceEncoder
from faceavatar.opening import Opening
from faceavatar.pack import Pack
from faceavatar.result import FaceInfo
from faceavatar.stopwatch import Stopwatch
from faceavatar.watch import current

Floats = NDArray[np.float32]
Picture = NDArray[np.uint8]
REMEMBERED_FACES = 32
FACE_ROLES = ("face_encoder", "face_projection", "image_encoder")


class Embedder(Protocol):
    """Aligned faces to embeddings."""

    def embed(self, crop: Picture) -> Floats:
        """(1, E) float32 of uint8 RGB (S, S, 3)."""


@dataclass(frozen=True, eq=False)
class Look:
    """What was seen in a photo: the face, its embedding (1, E), and the crop its image encoder looks at.

    face is None for an embedding or an identity that was handed in; crop is uint8 RGB (S, S, 3), None where
    none is needed. image_embeds: what the image encoder saw when the identity was made. place: where the
    face was in its photo, None for an embedding alone.
    """

    face: FaceInfo | None
    embeds: Floats
    crop: Picture | None = None
    image_embeds: Floats | None = None
    place: Place | None = None


class FaceReader:
    """A pack's face models: all of them, an adapter alone, or none."""

    def __init__(
        self, pack: Pack, sessions: Mapping[str, Session], provider: str, threads: int | None = None
    ) -> None:
        """sessions: of the roles in FACE_ROLES that the pack has. Raises MissingExtra, SignatureMismatch."""
        self._pack = pack
        self.detector: FaceDetector | None = None
        self.embedder: Embedder | None = None
        self.adapter: FaceAdapter | None = None
        self.image_encoder: FaceImageEncoder | None = None
        self._looks: Cache[Look] = Cache(REMEMBERED_FACES)
        self._tokens: Cache[Floats] = Cache(REMEMBERED_FACES)
        face = pack.manifest.face
        if face is None:
            return
        self.adapter = FaceAdapter(sessions["face_projection"], face.adapter)
        if face.detector is not None and face.encoder is not None:
            file = pack.file(face.detector.file)
            if face.detector.kind == "scrfd":
                from faceavatar.face.insight import Scrfd

                self.detector = FaceDetector(Scrfd(file, provider, threads))
            else:
                self.detector = FaceDetector(file)
            if isinstance(face.encoder, FaceEncoder):
                self.embedder = FaceEmbedder(sessions["face_encoder"], face.encoder)
            else:
                from faceavatar.face.insight import ArcFace

                self.embedder = ArcFace(pack.file(face.encoder.file), provider, threads)
        if face.image_encoder is not None:
            self.image_encoder = FaceImageEncoder(sessions["image_encoder"], face.image_encoder)

    @classmethod
    def load(cls, opening: Opening) -> FaceReader:
        """The face models alone, for those who draw nothing."""
        roles = [role for role in FACE_ROLES if role in opening.pack.manifest.graphs]
        sessions = {role: opening.guarded(role) for role in roles}
        return cls(opening.pack, sessions, opening.provider, opening.threads)

    def must_see(self) -> None:
        """Raises MissingGraph where the pack cannot look at a photo by itself."""
        if self.detector is None:
            raise MissingGraph(
                f"{self._pack.name}: this pack has no face detector and encoder of its own; hand the "
                "embedding in (generate(request, face_embeds=...)), or export it again with them"
            )

    def look(self, reference: Picture | Identity, face_index: int | None, clock: Stopwatch) -> Look:
        """Find the face in uint8 RGB (H, W, 3) and embed it, or take the one of an identity.

        The photos seen last are remembered. face_index: by size, None or 0 the largest.
        Raises MissingGraph, NoFaceFound, InvalidRequest.
        """
        if isinstance(reference, Identity):
            return self._recall(reference, face_index)
        photo = reference
        key = (hashlib.sha256(photo.tobytes()).digest(), photo.shape, face_index)
        return self._looks.get(key, lambda: self._look_anew(photo, face_index or 0, clock))

    def identity(self, photo: Picture, face_index: int | None, clock: Stopwatch) -> Identity:
        """The face in uint8 RGB (H, W, 3) as an identity for this pack, and for those of the same encoder.

        Raises as look does.
        """
        self.must_see()
        look, encoder = self.look(photo, face_index, clock), encoder_of(self._pack.manifest)
        assert encoder is not None  # must_see said so
        assert look.place is not None
        if look.crop is None or self.image_encoder is None:
            return Identity(look.embeds, *encoder, look.place)
        with clock.measure("embed"):
            states = self.image_encoder.states(look.crop)
        return Identity(look.embeds, *encoder, look.place, states, image_encoder_of(self._pack.manifest))

    def similarity(self, image: Picture, embeds: Floats, clock: Stopwatch) -> float | None:
        """The cosine between an embedding (1, E) and that of the largest face in uint8 RGB (H, W, 3).

        None where no face is found. Raises MissingGraph.
        """
        self.must_see()
        assert self.detector is not None
        try:
            current().ask("detect")
            with clock.measure("detect"):
                face = self.detector.detect(image).faces[0]
        except NoFaceFound:
            return None
        with clock.measure("embed"):
            found = self._embed(image, face)
        lengths = float(np.linalg.norm(found)) * float(np.linalg.norm(embeds))
        return float(np.vdot(found.ravel(), embeds.ravel())) / max(lengths, 1e-12)

    def _recall(self, identity: Identity, face_index: int | None) -> Look:
        """The look that an identity keeps. Raises InvalidRequest where it is another pack's."""
        name, manifest = self._pack.name, self._pack.manifest
        again = f"make it anew from the photo: faceavatar embed PHOTO --pack {name} -o WHO.faceid"
        if face_index is not None:
            raise InvalidRequest("face_index", face_index, "None: an identity file holds one face")
        self.must_see()
        encoder = encoder_of(manifest)
        assert encoder is not None
        if identity.encoder != encoder[0]:
            got = f"an identity of {identity.encoder_name} ({identity.encoder[:12]})"
            raise InvalidRequest(
                "image", got, f"one of {encoder[1]} ({encoder[0][:12]}), {name}'s encoder; {again}"
            )
        size = 0 if manifest.face is None else manifest.face.adapter.embedding_size
        if identity.embeds.shape[1] != size:
            got = f"an identity of {identity.embeds.shape[1]} numbers"
            raise InvalidRequest("image", got, f"one of {size}; {again}")
        if self.image_encoder is None:
            return Look(None, identity.embeds, place=identity.place)
        wanted = image_encoder_of(manifest)
        if identity.image_encoder != wanted:
            got = (
                "an identity without image states"
                if identity.image_encoder is None
                else "another encoder's states"
            )
            raise InvalidRequest("image", got, f"one with the states of {name}'s image encoder; {again}")
        return Look(None, identity.embeds, None, identity.image_embeds, identity.place)

    def _look_anew(self, photo: Picture, index: int, clock: Stopwatch) -> Look:
        self.must_see()
        assert self.detector is not None
        current().ask("detect")
        with clock.measure("detect"):
            found = self.detector.detect(photo)
        if index >= len(found.faces):
            raise InvalidRequest("face_index", index, f"0..{len(found.faces) - 1}: the faces found, by size")
        face, settings, crop = found.faces[index], self._pack.manifest.face, None
        with clock.measure("embed"):
            if settings is not None and settings.image_encoder is not None:
                crop = align(photo, face.landmarks, "arcface", settings.image_encoder.align_size)
            place = Place(face.landmarks, face.bbox, (photo.shape[0], photo.shape[1]))
            return Look(_report(found, face), self._embed(photo, face), crop, None, place)

    def _embed(self, image: Picture, face: Face) -> Floats:
        settings = self._pack.manifest.face
        assert settings is not None  # must_see said so, and the manifest holds the parts together
        assert settings.alignment is not None
        assert self.embedder is not None
        aligned = align(image, face.landmarks, settings.alignment.kind, settings.alignment.size)
        return self.embedder.embed(aligned)

    def tokens(
        self, look: Look | None, guided: bool, clock: Stopwatch
    ) -> tuple[Floats | None, Floats | None]:
        """The face's tokens (1, M, D) and, where guided, those of no face; None without an adapter."""
        if self.adapter is None or look is None:
            return None, None
        with clock.measure("embed"):
            key = tuple(_digest(part) for part in (look.embeds, look.crop, look.image_embeds))
            face = self._tokens.get(key, lambda: self._project(look))
            return face, self._tokens.get(None, self._no_face) if guided else None

    def _project(self, look: Look) -> Floats:
        assert self.adapter is not None
        seen = None if self.image_encoder is None else look.image_embeds
        if self.image_encoder is not None and seen is None and look.crop is not None:
            seen = self.image_encoder.states(look.crop)
        return self.adapter.tokens(look.embeds, seen)

    def _no_face(self) -> Floats:
        assert self.adapter is not None
        unseen = None if self.image_encoder is None else self.image_encoder.no_image()
        return self.adapter.no_face(unseen)


def _digest(array: NDArray[np.generic] | None) -> bytes | None:
    """What tells an array's content from any other's."""
    return None if array is None else hashlib.sha256(str(array.shape).encode() + array.tobytes()).digest()


def _report(found: Detection, face: Face) -> FaceInfo:
    others = tuple(other.bbox for other in found.faces if other is not face)
    return FaceInfo(face.bbox, face.landmarks, face.score, len(found.faces), others, found.attempt)
