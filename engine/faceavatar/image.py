"""Pictures in, pictures out: decoding, sizes, uint8 (H, W, 3) <-> float (B, 3, H, W), encoding.

The only room that knows file formats, EXIF and alpha on the way in. It does not know what is in a picture.
Pillow is imported when the first picture comes: it costs more than the rest of this room.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from faceavatar.decoding import decoded, refuse_large, to_small_rgb
from faceavatar.errors import ImageError
from faceavatar.sources import read_bytes, shown

__all__ = [
    "METADATA_KEY",
    "PLAIN_STD",
    "ImageSource",
    "decode_image",
    "encode_lossy",
    "encode_png",
    "fit_to",
    "load_image",
    "read_encoded",
    "read_png_metadata",
    "refuse_large",
    "resize",
    "to_nchw",
    "to_uint8",
]

if TYPE_CHECKING:
    from PIL.Image import Image

    ImageSource = bytes | str | Path | Image | NDArray[np.uint8]
else:
    ImageSource = Any

METADATA_KEY = "faceavatar"
PLAIN_STD = 6.0  # of 255: up to here colours count as one, noise of a decoder among them


def load_image(source: ImageSource) -> NDArray[np.uint8]:
    """Loads a picture as uint8 (H, W, 3) RGB, H and W at most 1536 (larger ones shrink, aspect kept).

    `source`: encoded bytes, a path, an http(s) URL, a data URI, a PIL image, or a uint8 (H, W, 3) RGB array.
    EXIF orientation is applied, alpha is composited on white, an animation gives its first frame, 16-bit and
    float samples are scaled to 0..255. Raises ImageError: missing, no picture, too large, a failing URL.
    """
    from PIL import Image

    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or source.size == 0:
            raise ImageError(f"got an array {source.dtype} {source.shape}, expected uint8 (H, W, 3) RGB")
        return _to_array(to_small_rgb(Image.fromarray(np.ascontiguousarray(source)), "the array"))
    if isinstance(source, Image.Image):
        return _to_array(to_small_rgb(source, "the PIL image"))
    return decode_image(*read_encoded(source))


def read_encoded(source: bytes | str | Path) -> tuple[bytes, str]:
    """The bytes of a path, http(s) URL or data URI, and its name for messages. Raises ImageError."""
    return (source, "the picture") if isinstance(source, bytes) else (read_bytes(source), shown(source))


def decode_image(data: bytes, name: str) -> NDArray[np.uint8]:
    """As load_image, of bytes that were read; `name` stands in messages."""
    return _to_array(decoded(data, name))


def _to_array(image: Image) -> NDArray[np.uint8]:
    return np.array(image, dtype=np.uint8)


def resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resizes uint8 (H, W, 3 | 4) to (height, width, same): Lanczos where it shrinks, bicubic where it grows.

    Both filter before they sample, so nothing aliases; RGBA is resized with its colours premultiplied.
    """
    from PIL import Image

    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    method = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    return _to_array(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), method))


def fit_to(
    image: NDArray[np.uint8], height: int, width: int, policy: Literal["extend", "cover"]
) -> NDArray[np.uint8]:
    """Brings uint8 (H, W, C) to exactly (height, width, C) without distortion.

    "extend" scales the picture to fit inside and repeats its border pixels in what is left: left and right
    equally, and all of the height at the top, because a half-body portrait must keep touching the lower edge;
    above, only the background goes on where its colours are plain.
    "cover" scales it to cover and crops the centre.
    """
    ratios = (height / image.shape[0], width / image.shape[1])
    scale = min(ratios) if policy == "extend" else max(ratios)
    scaled = resize(image, *(max(1, round(side * scale)) for side in image.shape[:2]))
    if policy == "extend":
        top, side = max(0, height - scaled.shape[0]), max(0, width - scaled.shape[1])
        above = np.repeat(_sky(scaled[0])[None], top, axis=0)
        scaled = np.pad(
            np.concatenate([above, scaled]), ((0, 0), (side // 2, side - side // 2), (0, 0)), mode="edge"
        )
    y, x = (scaled.shape[0] - height) // 2, (scaled.shape[1] - width) // 2
    return np.ascontiguousarray(scaled[y : y + height, x : x + width])


def _sky(row: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What goes on above the top row (W, C): the row itself, but where both its ends are plain, nothing that
    has the colour of neither end, so that a hat that touches the border does not become a pillar.
    """
    reach = max(1, len(row) // 8)
    ends = row[:reach].astype(np.float32), row[-reach:].astype(np.float32)
    if max(float(end.std(axis=0).max()) for end in ends) > PLAIN_STD:
        return row
    mix = np.linspace(0, 1, len(row), dtype=np.float32)[:, None]
    left, right = (np.median(end, axis=0) for end in ends)
    between = left * (1 - mix) + right * mix
    far = (
        np.min([np.abs(row - color).max(axis=1) for color in (left, right, between)], axis=0) > 4 * PLAIN_STD
    )
    return np.where(far[:, None], np.rint(between), row).astype(np.uint8)


def to_nchw(
    images: NDArray[np.uint8], mean: float | Sequence[float], std: float | Sequence[float]
) -> NDArray[np.float32]:
    """uint8 (B, H, W, 3) or (H, W, 3) -> float32 (B, 3, H, W), each channel (x - mean) / std, x in 0..255."""
    batch = images if images.ndim == 4 else images[None]
    means, stds = (np.broadcast_to(np.asarray(three, np.float32), 3) for three in (mean, std))
    planes = np.empty((len(batch), 3, *batch.shape[1:3]), np.float32)
    # Plane by plane: four times as fast as to compute on pixels and to move the result.
    for channel in range(3):
        np.subtract(batch[..., channel], means[channel], out=planes[:, channel])
        planes[:, channel] /= stds[channel]
    return planes


def to_uint8(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Float (B, 3, H, W) in -1..1 -> uint8 (B, H, W, 3); values outside are clipped, halves round to even."""
    scaled = images.astype(np.float32)
    scaled += np.float32(1.0)
    scaled *= np.float32(127.5)
    codes = np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled).astype(np.uint8)
    return np.ascontiguousarray(codes.transpose(0, 2, 3, 1))


def encode_png(
    image: NDArray[np.uint8], metadata: Mapping[str, object] | None = None, effort: int = 6
) -> bytes:
    """PNG bytes of uint8 (H, W, 3 | 4); `metadata` goes as JSON into the text chunk named "faceavatar".

    effort: zlib's 1..9. A drawing of 512x512 takes 36 ms at 6, and at 4 15 ms for 5 % more bytes.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    if metadata is not None:
        chunks.add_text(METADATA_KEY, json.dumps(metadata))
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", pnginfo=chunks, compress_level=effort)
    return buffer.getvalue()


def encode_lossy(image: NDArray[np.uint8], kind: Literal["jpeg", "webp"]) -> bytes:
    """JPEG bytes of uint8 (H, W, 3), or WebP bytes of (H, W, 3 | 4), at quality 95."""
    from PIL import Image

    buffer = io.BytesIO()
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if kind == "jpeg" else {"quality": 95}
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, kind.upper(), **options)
    return buffer.getvalue()


def read_png_metadata(path: str | Path) -> dict[str, Any]:
    """The JSON object that `encode_png` put into a PNG file. Raises ImageError when there is none."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(read_bytes(Path(path))), formats=("PNG",)) as image:
            text = image.info.get(METADATA_KEY)
        found = json.loads(text) if isinstance(text, str) else None
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        raise ImageError(
            f"{path}: not a readable PNG file ({error}); only PNG files carry a request"
        ) from error
    if not isinstance(found, dict):
        raise ImageError(f"{path}: holds no request, expected a PNG file that faceavatar wrote")
    return found
