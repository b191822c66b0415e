"""Identity files: a face as numbers, in safetensors' format, for those who will not keep its photo.

A file holds what the encoders of one pack gave for a face, and by which encoders; no pixels. It is taken
wherever a photo is. Knows the file and the encoders' fingerprints; does not know how a face is found or
drawn.

The numbers still tell a person from others: they are biometric data and want the care that photos want.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceavatar.errors import ImageError
from faceavatar.image import ImageSource, decode_image, load_image, read_encoded
from faceavatar.manifest import Manifest, Recogniser

Floats = NDArray[np.float32]
SUFFIX = ".faceid"
FORMAT, VERSION = "faceavatar-identity", "1"
_LONGEST_HEADER = 2**16
_SHAPES: Mapping[str, tuple[int | None, ...]] = {
    "face_embeds": (1, None),
    "image_embeds": (1, None, None),
    "landmarks": (5, 2),
    "bbox": (4,),
    "photo_size": (2,),
}


@dataclass(frozen=True, eq=False)
class Place:
    """Where a face was: landmarks (5, 2), bbox (x, y, width, height), pixels of a (height, width) photo."""

    landmarks: Floats
    bbox: tuple[float, float, float, float]
    photo_size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Identity:
    """A face as numbers. Frozen; write it with save, read it with load.

    embeds: (1, E) float32, as the encoder gave them. encoder: its fingerprint, see encoder_of. encoder_name:
    words for people. place: where the face was in its photo. image_embeds: (1, N, F) float32, what the image
    encoder of a Plus adapter saw, and image_encoder its fingerprint; None for packs that have none.
    """

    embeds: Floats
    encoder: str
    encoder_name: str
    place: Place
    image_embeds: Floats | None = None
    image_encoder: str | None = None

    def to_bytes(self) -> bytes:
        """The file: safetensors, its metadata in the header."""
        from safetensors.numpy import save

        tensors = {
            "face_embeds": self.embeds,
            "landmarks": self.place.landmarks,
            "bbox": np.array(self.place.bbox, np.float64),
            "photo_size": np.array(self.place.photo_size, np.float32),
        }
        said = {
            "format": FORMAT,
            "version": VERSION,
            "encoder": self.encoder,
            "encoder_name": self.encoder_name,
        }
        if self.image_embeds is not None and self.image_encoder is not None:
            tensors["image_embeds"], said["image_encoder"] = self.image_embeds, self.image_encoder
        return bytes(save({name: np.ascontiguousarray(array) for name, array in tensors.items()}, said))

    def save(self, path: str | Path) -> Path:
        """Write the file, by custom ending in .faceid, and give its path. Raises ImageError."""
        target = Path(path).expanduser()
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.to_bytes())
        except OSError as error:
            raise ImageError(
                f"{target}: cannot be written ({error.strerror}); choose another place"
            ) from error
        return target

    @classmethod
    def load(cls, source: bytes | str | Path) -> Identity:
        """Read a file, its path, URL or bytes. Raises ImageError for anything else."""
        data, name = read_encoded(source)
        found = _read(data, name)
        if found is None:
            raise ImageError(f"{name}: no identity file, expected one that `faceavatar embed` wrote")
        return found


def open_reference(source: ImageSource) -> NDArray[np.uint8] | Identity:
    """What a request's image is: an Identity, or a photo as uint8 RGB (H, W, 3). Raises ImageError."""
    if not isinstance(source, bytes | str | Path):
        return load_image(source)
    data, name = read_encoded(source)
    found = _read(data, name)
    if found is not None:
        return found
    if name.lower().endswith(SUFFIX):
        raise ImageError(f"{name}: no identity file, or a damaged one; make it anew with `faceavatar embed`")
    return decode_image(data, name)


def encoder_of(manifest: Manifest) -> tuple[str, str] | None:
    """The fingerprint of a pack's face encoder and words for people; None where the pack has none.

    The fingerprint is a sha256 over the encoder's files and all that decides what they are fed: packs with
    the same encoder have the same one, whatever they draw with.
    """
    face = manifest.face
    if face is None or face.encoder is None or face.alignment is None:
        return None
    crop = [face.alignment.kind, face.alignment.size]
    if isinstance(face.encoder, Recogniser):
        name = face.encoder.file
        return _fingerprint(["arcface", *_hashes(manifest, name), crop]), f"arcface {name}"
    name, fed = manifest.graphs["face_encoder"].file, face.encoder
    content = ["graph", *_hashes(manifest, name), crop, fed.mean, fed.std, fed.color]
    return _fingerprint(content), f"{manifest.name}'s {name}"


def image_encoder_of(manifest: Manifest) -> str | None:
    """The fingerprint of the image encoder of a Plus adapter, likewise; None where the pack has none."""
    if manifest.face is None or manifest.face.image_encoder is None:
        return None
    fed = manifest.face.image_encoder
    hashes = _hashes(manifest, manifest.graphs["image_encoder"].file)
    return _fingerprint(["image", *hashes, fed.align_size, fed.size, fed.mean, fed.std])


def _hashes(manifest: Manifest, name: str) -> list[str]:
    """Of a graph's file and of the weights beside it."""
    return [manifest.files[part].sha256 for part in (name, f"{name}.data") if part in manifest.files]


def _fingerprint(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _read(data: bytes, name: str) -> Identity | None:
    """None for what does not begin as an identity file does. Raises ImageError for a broken one."""
    said = _said(data)
    if said is None:
        return None
    if said.get("version") != VERSION:
        got = said.get("version")
        raise ImageError(f"{name}: an identity file of version {got}, expected {VERSION}; upgrade faceavatar")
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)
        for key, shape in _SHAPES.items():
            if key != "image_embeds" or key in tensors:
                _check(key, tensors[key], shape)
        if ("image_embeds" in tensors) != ("image_encoder" in said):
            raise ValueError("image_embeds and image_encoder go together")
        height, width = (int(side) for side in tensors["photo_size"])
        left, top, across, down = (float(side) for side in tensors["bbox"])
        place = Place(tensors["landmarks"], (left, top, across, down), (height, width))
        return Identity(
            tensors["face_embeds"],
            str(said["encoder"]),
            str(said["encoder_name"]),
            place,
            tensors.get("image_embeds"),
            said.get("image_encoder"),
        )
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ImageError(
            f"{name}: a damaged identity file ({error}); make it anew with `faceavatar embed`"
        ) from error


def _said(data: bytes) -> dict[str, str] | None:
    """The metadata of a safetensors header, where it is an identity file's."""
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(_LONGEST_HEADER, len(data) - 8) or data[8:9] != b"{":
        return None
    try:
        said = json.loads(data[8 : 8 + length]).get("__metadata__")
    except ValueError:
        return None
    return said if isinstance(said, dict) and said.get("format") == FORMAT else None


def _check(key: str, array: NDArray[Any], shape: tuple[int | None, ...]) -> None:
    right = array.ndim == len(shape) and all(w in {None, g} for g, w in zip(array.shape, shape, strict=True))
    dtype = np.float64 if key == "bbox" else np.float32  # as the detectors tell them
    if array.dtype != dtype or not right or array.size == 0:
        raise ValueError(f"{key} is {array.dtype} {array.shape}")
    if not np.isfinite(array).all() or (key in {"face_embeds", "photo_size"} and not array.any()):
        raise ValueError(f"{key} holds NaN, infinite values or zeros alone")
