"""What comes back: AvatarResult with its pictures, FaceInfo about the photo, Step while it is being made.

Frozen values that can save themselves. A saved PNG carries its own request, so that the picture can be made
again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from faceavatar.errors import ImageError, InvalidRequest
from faceavatar.image import encode_lossy, encode_png, read_png_metadata
from faceavatar.request import AvatarRequest

Box = tuple[float, float, float, float]
_FORMATS: Mapping[str, Literal["png", "jpeg", "webp"]] = {
    "png": "png",
    "jpg": "jpeg",
    "jpeg": "jpeg",
    "webp": "webp",
}
_SHEET_GAP = 8


@dataclass(frozen=True, eq=False)
class FaceInfo:
    """The face that was used. Boxes are (x, y, width, height) in pixels of the photo as it was loaded.

    `landmarks` is float (5, 2): the eye on the left of the picture, the other eye, nose, mouth corners
    likewise. `faces_found` counts all faces, `others` are the boxes of those not used, `attempt` names the
    rung of the detection ladder that found them, e.g. "640" or "padded 640".
    """

    bbox: Box
    landmarks: NDArray[np.float32]
    score: float
    faces_found: int
    others: tuple[Box, ...]
    attempt: str


@dataclass(frozen=True, eq=False)
class AvatarResult:
    """A finished request. `images` are uint8 (height, width, 3) RGB, or (height, width, 4) straight RGBA.

    `seeds[i]` alone makes `images[i]` again. `timings` are seconds a stage: load_image, detect, embed,
    text, encode, denoise, decode, matting, total. `face` is None where no photo was looked at. `warnings` are
    sentences about what was done otherwise than asked. `similarities`, where the request asked for them or
    for best_of, are the cosines (-1..1) of the reference's embedding and each image's face, None where no
    face is found in one; else None.
    """

    images: tuple[NDArray[np.uint8], ...]
    seeds: tuple[int, ...]
    timings: Mapping[str, float]
    face: FaceInfo | None
    warnings: tuple[str, ...]
    request: AvatarRequest
    pack: str
    pack_version: str
    width: int
    height: int
    similarities: tuple[float | None, ...] | None = None

    def metadata(self, index: int = 0) -> dict[str, Any]:
        """What a saved PNG says of image `index`: the request that makes this one picture, and by what."""
        from faceavatar import __version__

        seed = self.seeds[index]
        return {
            "request": self.request.to_metadata() | {"seed": seed, "batch": 1, "best_of": 1},
            "seed": seed,
            "pack": self.pack,
            "pack_version": self.pack_version,
            "version": __version__,
        }

    def save(self, target: str | Path, format: str = "png") -> list[Path]:
        """Writes every image and gives the paths written, in order; missing folders are made.

        A target that ends in .png, .jpg, .jpeg or .webp is that file (with -0, -1, ... before the suffix
        when there are several images); any other is a folder that gets avatar-<seed>.<format>. Only PNG
        files carry the request. Raises InvalidRequest (unknown format, transparency in a JPEG) and
        ImageError (cannot write).
        """
        target = Path(target).expanduser()
        if target.suffix[1:].lower() in _FORMATS and not target.is_dir():
            paths = [target] if len(self.images) == 1 else self._numbered(target)
        else:
            paths = [target / f"avatar-{seed}.{format.lower()}" for seed in self.seeds]
        kind = _FORMATS.get(paths[0].suffix[1:].lower())
        if kind is None:
            raise InvalidRequest("format", format, "png, jpg or webp")
        if kind == "jpeg" and self.images[0].shape[2] == 4:
            raise InvalidRequest(
                "format",
                paths[0].suffix[1:],
                "png or webp, since the picture has transparency; or ask for a bg_color",
            )
        encoded = [self._encode(index, kind) for index in range(len(self.images))]
        try:
            paths[0].parent.mkdir(parents=True, exist_ok=True)
            for path, data in zip(paths, encoded, strict=True):
                path.write_bytes(data)
        except OSError as error:
            raise ImageError(
                f"{paths[0].parent}: cannot be written ({error.strerror}); choose another place"
            ) from error
        return paths

    def contact_sheet(self) -> NDArray[np.uint8]:
        """All images in rows on one uint8 (H, W, 3 | 4) sheet, white (clear, for RGBA) between them."""
        count, (height, width, channels) = len(self.images), self.images[0].shape
        rows = math.isqrt(count)
        columns = math.ceil(count / rows)
        high, wide = height + _SHEET_GAP, width + _SHEET_GAP
        sheet = np.full((rows * high - _SHEET_GAP, columns * wide - _SHEET_GAP, channels), 255, np.uint8)
        if channels == 4:
            sheet[..., 3] = 0
        for index, image in enumerate(self.images):
            y, x = (index // columns) * high, (index % columns) * wide
            sheet[y : y + height, x : x + width] = image
        return sheet

    def _numbered(self, target: Path) -> list[Path]:
        return [
            target.with_name(f"{target.stem}-{index}{target.suffix}") for index in range(len(self.images))
        ]

    def _encode(self, index: int, kind: Literal["png", "jpeg", "webp"]) -> bytes:
        if kind == "png":
            return encode_png(self.images[index], self.metadata(index))
        return encode_lossy(self.images[index], kind)


@dataclass(frozen=True, eq=False)
class Step:
    """One step of `AvatarEngine.stream`: `index` of `total` is done, counted from 0.

    `timestep` is the schedule's own, `seconds_left` an estimate, `preview` uint8 (h, w, 3) arrays where one
    was asked for. The last item alone has `result`.
    """

    index: int
    total: int
    timestep: float
    seconds_left: float
    preview: tuple[NDArray[np.uint8], ...] | None = None
    result: AvatarResult | None = None


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What `AvatarResult.save` put into a PNG: request, seed, pack, pack_version, version. Or ImageError."""
    return read_png_metadata(path)
